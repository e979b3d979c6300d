//! The folder of a run: its lock, its plan and its files.

use crate::checkpoint::{Tensors, list};
use crate::checksums::Checksums;
use crate::error::{Context, Result, TrainError};
use crate::near::{runs_near, verb_of};
use crate::pick::verify_final;
use crate::plan::{Plan, PlanError};
use crate::sessions::SESSIONS;
use sdft_checkpoint::write_safetensors;
use sdft_files::{is_temporary, open_append, sha256_file, sync_dir, temporary_path, write_atomic};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

/// The plan in a run folder's `plan.toml`.
pub trait RunPlan: Serialize + DeserializeOwned {
    /// The command that makes such runs.
    const VERB: &'static str;

    /// Fails, naming the key, unless the plan makes sense.
    ///
    /// # Errors
    /// The first [`PlanError`].
    fn validate(&self) -> std::result::Result<(), PlanError>;
}

impl<M: Serialize + DeserializeOwned + Default> RunPlan for Plan<M> {
    const VERB: &'static str = "train";

    fn validate(&self) -> std::result::Result<(), PlanError> {
        Self::validate(self)
    }
}

/// The folder of one run, locked by one process at a time.
#[derive(Debug)]
pub struct RunFolder {
    root: PathBuf,
    /// Held while the folder is in use. The system releases it however the process ends.
    _lock: File,
}

impl RunFolder {
    /// Makes the folder and writes the plan into it.
    ///
    /// # Errors
    /// The folder has a run or other files in it, or the file system fails.
    pub fn create<P: RunPlan>(root: &Path, plan: &P) -> Result<Self> {
        if root.join("plan.toml").exists() {
            return Err(TrainError::Folder {
                path: root.to_owned(),
                problem: format!(
                    "there is a run already; continue it with --resume {}, or give the new one another --name",
                    root.display()
                ),
            });
        }
        fs::create_dir_all(root).at("cannot create the run folder", root)?;
        // A run that was stopped before it wrote a plan leaves only these.
        let ours = |name: &str| {
            ["run.lock", "samples", "checkpoints"].contains(&name) || is_temporary(name)
        };
        for entry in fs::read_dir(root).at("cannot read", root)? {
            let name = entry.at("cannot read", root)?.file_name();
            let name = name.to_string_lossy();
            if !ours(&name) {
                return Err(TrainError::Folder {
                    path: root.to_owned(),
                    problem: format!(
                        "expected a new or empty folder, found {name} in it; give the run another --name"
                    ),
                });
            }
        }
        let folder = Self::lock(root)?;
        folder.write_plan(plan)?;
        Ok(folder)
    }

    /// Writes the plan, which may have changed when a run is resumed.
    ///
    /// # Errors
    /// The file system fails.
    pub fn write_plan<P: RunPlan>(&self, plan: &P) -> Result<()> {
        let text = toml::to_string(plan).map_err(|error| TrainError::Folder {
            path: self.root.clone(),
            problem: format!("the plan cannot be written: {error}"),
        })?;
        let path = self.root.join("plan.toml");
        write_atomic(&path, text.as_bytes()).at("cannot write", &path)
    }

    /// Opens the folder of an earlier run and reads its plan.
    ///
    /// # Errors
    /// There is no run (the message names runs that may have been meant), the plan is of another command or cannot be read, or another
    /// process uses the folder.
    pub fn open<P: RunPlan>(root: &Path) -> Result<(Self, P)> {
        let path = root.join("plan.toml");
        if !path.is_file() {
            return Err(TrainError::Folder {
                path: root.to_owned(),
                problem: match runs_near(root) {
                    Some(runs) => format!("no run here: plan.toml is missing; {runs}"),
                    None => "no run here: plan.toml is missing".to_owned(),
                },
            });
        }
        let text = fs::read_to_string(&path).at("cannot read", &path)?;
        let plan: P = toml::from_str(&text).map_err(|error| TrainError::Folder {
            path: path.clone(),
            problem: match verb_of(&text).filter(|verb| *verb != P::VERB) {
                Some(verb) => format!(
                    "expected the plan of a run of `sdft {}`, found one of `sdft {verb}`; \
                     continue it with `cargo xtask {verb} --resume {}`",
                    P::VERB,
                    root.display()
                ),
                None => format!("expected the plan of a run of `sdft {}`: {error}", P::VERB),
            },
        })?;
        plan.validate()?;
        Ok((Self::lock(root)?, plan))
    }

