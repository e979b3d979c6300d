//! Checkpoints: directories that are written under a temporary name, renamed, and verified when read.

use crate::checksums::{Checksums, SUMS};
use crate::error::{Context, Result, TrainError};
use crate::folder::RunFolder;
use crate::log::Sums;
use candle_core::Tensor;
use sdft_checkpoint::{ReadOptions, write_safetensors};
use sdft_files::{rename_synced, sha256_file, sync_dir, temporary_path, write_atomic};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

/// The state of a run, apart from its tensors.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Steps done.
    pub step: u64,
    /// Steps skipped because their loss or gradient was not finite.
    pub skipped: u64,
    /// The number of steps skipped in a row up to now.
    pub skipped_in_row: u64,
    /// Updates of the moving average.
    pub(crate) ema_updates: u64,
    /// Length of `log.jsonl`.
    pub(crate) log_bytes: u64,
    /// Length of the event file.
    pub(crate) event_bytes: u64,
    /// Sums of the numbers that the next log line averages.
    pub(crate) sums: Sums,
    /// Step and score (as bits) of the best evaluation so far.
    #[serde(default)]
    pub(crate) best: Option<(u64, u64)>,
    /// Evaluations since then.
    #[serde(default)]
    pub(crate) evaluations_since_best: u64,
    /// The loss scale as bits, and the steps since it changed.
    #[serde(default)]
    pub(crate) loss_scale: Option<(u64, u64)>,
    /// The loss history of the timestep sampler: the losses as bits, and how many there are for each timestep.
    pub(crate) timesteps: Option<(Vec<u64>, Vec<usize>)>,
}

/// Named tensors in order.
pub type Tensors = Vec<(String, Tensor)>;

/// The tensors of a checkpoint that is about to be written.
#[derive(Clone, Debug)]
pub struct TrainingState {
    /// The weights after the last step.
    pub weights: Tensors,
    /// Their moving average.
    pub ema: Tensors,
    /// The moments of the optimiser.
    pub optimizer: Tensors,
}

/// The files of tensors in a checkpoint.
const FILES: [&str; 3] = ["weights", "ema", "optimizer"];

/// The file of the position.
const STATE: &str = "state.json";

/// Longer ones are damaged.
const MAX_STATE: u64 = 64 << 20;

/// `state.json`.
#[derive(Serialize, Deserialize)]
struct Manifest {
    position: Position,
    /// SHA-256 of each file of tensors in checkpoints of earlier versions, which have no `SHA256SUMS`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    files: BTreeMap<String, String>,
}

/// A checkpoint that was read.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// Its folder.
    pub path: PathBuf,
    /// The state of the run.
    pub position: Position,
    /// The weights after the last step.
    pub weights: HashMap<String, Tensor>,
    /// Their moving average.
    pub ema: HashMap<String, Tensor>,
    /// The moments of the optimiser.
    pub optimizer: HashMap<String, Tensor>,
}

fn name(step: u64) -> String {
    format!("step-{step:06}")
}

