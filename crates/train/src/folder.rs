use crate::error::{Context, Result, TrainError};
use crate::plan::{Plan, PlanError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

/// What stands in a run folder's `plan.toml`.
pub trait RunPlan: Serialize + DeserializeOwned {
    /// The command that makes such runs.
    const VERB: &'static str;

    /// Fails, naming the key, unless the plan makes sense.
    ///
    /// # Errors
    /// The first [`PlanError`].
    fn validate(&self) -> std::result::Result<(), PlanError>;
}

impl RunPlan for Plan {
    const VERB: &'static str = "train";

    fn validate(&self) -> std::result::Result<(), PlanError> {
        Self::validate(self)
    }
}

/// The folder of one run, held by one process at a time.
#[derive(Debug)]
pub struct RunFolder {
    root: PathBuf,
    /// Held for as long as the folder is in use; the system lets go of it when the process ends in any way.
    _lock: File,
}

impl RunFolder {
    /// Makes the folder and writes the plan into it.
    ///
    /// # Errors
    /// A folder that is there already; whatever the file system refuses.
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
        // A run that was stopped before it had a plan leaves only these.
        let ours = |name: &str| {
            ["run.lock", "samples", "checkpoints"].contains(&name)
                || name.starts_with(".plan.toml.")
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

    /// Writes the plan, which was changed by whoever goes on with the run.
    ///
    /// # Errors
    /// Whatever the file system refuses.
    pub fn write_plan<P: RunPlan>(&self, plan: &P) -> Result<()> {
        let text = toml::to_string(plan).map_err(|error| TrainError::Folder {
            path: self.root.clone(),
            problem: format!("the plan cannot be written: {error}"),
        })?;
        sdft_checkpoint::write_bytes_atomic(&self.root.join("plan.toml"), text.as_bytes())?;
        Ok(())
    }

    /// Opens the folder of an earlier run and reads its plan.
    ///
    /// # Errors
    /// No run there, a plan that cannot be read, a run that another process is at.
    pub fn open<P: RunPlan>(root: &Path) -> Result<(Self, P)> {
        let path = root.join("plan.toml");
        if !path.is_file() {
            return Err(TrainError::Folder {
                path: root.to_owned(),
                problem: "no run here: plan.toml is missing".into(),
            });
        }
        let text = fs::read_to_string(&path).at("cannot read", &path)?;
        let plan: P = toml::from_str(&text).map_err(|error| TrainError::Folder {
            path: path.clone(),
            problem: format!("expected the plan of a run of `sdft {}`: {error}", P::VERB),
        })?;
        plan.validate()?;
        Ok((Self::lock(root)?, plan))
    }

    fn lock(root: &Path) -> Result<Self> {
        let path = root.join("run.lock");
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .at("cannot open", &path)?;
        match file.try_lock() {
            Ok(()) => {
                let folder = Self {
                    root: root.to_owned(),
                    _lock: file,
                };
                // A run may have been stopped before it had them.
                for part in [folder.checkpoints(), folder.samples()] {
                    fs::create_dir_all(&part).at("cannot create the folder", &part)?;
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

    /// Where everything is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where checkpoints are.
    pub fn checkpoints(&self) -> PathBuf {
        self.root.join("checkpoints")
    }

    /// Where sample grids are.
    pub fn samples(&self) -> PathBuf {
        self.root.join("samples")
    }

    /// The log, one JSON object a line.
    pub fn log(&self) -> PathBuf {
        self.root.join("log.jsonl")
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
}

/// A folder under `parent` for a run of this name that is not taken yet: `name`, `name-2`, `name-3`, ..
pub fn free_run_folder(parent: &Path, name: &str) -> PathBuf {
    let numbered = (2..).map(|n| parent.join(format!("{name}-{n}")));
    let mut candidates = std::iter::once(parent.join(name)).chain(numbered);
    // The iterator does not end; the first path is a fallback that the compiler asks for.
    candidates
        .find(|path| !path.exists())
        .unwrap_or_else(|| parent.join(name))
}
