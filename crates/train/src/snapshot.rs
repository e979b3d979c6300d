//! Checkpoints: directories written aside and renamed, verified when read.

use crate::error::{Context, Result, TrainError};
use crate::folder::RunFolder;
use crate::log::Sums;
use candle_core::Tensor;
use sdft_checkpoint::{ReadOptions, sha256_file, sync_dir, write_bytes_atomic, write_safetensors};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

/// Where a run stands, apart from its tensors.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Position {
    /// Steps done.
    pub(crate) step: u64,
    /// Steps skipped because their numbers were not finite.
    pub(crate) skipped: u64,
    /// How many of them in a row up to now.
    pub(crate) skipped_in_row: u64,
    /// Updates of the moving average.
    pub(crate) ema_updates: u64,
    /// Length of `log.jsonl`.
    pub(crate) log_bytes: u64,
    /// Length of the event file.
    pub(crate) event_bytes: u64,
    /// What the next log line averages over.
    pub(crate) sums: Sums,
    /// Step and score of the best evaluation so far, the score as bits.
    #[serde(default)]
    pub(crate) best: Option<(u64, u64)>,
    /// Evaluations since then.
    #[serde(default)]
    pub(crate) evaluations_since_best: u64,
    /// The loss scale as bits, and the steps since it changed.
    #[serde(default)]
    pub(crate) loss_scale: Option<(u64, u64)>,
    /// The losses that the timestep sampler remembers, as bits, and how many of each step.
    pub(crate) timesteps: Option<(Vec<u64>, Vec<usize>)>,
}

/// Named tensors in order.
pub(crate) type Tensors = Vec<(String, Tensor)>;

/// The tensors of a checkpoint, by file.
pub(crate) const FILES: [&str; 3] = ["weights", "ema", "optimizer"];

#[derive(Serialize, Deserialize)]
struct Manifest {
    position: Position,
    /// SHA-256 of each file.
    files: BTreeMap<String, String>,
}

/// A checkpoint in memory.
pub(crate) struct Snapshot {
    pub(crate) path: PathBuf,
    pub(crate) position: Position,
    /// In the order of [`FILES`].
    pub(crate) tensors: [HashMap<String, Tensor>; 3],
}

fn name(step: u64) -> String {
    format!("step-{step:06}")
}

/// Writes a checkpoint, points `latest` at it and removes all but the newest `keep`. Returns its folder.
///
/// `metadata` goes into the files of weights, so that each of them is a model that can be sampled and started from.
pub(crate) fn save(
    folder: &RunFolder,
    position: &Position,
    tensors: [&Tensors; 3],
    metadata: &BTreeMap<String, String>,
    keep: usize,
) -> Result<PathBuf> {
    let parent = folder.checkpoints();
    let aside = parent.join(format!(".{}.tmp", name(position.step)));
    let result = write_aside(&aside, position, tensors, metadata)
        .and_then(|()| publish(&parent, &aside, position.step));
    let target = match result {
        Ok(target) => target,
        Err(error) => {
            // The space of a half-written checkpoint is what a full disk needs back.
            let _ = fs::remove_dir_all(&aside);
            return Err(error);
        }
    };
    let others = list(&parent)?
        .into_iter()
        .filter(|(_, path)| *path != target);
    for (_, old) in others.skip(keep.saturating_sub(1)) {
        remove(&old)?;
    }
    Ok(target)
}

fn write_aside(
    aside: &Path,
    position: &Position,
    tensors: [&Tensors; 3],
    metadata: &BTreeMap<String, String>,
) -> Result<()> {
    if aside.exists() {
        fs::remove_dir_all(aside).at("cannot remove the unfinished checkpoint", aside)?;
    }
    fs::create_dir_all(aside).at("cannot create the checkpoint", aside)?;
    let mut files = BTreeMap::new();
    for (file, tensors) in FILES.into_iter().zip(tensors) {
        let path = aside.join(format!("{file}.safetensors"));
        let entries = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor));
        let none = BTreeMap::new();
        let metadata = if file == "optimizer" { &none } else { metadata };
        write_safetensors(&path, entries, metadata, None)?;
        files.insert(file.to_owned(), sha256_file(&path)?);
    }
    let manifest = Manifest {
        position: position.clone(),
        files,
    };
    let path = aside.join("state.json");
    let text = serde_json::to_string_pretty(&manifest).map_err(|error| TrainError::Checkpoint {
        path: path.clone(),
        problem: error.to_string(),
    })?;
    write_bytes_atomic(&path, text.as_bytes())?;
    sync_dir(aside)?;
    Ok(())
}

fn publish(parent: &Path, aside: &Path, step: u64) -> Result<PathBuf> {
    let target = parent.join(name(step));
    if target.exists() {
        remove(&target)?;
    }
    fs::rename(aside, &target).at("cannot put the checkpoint in place", &target)?;
    sync_dir(parent)?;
    write_bytes_atomic(
        &parent.join("latest"),
        format!("{}\n", name(step)).as_bytes(),
    )?;
    Ok(target)
}