/// Writes a checkpoint, points `latest` at it and removes all but the newest `keep`. Returns its folder.
///
/// The files of weights carry `metadata`, so that each of them is a model that can be sampled and fine-tuned.
pub(crate) fn save(
    folder: &RunFolder,
    position: &Position,
    state: &TrainingState,
    metadata: &BTreeMap<String, String>,
    keep: usize,
) -> Result<PathBuf> {
    let parent = folder.checkpoints();
    let target = parent.join(name(position.step));
    let temporary = temporary_path(&target).at("cannot write", &target)?;
    let result = write_temporary(&temporary, position, state, metadata)
        .and_then(|()| publish(&parent, &temporary, position.step));
    let target = match result {
        Ok(target) => target,
        Err(error) => {
            // The space of a half-written checkpoint is what a full disk needs back.
            let _ = fs::remove_dir_all(&temporary);
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

fn write_temporary(
    temporary: &Path,
    position: &Position,
    state: &TrainingState,
    metadata: &BTreeMap<String, String>,
) -> Result<()> {
    fs::create_dir(temporary).at("cannot create the checkpoint", temporary)?;
    let mut sums = Checksums::default();
    let tensors = [&state.weights, &state.ema, &state.optimizer];
    for (file, tensors) in FILES.into_iter().zip(tensors) {
        let path = temporary.join(format!("{file}.safetensors"));
        let entries = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor));
        let none = BTreeMap::new();
        let metadata = if file == "optimizer" { &none } else { metadata };
        write_safetensors(&path, entries, metadata, None)?;
        sums.add(
            &format!("{file}.safetensors"),
            &sha256_file(&path).at("cannot read", &path)?,
        );
    }
    let manifest = Manifest {
        position: position.clone(),
        files: BTreeMap::new(),
    };
    let path = temporary.join(STATE);
    let text = serde_json::to_string_pretty(&manifest).map_err(|error| TrainError::Checkpoint {
        path: path.clone(),
        problem: error.to_string(),
    })?;
    write_atomic(&path, text.as_bytes()).at("cannot write", &path)?;
    sums.add(STATE, &sha256_file(&path).at("cannot read", &path)?);
    sums.write(temporary)?;
    sync_dir(temporary).at("cannot flush", temporary)
}

fn publish(parent: &Path, temporary: &Path, step: u64) -> Result<PathBuf> {
    let target = parent.join(name(step));
    if target.exists() {
        remove(&target)?;
    }
    rename_synced(temporary, &target).at("cannot put the checkpoint in place", &target)?;
    point_at(parent, step)?;
    Ok(target)
}

/// Makes `latest` name the checkpoint of a step.
fn point_at(parent: &Path, step: u64) -> Result<()> {
    let latest = parent.join("latest");
    let text = format!("{}\n", name(step));
    if fs::read_to_string(&latest).is_ok_and(|known| known == text) {
        return Ok(());
    }
    write_atomic(&latest, text.as_bytes()).at("cannot write", &latest)
}

/// Renames a checkpoint before it removes it, so that a partly removed one never has a checkpoint's name.
fn remove(path: &Path) -> Result<()> {
    let trash = temporary_path(path).at("cannot move aside", path)?;
    fs::rename(path, &trash).at("cannot move aside", path)?;
    fs::remove_dir_all(&trash).at("cannot remove", &trash)
}

/// Removes files that an earlier process left partly written or partly removed. The folder is locked, so no other process writes there.
pub(crate) fn sweep(folder: &RunFolder) -> Result<()> {
    for parent in [
        folder.root().to_owned(),
        folder.samples(),
        folder.checkpoints(),
    ] {
        sdft_files::sweep(&parent).at("cannot remove what a killed run left", &parent)?;
    }
    // Names of earlier versions.
    let parent = folder.checkpoints();
    for entry in fs::read_dir(&parent).at("cannot read", &parent)? {
        let path = entry.at("cannot read", &parent)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name == ".best.tmp" {
            fs::remove_file(&path).at("cannot remove", &path)?;
        } else if name.starts_with(".step-") && (name.ends_with(".tmp") || name.ends_with(".old")) {
            fs::remove_dir_all(&path).at("cannot remove", &path)?;
        }
    }
    Ok(())
}

/// Checkpoints by step, newest first.
pub(crate) fn list(parent: &Path) -> Result<Vec<(u64, PathBuf)>> {
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

/// The newest checkpoint that is not damaged, if there is one, and notes about the choice. Newer damaged ones are renamed, and `latest`
/// names it afterwards.
///
/// # Errors
/// All checkpoints are damaged (starting over would lose the run), or a file cannot be read.
pub(crate) fn load_newest(folder: &RunFolder) -> Result<(Option<Checkpoint>, Vec<String>)> {
    let mut broken: Vec<PathBuf> = Vec::new();
    let mut notes = Vec::new();
    let parent = folder.checkpoints();
    for (step, path) in list(&parent)? {
        match load(&path) {
            Ok((checkpoint, note)) => {
                // The process may have been killed before it wrote this.
                point_at(&parent, step)?;
                for path in broken {
                    set_aside(&path)?;
                }
                let skipped = |problem| format!("skipped a damaged checkpoint: {problem}");
                let notes = notes.into_iter().map(skipped).chain(note).collect();
                return Ok((Some(checkpoint), notes));
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
            "all {} checkpoints are damaged, and nothing was changed: {}",
            broken.len(),
            notes.join("; ")
        ),
    })
}

/// Whether a checkpoint is damaged, rather than unreadable at the moment.
pub(crate) fn is_damage(error: &TrainError) -> bool {
    use std::io::ErrorKind::{NotADirectory, NotFound};
    let missing = |e: &std::io::Error| [NotFound, NotADirectory].contains(&e.kind());
    match error {
        TrainError::Io { source, .. } => missing(source),
        TrainError::Weights(sdft_checkpoint::Error::Io { source, .. }) => missing(source),
        _ => true,
    }
}

/// Renames a damaged checkpoint so that it is not found again.
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

/// The recorded hashes of a checkpoint's files, and a note if an earlier version recorded less.
pub(crate) fn recorded(checkpoint: &Path) -> Result<(Checksums, Option<String>)> {
    if let Some(sums) = Checksums::read(checkpoint)? {
        return Ok((sums, None));
    }
    let manifest = read_manifest(checkpoint)?;
    if manifest.files.is_empty() {
        return Err(TrainError::Checkpoint {
            path: checkpoint.to_owned(),
            problem: format!("{SUMS} is missing"),
        });
    }
    let mut sums = Checksums::default();
    for (file, hash) in manifest.files {
        sums.add(&format!("{file}.safetensors"), &hash);
    }
    let note = format!(
        "{}: an earlier version wrote it without a checksum of {STATE}, which cannot be verified",
        checkpoint.display()
    );
    Ok((sums, Some(note)))
}

fn read_manifest(checkpoint: &Path) -> Result<Manifest> {
    let state = checkpoint.join(STATE);
    let text = sdft_files::read_regular(&state, MAX_STATE).at("cannot read", &state)?;
    serde_json::from_slice(&text).map_err(|error| TrainError::Checkpoint {
        path: checkpoint.to_owned(),
        problem: format!("{STATE}: {error}"),
    })
}

fn load(path: &Path) -> Result<(Checkpoint, Option<String>)> {
    let problem = |problem: String| TrainError::Checkpoint {
        path: path.to_owned(),
        problem,
    };
    let (sums, note) = recorded(path)?;
    let missing = |name: &str| problem(format!("{name} is not in {SUMS}"));
    if !sums.verify(path, STATE)? && note.is_none() {
        return Err(missing(STATE));
    }
    let manifest = read_manifest(path)?;
    let mut tensors = Vec::with_capacity(FILES.len());
    for file in FILES {
        let name = format!("{file}.safetensors");
        if !sums.verify(path, &name)? {
            return Err(missing(&name));
        }
        let options = ReadOptions {
            keep_dtype: true,
            // The hash shows that the file is intact. A second moment may have overflowed while the weights are finite.
            allow_non_finite: true,
            ..ReadOptions::default()
        };
        let state = sdft_checkpoint::read(&path.join(&name), &options)?;
        tensors.push(state.into_map().into_iter().collect::<HashMap<_, _>>());
    }
    let [weights, ema, optimizer] = tensors
        .try_into()
        .map_err(|_| problem("not all files were read".into()))?;
    let checkpoint = Checkpoint {
        path: path.to_owned(),
        position: manifest.position,
        weights,
        ema,
        optimizer,
    };
    Ok((checkpoint, note))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Plan;
    use candle_core::Device;

    fn saved(root: &Path) -> (RunFolder, PathBuf) {
        let folder = RunFolder::create(root, &<Plan>::default()).unwrap();
        let tensor = |x: f32| {
            let tensor = Tensor::new(&[x], &Device::Cpu).unwrap();
            vec![("x".to_owned(), tensor)]
        };
        let state = TrainingState {
            weights: tensor(1.0),
            ema: tensor(1.0),
            optimizer: tensor(f32::INFINITY),
        };
        let none = BTreeMap::new();
        let path = save(&folder, &Position::default(), &state, &none, 1).unwrap();
        (folder, path)
    }

    #[test]
    fn a_second_moment_that_overflowed_does_not_end_a_run() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, _) = saved(&dir.path().join("run"));
        let checkpoint = load_newest(&folder).unwrap().0.unwrap();
        let x = checkpoint.optimizer["x"].to_vec1::<f32>().unwrap();
        assert_eq!(x, [f32::INFINITY]);
    }

    #[test]
    fn a_run_killed_before_it_pointed_at_its_checkpoint_points_at_it_when_it_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, path) = saved(&dir.path().join("run"));
        let latest = folder.checkpoints().join("latest");
        for stale in [Some("step-000099\n"), None] {
            match stale {
                Some(text) => fs::write(&latest, text).unwrap(),
                None => fs::remove_file(&latest).unwrap(),
            }
            load_newest(&folder).unwrap();
            let name = fs::read_to_string(&latest).unwrap();
            assert_eq!(folder.checkpoints().join(name.trim_end()), path);
        }
    }

    #[cfg(unix)]
    #[test]
    fn pipes_in_a_checkpoint_are_refused_and_not_waited_for() {
        for file in [SUMS, STATE, "optimizer.safetensors"] {
            let dir = tempfile::tempdir().unwrap();
            let (folder, path) = saved(&dir.path().join("run"));
            let pipe = path.join(file);
            fs::remove_file(&pipe).unwrap();
            let made = std::process::Command::new("mkfifo").arg(&pipe).status();
            assert!(made.unwrap().success());
            let error = load_newest(&folder).err().unwrap().to_string();
            assert!(error.contains("pipe"), "{error}");
        }
    }
}
