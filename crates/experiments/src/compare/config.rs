//! The description of a comparison: a TOML text of methods.

use sdft_assets::config;
use sdft_jobs::{Error, Result, ResultExt, TRAINING, TrainPlan};
use sdft_settings::{Presets, layers, set_all};
use serde::Deserialize;
use std::collections::HashSet;
use std::path::Path;
use toml::Table;

/// Comparisons that the program carries.
pub const COMPARISONS: Presets = Presets(&[
    ("digits", config("compare/digits")),
    ("digits-dit", config("compare/digits-dit")),
    ("emoji", config("compare/emoji")),
    ("metfaces", config("compare/metfaces")),
    ("aahq", config("compare/aahq")),
]);

/// A comparison as it is in its TOML file.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Comparison {
    /// Its name.
    pub(crate) name: String,
    /// Presets and files of settings that methods start from unless they name others.
    #[serde(default)]
    pub(crate) config: Vec<String>,
    /// Settings of every method.
    #[serde(default)]
    pub(crate) set: Vec<String>,
    /// The number of runs of each method.
    #[serde(default = "three")]
    pub(crate) seeds: usize,
    /// The number of samples of each model.
    pub(crate) samples: usize,
    /// The steps of DDIM.
    #[serde(default = "forty")]
    pub(crate) steps: usize,
    /// The methods, in the order of the table.
    pub(crate) method: Vec<Entry>,
}

/// A method of a comparison.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entry {
    /// Its name in the table.
    pub(crate) label: String,
    /// Presets and files of settings instead of the comparison's.
    pub(crate) config: Option<Vec<String>>,
    /// Presets and files of settings on top.
    #[serde(default)]
    pub(crate) with: Vec<String>,
    /// Settings on top of everything else.
    #[serde(default)]
    pub(crate) set: Vec<String>,
    /// Domain Guidance: the weight of the guide, which is the source model.
    pub(crate) guide_weight: Option<f64>,
}

fn three() -> usize {
    3
}

fn forty() -> usize {
    40
}

impl Comparison {
    /// The comparison of this name, or in this file.
    ///
    /// # Errors
    /// No such file, an invalid comparison, or a method that is listed twice.
    pub(crate) fn read(name: &str) -> Result<Self> {
        let text = match COMPARISONS.get(name) {
            Some(text) => text.to_owned(),
            None if !Path::new(name).is_file() => {
                let known: Vec<&str> = COMPARISONS.names().collect();
                return Err(Error::Usage(format!(
                    "{name}: there is no such file; expected a TOML file or one of {}{}",
                    known.join(", "),
                    sdft_files::did_you_mean(name, known.iter().copied())
                )));
            }
            None => std::fs::read_to_string(name).with_context(|| format!("cannot read {name}"))?,
        };
        let all: Self = toml::from_str(&text).map_err(|e| Error::Usage(format!("{name}: {e}")))?;
        all.check(name)?;
        Ok(all)
    }

    fn check(&self, name: &str) -> Result<()> {
        let wrong = |problem: String| Err(Error::Usage(format!("{name}: {problem}")));
        if self.method.is_empty() {
            return wrong("expected at least one [[method]], found none".into());
        }
        if self.seeds == 0 || self.samples < 2 {
            return wrong(format!(
                "expected seeds from 1 and samples from 2, found {} and {}",
                self.seeds, self.samples
            ));
        }
        let mut labels = HashSet::new();
        for entry in &self.method {
            if !labels.insert(slug(&entry.label)) || slug(&entry.label).is_empty() {
                return wrong(format!(
                    "label: expected a name of letters or digits that no other method has, found {:?}",
                    entry.label
                ));
            }
            if let Some(weight) = entry.guide_weight.filter(|w| !(w.is_finite() && *w >= 0.0)) {
                return wrong(format!(
                    "guide_weight of {:?}: expected 0 or more, found {weight}",
                    entry.label
                ));
            }
        }
        Ok(())
    }

    /// The settings of a method, without name and seed. `more` are settings on top of the comparison's.
    ///
    /// # Errors
    /// An unknown preset or key.
    pub(crate) fn settings(&self, entry: &Entry, more: &[String]) -> Result<Table> {
        let base = entry.config.as_ref().unwrap_or(&self.config);
        let all: Vec<&String> = base.iter().chain(&entry.with).collect();
        let named = |error: sdft_settings::Error| {
            Error::Usage(format!("method {:?}: {error}", entry.label))
        };
        let mut table = layers::<TrainPlan>(&TRAINING, &all).map_err(named)?;
        let set: Vec<&String> = self.set.iter().chain(&entry.set).chain(more).collect();
        set_all::<TrainPlan>(&mut table, &set).map_err(named)?;
        Ok(table)
    }
}

/// A label as the name of a folder.
pub(crate) fn slug(label: &str) -> String {
    let words = label.split(|c: char| !c.is_ascii_alphanumeric() && c != '.');
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    words.join("-").to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_comparison_that_the_program_carries_can_be_read_and_resolved() {
        for name in COMPARISONS.names() {
            let comparison = Comparison::read(name).unwrap();
            assert_eq!(comparison.name, name);
            assert!(!COMPARISONS.about(name).is_empty());
            for entry in &comparison.method {
                comparison.settings(entry, &[]).unwrap();
            }
        }
    }

    #[test]
    fn an_invalid_comparison_is_an_error_with_a_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mine.toml");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            Comparison::read(path.to_str().unwrap())
                .unwrap_err()
                .to_string()
        };
        let head = "name = \"mine\"\nconfig = [\"digits-naive\"]\nsamples = 8\n";
        let error = Comparison::read("digit").unwrap_err().to_string();
        assert!(
            error.contains("did you mean") && error.contains("digits"),
            "{error}"
        );
        assert!(read("samples = 8").contains("missing field"));
        assert!(read(&format!("{head}method = []")).contains("at least one"));
        let twice = "[[method]]\nlabel = \"a b\"\n[[method]]\nlabel = \"A-b\"";
        assert!(read(&format!("{head}{twice}")).contains("A-b"));
        let slip = "[[method]]\nlabel = \"a\"\nwiht = []";
        assert!(read(&format!("{head}{slip}")).contains("wiht"));
        let comparison: Comparison = toml::from_str(&format!(
            "{head}[[method]]\nlabel = \"a\"\nwith = [\"dogfti\"]"
        ))
        .unwrap();
        let error = comparison.settings(&comparison.method[0], &[]).unwrap_err();
        assert!(error.to_string().contains("method \"a\""), "{error}");
        // Nothing but a name, samples and methods is needed.
        let least = "name = \"mine\"\nsamples = 8\n[[method]]\nlabel = \"a\"";
        let least: Comparison = toml::from_str(least).unwrap();
        let set = ["data.path=emoji".to_owned()];
        assert!(least.settings(&least.method[0], &set).is_ok());
        assert_eq!(slug("SDFT, lambda 0.3 + LoRA"), "sdft-lambda-0.3-lora");
    }
}
