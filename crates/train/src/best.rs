//! The model of the best evaluation, and when a run has stopped improving.

use crate::checkpoint::Position;
use crate::checksums::Checksums;
use crate::error::{Context, Result};
use crate::folder::RunFolder;
use crate::plan::EvalPlan;
use candle_core::Tensor;
use sdft_checkpoint::write_safetensors;
use sdft_files::sha256_file;
use std::collections::BTreeMap;
use std::fs;

/// Records a score. Returns whether it is the best so far.
pub(crate) fn is_best(position: &mut Position, score: f64) -> bool {
    let better = position
        .best
        .is_none_or(|(_, bits)| score < f64::from_bits(bits));
    if better {
        position.best = Some((position.step, score.to_bits()));
        position.evaluations_since_best = 0;
    } else {
        position.evaluations_since_best += 1;
    }
    better
}

/// Whether the last evaluations show no improvement, as many as the plan's patience.
pub(crate) fn is_exhausted(position: &Position, plan: &EvalPlan) -> bool {
    plan.every > 0 && plan.patience > 0 && position.evaluations_since_best >= plan.patience
}

/// The file of the best model until a checkpoint records it.
fn candidate(step: u64) -> String {
    format!("best-{step:06}.safetensors")
}

/// Saves the best model so far. `best.safetensors` follows with the next checkpoint, so that a killed run continues with the best
/// model that its checkpoint records.
pub(crate) fn keep_best(
    folder: &RunFolder,
    step: u64,
    weights: &[(String, Tensor)],
    metadata: &BTreeMap<String, String>,
) -> Result<()> {
    let (parent, name) = (folder.checkpoints(), candidate(step));
    let path = parent.join(&name);
    let entries = weights.iter().map(|(name, tensor)| (name.as_str(), tensor));
    write_safetensors(&path, entries, metadata, None)?;
    let mut sums = Checksums::read_or_empty(&parent);
    sums.forget(|known| known == name);
    sums.add(&name, &sha256_file(&path).at("cannot read", &path)?);
    sums.write(&parent)
}

/// Puts the best model that `position` records into `best.safetensors`, and removes all others.
pub(crate) fn publish_best(folder: &RunFolder, position: &Position) -> Result<()> {
    let Some((step, _)) = position.best else {
        return Ok(());
    };
    let (parent, name) = (folder.checkpoints(), candidate(step));
    let (best, published) = (parent.join(&name), folder.best_model());
    let damaged = Checksums::read(&parent).is_err();
    let mut sums = Checksums::read_or_empty(&parent);
    if damaged && best.is_file() {
        sums.add(&name, &sha256_file(&best).at("cannot read", &best)?);
    }
    if best.is_file() && !is_published(folder, sums.of(&name))? {
        folder.put(&published, |temporary| {
            // A hard link if the file system has them, otherwise a copy.
            match fs::hard_link(&best, temporary) {
                Ok(()) => Ok(()),
                Err(_) => fs::copy(&best, temporary)
                    .map(drop)
                    .at("cannot write", temporary),
            }
        })?;
    }
    let before = sums.clone();
    sums.forget(|known| known != name);
    if damaged || sums != before {
        sums.write(&parent)?;
    }
    for entry in fs::read_dir(&parent).at("cannot read", &parent)? {
        let path = entry.at("cannot read", &parent)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("best-") && path != best {
            fs::remove_file(&path).at("cannot remove", &path)?;
        }
    }
    Ok(())
}

/// Whether `best.safetensors` is the model with this hash. It reads the file itself, because a process that was killed before it renamed
/// the new one has recorded both.
fn is_published(folder: &RunFolder, hash: Option<&str>) -> Result<bool> {
    let published = folder.best_model();
    let name = published.file_name().unwrap_or_default().to_string_lossy();
    let Some(hash) = hash.filter(|_| published.is_file()) else {
        return Ok(false);
    };
    let recorded = Checksums::read_or_empty(folder.root());
    if recorded.of(&name) != Some(hash) {
        return Ok(false);
    }
    let found = sha256_file(&published).at("cannot read", &published)?;
    Ok(found == hash)
}

