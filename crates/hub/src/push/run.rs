//! The folder that is published: a finished run of training, or a model.

use std::path::{Path, PathBuf};

use sdft_files::{read_text, sha256_file, similar_path};
use toml::{Table, Value};

use super::names::public;
use crate::{HubError, Result, error::io};

/// The finished model of a run.
pub(crate) const FINAL: &str = "final.safetensors";
/// The adapter of a finished run.
pub(crate) const ADAPTER: &str = "adapter.safetensors";
/// The folder of a run that diffusers loads.
pub(crate) const DIFFUSERS: &str = "diffusers";
/// The settings of a run.
pub(crate) const PLAN: &str = "plan.toml";
/// The model card.
pub(crate) const CARD: &str = "README.md";

/// The command that made a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Train,
    Classifier,
    Autoencoder,
    Edit,
}

impl Verb {
    /// The command of a plan. Only the plans of one command have its key.
    fn of(plan: &Table) -> Option<Self> {
        plan.get("loop")?;
        let has = |section: &str, key: &str| {
            plan.get(section)
                .is_some_and(|inner| inner.get(key).is_some())
        };
        if plan.contains_key("walk") {
            Some(Self::Edit)
        } else if plan.contains_key("init") {
            Some(Self::Classifier)
        } else if has("loss", "kl_weight") {
            Some(Self::Autoencoder)
        } else if plan.contains_key("method") {
            Some(Self::Train)
        } else {
            None
        }
    }
}

/// A run of training and its settings.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) verb: Verb,
    pub(crate) plan: Table,
}

/// A folder to publish.
#[derive(Clone, Debug)]
pub(crate) struct Folder {
    pub(crate) root: PathBuf,
    /// The run, if it is one.
    pub(crate) run: Option<Run>,
}

impl Folder {
    /// Reads a folder.
    ///
    /// # Errors
    /// It does not exist, or is the folder of a checkpoint, of outputs, or of a run that is not finished or damaged.
    pub(crate) fn open(root: &Path) -> Result<Self> {
        let wrong = |problem: String| {
            Err(HubError::Folder {
                path: root.to_owned(),
                problem,
            })
        };
        if !root.is_dir() {
            return wrong(match root.exists() {
                true => "expected the folder of a run or of a model, found a file; give the folder that holds it".to_owned(),
                false => format!("no such folder{}", similar_path(root)),
            });
        }
        if root.join("state.json").is_file() && root.join("ema.safetensors").is_file() {
            return wrong(
                "a checkpoint of a run that continues; expected the folder of a finished run"
                    .to_owned(),
            );
        }
        let path = root.join(PLAN);
        if !path.is_file() {
            return Ok(Self {
                root: root.to_owned(),
                run: None,
            });
        }
        let text = read_text(&path).map_err(io(&path))?;
        let plan: Table = match toml::from_str(&text) {
            Ok(plan) => plan,
            Err(error) => return wrong(format!("{PLAN} is not valid TOML: {}", error.message())),
        };
        let Some(verb) = Verb::of(&plan) else {
            return wrong("its plan.toml is not that of a run of training; expected a folder that train, train-classifier, train-autoencoder or edit train wrote".to_owned());
        };
        let folder = Self {
            root: root.to_owned(),
            run: Some(Run { verb, plan }),
        };
        folder.check_finished()?;
        Ok(folder)
    }

    /// A file of the folder that the run wrote.
    pub(crate) fn file(&self, name: &str) -> Option<PathBuf> {
        Some(self.root.join(name)).filter(|path| path.is_file())
    }

    /// Fails unless the model of the run is complete and has its recorded hash.
    fn check_finished(&self) -> Result<()> {
        let wrong = |problem: String| {
            Err(HubError::Folder {
                path: self.root.clone(),
                problem,
            })
        };
        let Some(run) = &self.run else { return Ok(()) };
        let Some(model) = self.file(FINAL) else {
            return wrong(format!(
                "the run is not finished: {FINAL} is missing; continue it with --resume {}",
                self.root.display()
            ));
        };
        if run.text("output.format") == Some("diffusers") && !self.root.join(DIFFUSERS).is_dir() {
            return wrong(format!(
                "the run is not finished: its folder {DIFFUSERS} is missing; make it with `cargo xtask convert {0} {0}/{DIFFUSERS} --to diffusers`",
                self.root.display()
            ));
        }
        if let Some(name) = run.autoencoder()
            && self.file(&name).is_none()
        {
            return wrong(format!(
                "{name} is missing, the autoencoder that the model needs"
            ));
        }
        for path in [Some(model), self.file(ADAPTER)].into_iter().flatten() {
            self.check_hash(&path)?;
        }
        Ok(())
    }

    /// Compares a file with the hash that was recorded when it was written, if there is one.
    fn check_hash(&self, path: &Path) -> Result<()> {
        let sums = self.root.join("SHA256SUMS");
        let Ok(sums) = read_text(&sums) else {
            return Ok(());
        };
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        // While a file is replaced, both its hashes are listed.
        let recorded: Vec<&str> = sums
            .lines()
            .filter_map(|line| line.split_once("  "))
            .filter(|(_, known)| *known == name)
            .map(|(hash, _)| hash)
            .collect();
        if recorded.is_empty() {
            return Ok(());
        }
        let found = sha256_file(path).map_err(io(path))?;
        match recorded.contains(&found.as_str()) {
            true => Ok(()),
            false => Err(HubError::Folder {
                path: path.to_owned(),
                problem: format!("damaged: expected SHA-256 {}, found {found}", recorded[0]),
            }),
        }
    }
}

