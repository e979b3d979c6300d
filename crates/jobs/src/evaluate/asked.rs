//! Whether generated digits are of the classes that were asked for.

use super::judged::{BATCH, read_square};
use crate::error::{Result, ResultExt as _};
use crate::judge::load_judge;
use sdft_data::Digits;
use sdft_eval::{Extractor, Measure, score_kept};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// The keys of a sampled folder's `plan.toml` that say of which class an image is. There are others.
#[derive(Deserialize)]
struct Asked {
    /// The label of every image.
    class: Option<u32>,
    /// The names by label; without `class`, image `i` has label `i` mod their number.
    #[serde(default)]
    classes: Vec<String>,
}

impl Asked {
    /// The digit that an image was asked to be; `None` if its class is not a digit or there are no classes.
    fn digit(&self, id: &str) -> Option<u8> {
        let label = match self.class {
            Some(label) => label as usize,
            None => {
                let (number, _) = id.split_once('.')?;
                number
                    .parse::<usize>()
                    .ok()?
                    .checked_rem(self.classes.len())?
            }
        };
        let digit = match self.classes.get(label) {
            Some(name) => name.parse().ok()?,
            None if self.classes.is_empty() => u8::try_from(label).ok()?,
            None => return None,
        };
        (digit < 10).then_some(digit)
    }
}

/// The share of a sampled folder's images that the judge sees as the digit that was asked for; `None` if its `plan.toml` does not state it.
///
/// # Errors
/// An image or `plan.toml` cannot be read.
pub(super) fn asked(
    folder: &Path,
    files: &[(String, PathBuf)],
    extractor: &Extractor,
) -> Result<Option<Measure>> {
    let plan = folder.join("plan.toml");
    if !plan.is_file() {
        return Ok(None);
    }
    let text = std::fs::read_to_string(&plan)
        .with_context(|| format!("cannot read {}", plan.display()))?;
    // The plan of a folder that something else has made says nothing about classes.
    let Ok(asked) = toml::from_str::<Asked>(&text) else {
        return Ok(None);
    };
    let digits = files.iter().map(|(id, _)| asked.digit(id));
    let Some(digits) = digits.collect::<Option<Vec<u8>>>() else {
        return Ok(None);
    };
    let (judge, mut kept) = (load_judge()?, 0.0);
    for (files, digits) in files.chunks(BATCH).zip(digits.chunks(BATCH)) {
        let x = read_square(files, extractor, Digits::SIZE)?;
        kept += score_kept(&judge, &x, digits)?.class * digits.len() as f64;
    }
    if digits.is_empty() {
        return Ok(None);
    }
    Ok(Some(Measure {
        name: "asked".to_owned(),
        value: kept / digits.len() as f64,
        spread: None,
        n: digits.len().to_string(),
        note: "higher is better; share that the judge sees as the class asked for".to_owned(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::judge_features;
    use sdft_data::{DigitsSource, ImageSource as _, Style};

    #[test]
    fn images_are_counted_if_they_are_of_the_class_of_their_number() {
        let dir = tempfile::tempdir().unwrap();
        let digits = Digits::embedded().unwrap();
        let source = DigitsSource::new(digits, Style::Ember, &[1, 4, 7], 8).unwrap();
        let mut files = Vec::new();
        for (label, class) in [1, 4, 7].into_iter().enumerate() {
            let these = (0..source.len()).filter(|&i| source.labels()[i] == class);
            for (k, i) in these.enumerate() {
                let name = format!("{:05}.png", 3 * k + label);
                let path = dir.path().join(&name);
                sdft_imaging::write_png(&path, &source.screen(i).unwrap()).unwrap();
                files.push((name, path));
            }
        }
        let features = judge_features().unwrap();
        let measure = |plan: &str| {
            std::fs::write(dir.path().join("plan.toml"), plan).unwrap();
            asked(dir.path(), &files, &features).unwrap()
        };
        let names = "seed = 1\nclasses = [\"1\", \"4\", \"7\"]\n";
        let found = measure(names).unwrap();
        assert_eq!((found.n.as_str(), found.value), ("24", 1.0));
        let one = measure(&format!("class = 1\n{names}")).unwrap();
        assert!((one.value - 1.0 / 3.0).abs() < 1e-9);
        assert!((measure("class = 7").unwrap().value - 1.0 / 3.0).abs() < 1e-9);
        assert!(measure("seed = 1").is_none());
        assert!(measure("classes = [\"cat\", \"dog\"]").is_none());
        assert!(measure("class = \"odd\"").is_none());
        std::fs::remove_file(dir.path().join("plan.toml")).unwrap();
        assert!(asked(dir.path(), &files, &features).unwrap().is_none());
    }
}
