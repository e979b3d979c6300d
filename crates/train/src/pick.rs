//! Which file of a run folder is its model.

use crate::checkpoint::{is_damage, list, recorded};
use crate::checksums::Checksums;
use crate::error::{Result, TrainError};
use std::path::{Path, PathBuf};

/// The model of a run folder or of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunModel {
    /// Its file.
    pub path: PathBuf,
    /// Notes about the choice: files that were skipped, or that could not be verified.
    pub notes: Vec<String>,
}

const FINAL: &str = "final.safetensors";
const EMA: &str = "ema.safetensors";

/// The model of a run: the finished one, or else the averaged weights of the newest checkpoint. The model of a checkpoint: its averaged
/// weights. `None` if the folder is neither.
///
/// Files are compared with the hashes that were recorded when they were written. A damaged file is skipped with a note, and the next
/// one is used.
///
/// # Errors
/// Every model in the folder is damaged, or the folder cannot be read.
pub fn model_of_run(folder: &Path) -> Result<Option<RunModel>> {
    if folder.join(EMA).is_file() {
        let notes = verify_checkpoint(folder)?.into_iter().collect();
        let path = folder.join(EMA);
        return Ok(Some(RunModel { path, notes }));
    }
    let mut notes = Vec::new();
    if folder.join(FINAL).is_file() {
        match verify_final(folder) {
            Ok(note) => {
                notes.extend(note);
                let path = folder.join(FINAL);
                return Ok(Some(RunModel { path, notes }));
            }
            Err(error) if is_damage(&error) => notes.push(format!("skipped: {error}")),
            Err(error) => return Err(error),
        }
    }
    let checkpoints = folder.join("checkpoints");
    let all = match checkpoints.is_dir() {
        true => list(&checkpoints)?,
        false => Vec::new(),
    };
    for (step, checkpoint) in all {
        match verify_checkpoint(&checkpoint) {
            Ok(note) => {
                if !notes.is_empty() {
                    notes.push(format!(
                        "{}: using the checkpoint of step {step} instead",
                        folder.display()
                    ));
                }
                notes.extend(note);
                let path = checkpoint.join(EMA);
                return Ok(Some(RunModel { path, notes }));
            }
            Err(error) if is_damage(&error) => notes.push(format!("skipped: {error}")),
            Err(error) => return Err(error),
        }
    }
    if notes.is_empty() {
        return Ok(None);
    }
    Err(TrainError::Folder {
        path: folder.to_owned(),
        problem: format!("every model here is damaged: {}", notes.join("; ")),
    })
}

/// Fails if a file has another hash than was recorded when it was written: in `SHA256SUMS` of its folder, or in `state.json` of a
/// checkpoint of an earlier version. A file without a record passes.
///
/// # Errors
/// The hash differs, or the file or its `SHA256SUMS` cannot be read.
pub fn verify_recorded(file: &Path) -> Result<()> {
    let folder = sdft_files::parent_of(file);
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let sums = match Checksums::read(folder)? {
        Some(sums) => sums,
        None if folder.join(EMA).is_file() && folder.join("state.json").is_file() => {
            recorded(folder)?.0
        }
        None => return Ok(()),
    };
    sums.verify(folder, &name).map(drop)
}

/// Fails if the finished model of a run is damaged. Returns a note if its hash was not recorded.
pub(crate) fn verify_final(folder: &Path) -> Result<Option<String>> {
    let sums = Checksums::read(folder)?.unwrap_or_default();
    Ok(match sums.verify(folder, FINAL)? {
        true => None,
        false => Some(format!(
            "{}: an earlier version wrote it without recording its hash, so it cannot be verified",
            folder.join(FINAL).display()
        )),
    })
}

/// Fails if a checkpoint's averaged weights or its position are damaged. Returns a note if not both hashes were recorded.
fn verify_checkpoint(checkpoint: &Path) -> Result<Option<String>> {
    let (sums, note) = recorded(checkpoint)?;
    for name in ["state.json", EMA] {
        if !sums.verify(checkpoint, name)? && note.is_none() {
            return Err(TrainError::Checkpoint {
                path: checkpoint.to_owned(),
                problem: format!("{name} is not in SHA256SUMS"),
            });
        }
    }
    Ok(note)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_file_named_directly_is_compared_with_every_kind_of_record() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path();
        let file = folder.join(EMA);
        fs::write(&file, b"model").unwrap();
        verify_recorded(&file).unwrap();
        // A checkpoint of an earlier version.
        let hash = sdft_files::sha256_file(&file).unwrap();
        let position = serde_json::to_value(crate::checkpoint::Position::default()).unwrap();
        let state = serde_json::json!({ "position": position, "files": { "ema": hash } });
        fs::write(folder.join("state.json"), state.to_string()).unwrap();
        verify_recorded(&file).unwrap();
        fs::write(&file, b"modem").unwrap();
        let error = verify_recorded(&file).unwrap_err().to_string();
        assert!(error.contains("ema.safetensors is damaged"), "{error}");
        fs::write(folder.join("SHA256SUMS"), b"\xff").unwrap();
        let error = verify_recorded(&file).unwrap_err().to_string();
        assert!(error.contains("SHA256SUMS is damaged"), "{error}");
    }
}