impl Run {
    /// A value of the plan by its key with dots.
    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        let mut parts = key.split('.');
        let first = self.plan.get(parts.next()?)?;
        parts.try_fold(first, |value, part| value.get(part))
    }

    /// A text of the plan that is not empty.
    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        self.get(key)?.as_str().filter(|text| !text.is_empty())
    }

    /// The name of the run.
    pub(crate) fn name(&self) -> &str {
        self.text("name").unwrap_or("run")
    }

    /// The name of the autoencoder's file next to the model of a run on latents.
    pub(crate) fn autoencoder(&self) -> Option<String> {
        let hash = self
            .text("model.autoencoder.sha256")
            .or_else(|| self.text("autoencoder.sha256"))?;
        Some(format!(
            "autoencoder-{}.safetensors",
            hash.get(..12).unwrap_or(hash)
        ))
    }

    /// The plan without paths of this machine.
    pub(crate) fn public_plan(&self) -> String {
        let mut plan = Value::Table(self.plan.clone());
        hide_paths(&mut plan);
        // A value that was read from TOML can be written.
        toml::to_string(&plan).unwrap_or_default()
    }
}

/// Replaces every path of this machine by a name.
fn hide_paths(value: &mut Value) {
    match value {
        Value::String(text) => *text = public(text),
        Value::Array(all) => all.iter_mut().for_each(hide_paths),
        Value::Table(all) => all.iter_mut().for_each(|(_, value)| hide_paths(value)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn error_of(root: &Path) -> String {
        Folder::open(root).unwrap_err().to_string()
    }

    #[test]
    fn folders_without_a_finished_model_are_refused_with_a_way_out() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("cats");
        assert!(error_of(&root).contains("no such folder"));
        fs::create_dir(&root).unwrap();
        assert!(error_of(&dir.path().join("cat")).contains("did you mean cats?"));
        assert!(Folder::open(&root).unwrap().run.is_none());

        let plan = root.join(PLAN);
        fs::write(&plan, "name = ").unwrap();
        assert!(error_of(&root).contains("not valid TOML"));
        fs::write(&plan, "model = \"x\"\n").unwrap();
        assert!(error_of(&root).contains("not that of a run of training"));
        fs::write(&plan, "method = \"sdft\"\n[loop]\nsteps = 1\n").unwrap();
        let error = error_of(&root);
        assert!(
            error.contains("not finished") && error.contains("--resume"),
            "{error}"
        );

        let model = root.join(FINAL);
        fs::write(&model, "weights").unwrap();
        assert_eq!(Folder::open(&root).unwrap().run.unwrap().verb, Verb::Train);
        let hash = sha256_file(&model).unwrap();
        let sums = root.join("SHA256SUMS");
        fs::write(&sums, format!("{hash}  {FINAL}\n")).unwrap();
        Folder::open(&root).unwrap();
        fs::write(&model, "weighty").unwrap();
        assert!(error_of(&root).contains("damaged: expected SHA-256"));
        fs::remove_file(&sums).unwrap();

        fs::write(
            &plan,
            "method = \"sdft\"\n[loop]\n[output]\nformat = \"diffusers\"\n",
        )
        .unwrap();
        assert!(error_of(&root).contains("--to diffusers"));
        let text =
            "method = \"sdft\"\n[loop]\n[model.autoencoder]\nsha256 = \"0123456789abcdef\"\n";
        fs::write(&plan, text).unwrap();
        assert!(error_of(&root).contains("autoencoder-0123456789ab.safetensors is missing"));

        assert!(error_of(&model).contains("found a file"));
        for name in ["state.json", "ema.safetensors"] {
            fs::write(root.join(name), "").unwrap();
        }
        assert!(error_of(&root).contains("a checkpoint"));
    }

    #[test]
    fn runs_of_every_command_are_recognised() {
        for (text, verb) in [
            ("method = \"sdft\"\n[loop]\n", Some(Verb::Train)),
            ("method = \"asyrp\"\n[walk]\n[loop]\n", Some(Verb::Edit)),
            ("init = \"\"\n[loop]\n", Some(Verb::Classifier)),
            ("[loss]\nkl_weight = 1\n[loop]\n", Some(Verb::Autoencoder)),
            ("method = \"sdedit\"\n", None),
        ] {
            assert_eq!(Verb::of(&toml::from_str(text).unwrap()), verb, "{text}");
        }
    }

    #[test]
    fn a_published_plan_has_no_path_of_this_machine() {
        let plan = "source = \"/home/ann/a.pt\"\nclass = 3\n[data]\npath = \"/home/ann/cats\"\n[goal]\nweights = [\"/home/ann/w.pt\", \"x\"]\n";
        let run = Run {
            verb: Verb::Train,
            plan: toml::from_str(plan).unwrap(),
        };
        let text = run.public_plan();
        let expected = plan.replace("/home/ann/", "");
        assert_eq!(
            toml::from_str::<Table>(&text).unwrap(),
            toml::from_str::<Table>(&expected).unwrap()
        );
    }
}
