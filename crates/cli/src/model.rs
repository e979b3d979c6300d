//! Which file a model's name stands for.

use crate::{assets, console};
use anyhow::{Context, Result};
use sdft_models::{LoadOptions, inspect_file};
use sdft_train::{model_of_run, runs_near, verify_recorded};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

/// The file of a model. A run folder stands for its finished model or else its newest whole checkpoint, a checkpoint for its averaged
/// weights; anything else stays. Hashes that were recorded are compared. What was passed over is said.
pub(crate) fn model_file(name: &str) -> Result<String> {
    let (file, notes) = find(name)?;
    for note in notes {
        console::note(&note);
    }
    Ok(file)
}

/// [`model_file`] of a path.
pub(crate) fn model_path(path: &Path) -> Result<PathBuf> {
    match path.to_str() {
        Some(name) => model_file(name).map(PathBuf::from),
        None => Ok(path.to_owned()),
    }
}

/// [`model_file`] before the command itself looks for it, which will say everything.
pub(crate) fn peek_model_file(name: &str) -> Option<String> {
    find(name).ok().map(|(file, _)| file)
}

/// A file and what should be known of the choice.
type Found = (String, Vec<String>);

/// Finds each once: hashes of large files take a while.
fn find(name: &str) -> Result<Found> {
    static FOUND: Mutex<BTreeMap<String, Found>> = Mutex::new(BTreeMap::new());
    let mut known = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(found) = known.get(name) {
        return Ok(found.clone());
    }
    let found = look(name)?;
    known.insert(name.to_owned(), found.clone());
    Ok(found)
}

fn look(name: &str) -> Result<Found> {
    let path = Path::new(name);
    if path.is_dir() {
        let Some(model) = model_of_run(path)? else {
            let runs = runs_near(path).map_or_else(String::new, |runs| format!("; {runs}"));
            anyhow::bail!("{name}: neither a finished run nor a checkpoint in this folder{runs}");
        };
        return Ok((model.path.display().to_string(), model.notes));
    }
    if path.is_file() {
        verify_recorded(path).with_context(|| {
            format!("{name}: take another file, or remove its line from SHA256SUMS if you changed it yourself")
        })?;
    }
    if name != assets::DIGITS_SOURCE
        && !path.exists()
        && let Some(runs) = runs_near(path)
    {
        anyhow::bail!("{name}: no such file or run; {runs}");
    }
    Ok((name.to_owned(), Vec::new()))
}

/// The file of a model that a run starts from and needs again when it is continued.
pub(crate) fn lasting_model_file(name: &str) -> Result<String> {
    let file = model_file(name)?;
    let mut parts = Path::new(&file).components();
    if parts.any(|part| part.as_os_str() == "checkpoints") {
        console::note(&format!(
            "{file}: a checkpoint of a run, which may be removed as that goes on; keep a copy, or this run cannot be continued"
        ));
    }
    Ok(file)
}

/// The run below `runs` whose finished model was written last.
pub(crate) fn newest_run() -> Option<String> {
    let finished = |entry: std::fs::DirEntry| -> Option<(SystemTime, PathBuf)> {
        let path = entry.path().join("final.safetensors");
        // Classifiers lie there, too.
        let found = inspect_file(&path, &LoadOptions::default())
            .ok()?
            .resolved
            .ok()?;
        if found.pool.is_some() {
            return None;
        }
        Some((path.metadata().ok()?.modified().ok()?, entry.path()))
    };
    let newest = std::fs::read_dir("runs")
        .ok()?
        .filter_map(|entry| finished(entry.ok()?))
        .max()?;
    Some(newest.1.display().to_string())
}