/// Forgets the best evaluation if its model is missing or damaged, which can happen if a run continues from an older checkpoint.
pub(crate) fn check_best(folder: &RunFolder, position: &mut Position) -> Result<Option<String>> {
    let Some((step, _)) = position.best else {
        return Ok(None);
    };
    let (parent, name) = (folder.checkpoints(), candidate(step));
    let problem = if parent.join(&name).is_file() {
        let sums = match Checksums::read(&parent) {
            Ok(sums) => sums.unwrap_or_default(),
            Err(error) => {
                // The model may be intact, and the next checkpoint writes the record again.
                return Ok(Some(format!("{error}; the best model is not verified")));
            }
        };
        match sums.verify(&parent, &name) {
            Ok(_) => return Ok(None),
            Err(error) => error.to_string(),
        }
    } else {
        format!("the best model, of step {step}, is missing")
    };
    position.best = None;
    position.evaluations_since_best = 0;
    Ok(Some(format!(
        "{problem}; the next evaluation counts as the best"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Plan;

    #[test]
    fn the_best_is_kept_and_patience_ends() {
        let plan = EvalPlan {
            every: 10,
            patience: 2,
            ..EvalPlan::default()
        };
        let mut position = Position::default();
        let mut course = Vec::new();
        for (step, score) in [
            (10, 5.0),
            (20, 4.0),
            (30, 4.0),
            (40, 3.5),
            (50, 9.0),
            (60, 3.6),
        ] {
            position.step = step;
            let best = is_best(&mut position, score);
            course.push((best, is_exhausted(&position, &plan)));
        }
        assert_eq!(
            course,
            [
                (true, false),
                (true, false),
                (false, false),
                (true, false),
                (false, false),
                (false, true)
            ]
        );
        assert_eq!(position.best, Some((40, 3.5f64.to_bits())));
        assert!(!is_exhausted(&position, &EvalPlan::default()));
    }

    #[test]
    fn the_published_best_is_the_one_that_the_position_knows() {
        let dir = tempfile::tempdir().unwrap();
        let folder = RunFolder::create(&dir.path().join("run"), &<Plan>::default()).unwrap();
        let at = |step: u64| folder.checkpoints().join(candidate(step));
        let write = |step: u64| fs::write(at(step), step.to_string()).unwrap();
        let published = || fs::read_to_string(folder.best_model()).unwrap();
        let mut position = Position::default();
        publish_best(&folder, &position).unwrap();
        assert!(!folder.best_model().exists());
        write(20);
        position.best = Some((20, 0));
        publish_best(&folder, &position).unwrap();
        assert_eq!(published(), "20");
        // A better one is saved and the process is killed: a checkpoint that records only 20 continues with 20.
        write(30);
        assert_eq!(check_best(&folder, &mut position).unwrap(), None);
        publish_best(&folder, &position).unwrap();
        assert_eq!(published(), "20");
        assert!(!at(30).exists());
        write(30);
        position.best = Some((30, 0));
        publish_best(&folder, &position).unwrap();
        assert_eq!(published(), "30");
        // An older checkpoint whose best model was replaced has none.
        position.best = Some((20, 0));
        assert!(
            check_best(&folder, &mut position)
                .unwrap()
                .unwrap()
                .contains("step 20")
        );
        assert_eq!(position.best, None);
    }

    #[test]
    fn a_kill_before_the_rename_is_repaired_and_a_damaged_record_stops_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let folder = RunFolder::create(&dir.path().join("run"), &<Plan>::default()).unwrap();
        let parent = folder.checkpoints();
        let mut position = Position::default();
        for step in [7, 9] {
            let path = parent.join(candidate(step));
            fs::write(&path, step.to_string()).unwrap();
            let mut sums = Checksums::default();
            sums.add(&candidate(step), &sha256_file(&path).unwrap());
            sums.write(&parent).unwrap();
            position.best = Some((step, 0));
            if step == 7 {
                publish_best(&folder, &position).unwrap();
            }
        }
        // The new hash is recorded, but the older file is still in place.
        let mut sums = Checksums::read(folder.root()).unwrap().unwrap();
        let best = sha256_file(&parent.join(candidate(9))).unwrap();
        sums.add("best.safetensors", &best);
        sums.write(folder.root()).unwrap();
        assert_eq!(fs::read(folder.best_model()).unwrap(), b"7");
        publish_best(&folder, &position).unwrap();
        assert_eq!(fs::read(folder.best_model()).unwrap(), b"9");
        for at in [folder.root(), &parent] {
            fs::write(at.join("SHA256SUMS"), b"\xff").unwrap();
        }
        let note = check_best(&folder, &mut position).unwrap().unwrap();
        assert!(note.contains("SHA256SUMS is damaged"), "{note}");
        assert_eq!(position.best, Some((9, 0)));
        publish_best(&folder, &position).unwrap();
        let sums = Checksums::read(folder.root()).unwrap().unwrap();
        assert!(sums.verify(folder.root(), "best.safetensors").unwrap());
        let sums = Checksums::read(&parent).unwrap().unwrap();
        assert!(sums.verify(&parent, &candidate(9)).unwrap());
    }

    #[test]
    fn a_damaged_best_model_is_not_published_again() {
        let dir = tempfile::tempdir().unwrap();
        let folder = RunFolder::create(&dir.path().join("run"), &<Plan>::default()).unwrap();
        let parent = folder.checkpoints();
        let path = parent.join(candidate(7));
        fs::write(&path, b"model").unwrap();
        let mut sums = Checksums::default();
        sums.add(&candidate(7), &sha256_file(&path).unwrap());
        sums.write(&parent).unwrap();
        let mut position = Position {
            best: Some((7, 0)),
            ..Position::default()
        };
        publish_best(&folder, &position).unwrap();
        let recorded = Checksums::read(folder.root()).unwrap().unwrap();
        assert!(recorded.verify(folder.root(), "best.safetensors").unwrap());
        // The second call changes nothing.
        fs::remove_file(folder.root().join("SHA256SUMS")).unwrap();
        recorded.write(folder.root()).unwrap();
        publish_best(&folder, &position).unwrap();
        assert_eq!(Checksums::read(folder.root()).unwrap(), Some(recorded));
        fs::remove_file(&path).unwrap();
        fs::write(&path, b"modem").unwrap();
        let note = check_best(&folder, &mut position).unwrap().unwrap();
        assert!(
            note.contains("best-000007.safetensors is damaged"),
            "{note}"
        );
        assert_eq!(position.best, None);
    }
}
