//! What the file of a tuned model states about the edit.

use candle_core::{Result, bail};
use sdft_schedule::MAX_STEPS;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The key of [`TuningInfo`] in the metadata of a model's file.
const KEY: &str = "sdft.diffusionclip";

/// The edit that a model was tuned for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TuningInfo {
    /// What the images showed, as a text or a class.
    pub from: String,
    /// What the edited images show.
    pub to: String,
    /// The original model: SHA-256 of its architecture and weights.
    pub network_sha256: String,
    /// The step at which inversions end and generations start.
    pub t_0: usize,
    /// Steps of the inversions that it was tuned from.
    pub inversion: usize,
    /// Steps of the generations that it was tuned with.
    pub steps: usize,
}

impl TuningInfo {
    /// The entry of the metadata.
    ///
    /// # Errors
    /// Never in practice.
    pub fn metadata(&self) -> Result<BTreeMap<String, String>> {
        let text = serde_json::to_string(self).map_err(candle_core::Error::wrap)?;
        Ok(BTreeMap::from([(KEY.to_owned(), text)]))
    }
}

/// The edit that the metadata of a model's file state; `None` if the model was not tuned for one.
///
/// # Errors
/// An entry that cannot be read, or a number outside its range.
pub fn read_tuning_info(metadata: &BTreeMap<String, String>) -> Result<Option<TuningInfo>> {
    let Some(text) = metadata.get(KEY) else {
        return Ok(None);
    };
    let info: TuningInfo = match serde_json::from_str(text) {
        Ok(info) => info,
        Err(error) => bail!("{KEY} in its metadata cannot be read: {error}"),
    };
    for (field, found, least) in [
        ("t_0", info.t_0, 1),
        ("inversion", info.inversion, 1),
        ("steps", info.steps, 1),
    ] {
        if !(least..=MAX_STEPS).contains(&found) {
            bail!("{KEY} in its metadata: {field}: expected {least} to {MAX_STEPS}, found {found}");
        }
    }
    Ok(Some(info))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_edit_comes_back_from_the_metadata_and_impossible_numbers_are_named() {
        let info = TuningInfo {
            from: "face".into(),
            to: "smiling face".into(),
            network_sha256: "ab".into(),
            t_0: 500,
            inversion: 40,
            steps: 6,
        };
        assert_eq!(
            read_tuning_info(&info.metadata().unwrap()).unwrap(),
            Some(info.clone())
        );
        assert_eq!(read_tuning_info(&BTreeMap::new()).unwrap(), None);
        for (odd, words) in [
            (
                TuningInfo {
                    t_0: 0,
                    ..info.clone()
                },
                "t_0: expected 1",
            ),
            (
                TuningInfo {
                    steps: usize::MAX,
                    ..info
                },
                "steps: expected 1",
            ),
        ] {
            let error = read_tuning_info(&odd.metadata().unwrap()).unwrap_err();
            assert!(error.to_string().contains(words), "{error}");
        }
        let broken = BTreeMap::from([(KEY.to_owned(), "{".to_owned())]);
        assert!(
            read_tuning_info(&broken)
                .unwrap_err()
                .to_string()
                .contains("cannot be read")
        );
    }
}