/// Removes a checkpoint in two moves, so that a half-removed one never carries a checkpoint's name.
fn remove(path: &Path) -> Result<()> {
    let trash = path.with_file_name(format!(
        ".{}.old",
        path.file_name().unwrap_or_default().to_string_lossy()
    ));
    if trash.exists() {
        fs::remove_dir_all(&trash).at("cannot remove", &trash)?;
    }
    fs::rename(path, &trash).at("cannot move aside", path)?;
    fs::remove_dir_all(&trash).at("cannot remove", &trash)
}

/// Removes what an earlier process left half-written or half-removed: files and folders that begin with a dot and end as only
/// this project's unfinished ones do. The folder is locked, so nobody is still at them.
pub(crate) fn sweep(folder: &RunFolder) -> Result<()> {
    for parent in [
        folder.root().to_owned(),
        folder.samples(),
        folder.checkpoints(),
    ] {
        for entry in fs::read_dir(&parent).at("cannot read", &parent)? {
            let path = entry.at("cannot read", &parent)?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if !(name.starts_with('.') && (name.ends_with(".tmp") || name.ends_with(".old"))) {
                continue;
            }
            let removed = if path.is_dir() {
                fs::remove_dir_all(&path)
            } else {
                fs::remove_file(&path)
            };
            removed.at("cannot remove", &path)?;
        }
    }
    Ok(())
}

/// Checkpoints by step, newest first.
fn list(parent: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let mut out = Vec::new();
    for entry in fs::read_dir(parent).at("cannot read", parent)? {
        let path = entry.at("cannot read", parent)?.path();
        let step = path
            .file_name()
            .and_then(|name| name.to_str()?.strip_prefix("step-")?.parse().ok());
        if let Some(step) = step {
            out.push((step, path));
        }
    }
    out.sort_by_key(|(step, _)| std::cmp::Reverse(*step));
    Ok(out)
}

/// The newest whole checkpoint, if there is one, and what is wrong with the newer ones, which are moved out of the way.
///
/// # Errors
/// Checkpoints of which none is whole: starting over would lose what they stand for. A system that refuses to read.
pub(crate) fn load_newest(folder: &RunFolder) -> Result<(Option<Snapshot>, Vec<String>)> {
    let mut broken: Vec<PathBuf> = Vec::new();
    let mut notes = Vec::new();
    for (_, path) in list(&folder.checkpoints())? {
        match load(&path) {
            Ok(snapshot) => {
                for path in broken {
                    set_aside(&path)?;
                }
                return Ok((Some(snapshot), notes));
            }
            Err(error) if is_damage(&error) => {
                notes.push(error.to_string());
                broken.push(path);
            }
            Err(error) => return Err(error),
        }
    }
    if broken.is_empty() {
        return Ok((None, notes));
    }
    Err(TrainError::Folder {
        path: folder.checkpoints(),
        problem: format!(
            "none of the {} checkpoints is whole, and nothing was touched: {}",
            broken.len(),
            notes.join("; ")
        ),
    })
}

/// Whether a checkpoint is damaged, as opposed to a system that cannot read it now.
fn is_damage(error: &TrainError) -> bool {
    let missing = |e: &std::io::Error| e.kind() == std::io::ErrorKind::NotFound;
    match error {
        TrainError::Io { source, .. } => missing(source),
        TrainError::Weights(sdft_checkpoint::Error::Io { source, .. }) => missing(source),
        _ => true,
    }
}

/// Keeps a damaged checkpoint under a name that is not a checkpoint's.
fn set_aside(path: &Path) -> Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut target = path.with_file_name(format!("damaged-{name}"));
    for n in 2.. {
        if !target.exists() {
            break;
        }
        target = path.with_file_name(format!("damaged-{name}-{n}"));
    }
    fs::rename(path, &target).at("cannot move aside", path)
}

fn load(path: &Path) -> Result<Snapshot> {
    let problem = |problem: String| TrainError::Checkpoint {
        path: path.to_owned(),
        problem,
    };
    let state = path.join("state.json");
    let text = fs::read_to_string(&state).at("cannot read", &state)?;
    let manifest: Manifest =
        serde_json::from_str(&text).map_err(|error| problem(format!("state.json: {error}")))?;
    let mut tensors = Vec::with_capacity(FILES.len());
    for file in FILES {
        let name = format!("{file}.safetensors");
        let whole = manifest
            .files
            .get(file)
            .ok_or_else(|| problem(format!("state.json does not mention {name}")))?;
        let found = sha256_file(&path.join(&name))?;
        if found != *whole {
            return Err(problem(format!(
                "{name} is damaged: expected SHA-256 {whole}, found {found}"
            )));
        }
        let options = ReadOptions {
            keep_dtype: true,
            ..ReadOptions::default()
        };
        let state = sdft_checkpoint::read(&path.join(&name), &options)?;
        tensors.push(state.into_map().into_iter().collect::<HashMap<_, _>>());
    }
    let tensors = tensors
        .try_into()
        .map_err(|_| problem("not all files were read".into()))?;
    Ok(Snapshot {
        path: path.to_owned(),
        position: manifest.position,
        tensors,
    })
}