    /// Opens the folder of an earlier run of the same plan to continue it, or makes a new folder.
    ///
    /// # Errors
    /// Fails as [`RunFolder::open`] and [`RunFolder::create`] do, and if the folder's plan differs, naming the first key.
    pub fn open_or_create<P: RunPlan>(root: &Path, plan: &P) -> Result<Self> {
        if !root.join("plan.toml").exists() {
            return Self::create(root, plan);
        }
        let (folder, there) = Self::open::<P>(root)?;
        let wrong = |problem: String| TrainError::Folder {
            path: root.to_owned(),
            problem,
        };
        let [there, now] = [&there, plan].map(toml::Value::try_from);
        let to_text = |error| wrong(format!("the plan cannot be written: {error}"));
        match difference(&there.map_err(to_text)?, &now.map_err(to_text)?) {
            None => Ok(folder),
            Some(difference) => Err(wrong(format!(
                "expected the run of the same plan, found another: {difference}; continue it with its own plan, or name a new folder"
            ))),
        }
    }

    fn lock(root: &Path) -> Result<Self> {
        let path = root.join("run.lock");
        let file = open_append(&path).at("cannot open", &path)?;
        match file.try_lock() {
            Ok(()) => {
                let folder = Self {
                    root: root.to_owned(),
                    _lock: file,
                };
                // A run may have been stopped before it had them.
                for part in [folder.checkpoints(), folder.samples()] {
                    match fs::symlink_metadata(&part) {
                        Ok(found) if found.is_dir() => {}
                        Ok(_) => {
                            return Err(TrainError::Folder {
                                path: part,
                                problem: "expected a folder, found a link or a file, which is not \
                                          written through; remove it, or put a folder in its place"
                                    .to_owned(),
                            });
                        }
                        Err(_) => fs::create_dir(&part).at("cannot create the folder", &part)?,
                    }
                }
                Ok(folder)
            }
            Err(TryLockError::WouldBlock) => Err(TrainError::Folder {
                path: root.to_owned(),
                problem: "another process is training in this folder".into(),
            }),
            Err(TryLockError::Error(source)) => Err(TrainError::Io {
                action: "cannot lock",
                path,
                source,
            }),
        }
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of the checkpoints.
    pub fn checkpoints(&self) -> PathBuf {
        self.root.join("checkpoints")
    }

    /// The folder of the sample grids.
    pub fn samples(&self) -> PathBuf {
        self.root.join("samples")
    }

    /// The log, one JSON object a line.
    pub fn log(&self) -> PathBuf {
        self.root.join("log.jsonl")
    }

    /// What each process recorded about itself ([`Recorder`](crate::Recorder)).
    pub fn sessions(&self) -> PathBuf {
        self.root.join(SESSIONS)
    }

    /// The TensorBoard event file.
    pub fn events(&self) -> PathBuf {
        self.root.join("events.out.tfevents.sdft")
    }

    /// The model of the best evaluation.
    pub fn best_model(&self) -> PathBuf {
        self.root.join("best.safetensors")
    }

    /// The finished model.
    pub fn final_model(&self) -> PathBuf {
        self.root.join("final.safetensors")
    }

    /// The adapter of the finished model.
    pub fn adapter(&self) -> PathBuf {
        self.root.join("adapter.safetensors")
    }

    /// Whether there is a checkpoint, damaged or not.
    pub fn has_checkpoint(&self) -> bool {
        list(&self.checkpoints()).is_ok_and(|all| !all.is_empty())
    }

    /// The finished model, if it exists and is not damaged.
    pub fn finished(&self) -> Option<PathBuf> {
        let path = self.final_model();
        (path.is_file() && verify_final(&self.root).is_ok()).then_some(path)
    }

    /// Has `write` make a file under a temporary name, renames it to `path` and records its hash in `SHA256SUMS`. At any moment the old
    /// or the new file is complete and recorded.
    ///
    /// # Errors
    /// Those of `write`; the file system fails.
    pub fn put(&self, path: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let temporary = temporary_path(path).at("cannot write", path)?;
        let placed = write(&temporary).and_then(|()| self.place(&temporary, path));
        if placed.is_err() {
            // The first error matters more.
            let _ = fs::remove_file(&temporary);
        }
        placed
    }

    /// Replaces a small file of the folder as a whole, without recording its hash.
    ///
    /// # Errors
    /// The file system fails; the old file stays.
    pub fn write(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        write_atomic(path, bytes).at("cannot write", path)
    }

    /// Puts a safetensors file of these tensors and this metadata in the folder, as [`Self::put`].
    ///
    /// # Errors
    /// As [`Self::put`].
    pub fn put_weights(
        &self,
        path: &Path,
        weights: &Tensors,
        metadata: &BTreeMap<String, String>,
    ) -> Result<()> {
        let entries = || weights.iter().map(|(name, tensor)| (name.as_str(), tensor));
        self.put(path, |temporary| {
            Ok(write_safetensors(temporary, entries(), metadata, None)?)
        })
    }

    /// Writes a result as JSON to the file `name`, and returns its path.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub fn write_json(&self, name: &str, result: &impl Serialize) -> Result<PathBuf> {
        let text = serde_json::to_string_pretty(result)
            .map_err(|e| TrainError::Evaluation(e.to_string()))?;
        let path = self.root.join(name);
        self.write(&path, (text + "\n").as_bytes())?;
        Ok(path)
    }

    fn place(&self, temporary: &Path, path: &Path) -> Result<()> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let hash = sha256_file(temporary).at("cannot read", temporary)?;
        let mut sums = Checksums::read_or_empty(&self.root);
        sums.add(&name, &hash);
        sums.write(&self.root)?;
        fs::rename(temporary, path).at("cannot put in place", path)?;
        sync_dir(&self.root).at("cannot flush", &self.root)?;
        sums.forget(|known| known == name);
        sums.add(&name, &hash);
        sums.write(&self.root)
    }
}

/// The first key in which two plans differ, with both values.
fn difference(there: &toml::Value, now: &toml::Value) -> Option<String> {
    fn leaves(key: &str, value: &toml::Value, all: &mut BTreeMap<String, String>) {
        match value {
            toml::Value::Table(table) => {
                for (part, value) in table {
                    let dot = if key.is_empty() { "" } else { "." };
                    leaves(&format!("{key}{dot}{part}"), value, all);
                }
            }
            value => drop(all.insert(key.to_owned(), value.to_string())),
        }
    }
    let [there, now] = [there, now].map(|plan| {
        let mut all = BTreeMap::new();
        leaves("", plan, &mut all);
        all
    });
    let key = there
        .keys()
        .chain(now.keys())
        .find(|key| there.get(*key) != now.get(*key))?;
    let value =
        |plan: &BTreeMap<String, String>| plan.get(key).map_or("missing".to_owned(), String::clone);
    Some(format!(
        "{key} is {} there and {} now",
        value(&there),
        value(&now)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder_at(root: &Path) -> RunFolder {
        RunFolder::create(root, &<Plan>::default()).unwrap()
    }

    #[test]
    fn a_finished_model_is_recorded_and_a_changed_one_is_not_finished() {
        let dir = tempfile::tempdir().unwrap();
        let folder = folder_at(&dir.path().join("run"));
        let path = folder.final_model();
        assert_eq!(folder.finished(), None);
        for bytes in [b"one", b"two"] {
            let write =
                |temporary: &Path| fs::write(temporary, bytes).at("cannot write", temporary);
            folder.put(&path, write).unwrap();
            assert_eq!(fs::read(&path).unwrap(), bytes);
            assert_eq!(folder.finished().as_ref(), Some(&path));
        }
        let sums = fs::read_to_string(folder.root().join("SHA256SUMS")).unwrap();
        assert_eq!(sums.lines().count(), 1, "{sums}");
        let names = fs::read_dir(folder.root()).unwrap();
        assert!(
            names
                .into_iter()
                .all(|e| !e.unwrap().file_name().to_string_lossy().starts_with('.'))
        );
        fs::write(&path, b"tow").unwrap();
        assert_eq!(folder.finished(), None);
    }

    #[test]
    fn a_folder_is_made_once_and_opened_again_with_the_same_plan_only() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("run");
        let mut plan = Plan::sdft("source.safetensors", "photos");
        drop(RunFolder::open_or_create(&root, &plan).unwrap());
        drop(RunFolder::open_or_create(&root, &plan).unwrap());
        plan.optim.lr = 0.5;
        let error = RunFolder::open_or_create(&root, &plan)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("optim.lr is 0.00002 there and 0.5 now"),
            "{error}"
        );
    }

    #[cfg(unix)]
    #[test]
    fn links_inside_a_run_are_not_written_through() {
        use std::os::unix::fs::symlink;
        let dir = tempfile::tempdir().unwrap();
        let elsewhere = dir.path().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        for part in ["samples", "checkpoints"] {
            let root = dir.path().join(part);
            drop(folder_at(&root));
            fs::remove_dir(root.join(part)).unwrap();
            symlink(&elsewhere, root.join(part)).unwrap();
            let error = RunFolder::lock(&root).unwrap_err().to_string();
            assert!(
                error.contains(part) && error.contains("found a link"),
                "{error}"
            );
        }
        let target = dir.path().join("target");
        fs::write(&target, b"precious").unwrap();
        let root = dir.path().join("run");
        let folder = folder_at(&root);
        symlink(&target, folder.log()).unwrap();
        let error = crate::log::Log::open(&folder, 0, 0)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("log.jsonl") && error.contains("link"),
            "{error}"
        );
        fs::remove_file(folder.log()).unwrap();
        symlink(&target, folder.events()).unwrap();
        let error = crate::log::Log::open(&folder, 0, 0)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("tfevents") && error.contains("link"),
            "{error}"
        );
        drop(folder);
        fs::remove_file(root.join("run.lock")).unwrap();
        symlink(&target, root.join("run.lock")).unwrap();
        let error = RunFolder::lock(&root).unwrap_err().to_string();
        assert!(
            error.contains("run.lock") && error.contains("link"),
            "{error}"
        );
        assert_eq!(fs::read(&target).unwrap(), b"precious");
        assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
    }

    #[test]
    fn a_run_of_another_command_and_a_folder_of_runs_are_called_what_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let runs = dir.path().join("runs");
        for (name, plan) in [
            ("cats", "init = \"\"\n[loop]"),
            ("turn", "[loop]\n[walk]\nt_0 = 999"),
            ("first", "[loop]\n[loss]\nkl_weight = 1e-6"),
        ] {
            let path = runs.join(name);
            fs::create_dir_all(path.join("checkpoints")).unwrap();
            fs::write(path.join("plan.toml"), plan).unwrap();
        }
        let error = |path: &Path| RunFolder::open::<Plan>(path).unwrap_err().to_string();
        for (name, verb) in [
            ("cats", "train-classifier"),
            ("turn", "edit train"),
            ("first", "train-autoencoder"),
        ] {
            let said = error(&runs.join(name));
            let hint = format!("cargo xtask {verb} --resume ");
            assert!(said.contains(&hint) && said.contains(name), "{said}");
        }
        for path in [runs.clone(), runs.join("nope")] {
            let said = error(&path);
            assert!(
                said.contains("plan.toml is missing")
                    && said.contains("cats")
                    && said.contains("turn"),
                "{said}"
            );
        }
        assert_eq!(runs_near(&dir.path().join("runs/cats/x")), None);
    }
}
