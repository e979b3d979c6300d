//! Embedded presets, and the names of the embedded example.

use crate::adm::Plan;
pub(crate) use sdft_assets::{DIGITS_JUDGE_WEIGHTS, DIGITS_SOURCE_WEIGHTS};
use sdft_classifier::ClassifierPlan;
use sdft_directions::DirectionPlan;

/// What the settings of a command can start from.
pub(crate) trait Presets {
    /// Names and texts.
    const PRESETS: &'static [(&'static str, &'static str)];

    /// The text of a preset.
    fn preset(name: &str) -> Option<&'static str> {
        Self::PRESETS
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, text)| *text)
    }

    /// Names of all presets.
    fn preset_names() -> impl Iterator<Item = &'static str> {
        Self::PRESETS.iter().map(|(name, _)| *name)
    }
}

impl Presets for Plan {
    const PRESETS: &'static [(&'static str, &'static str)] = sdft_assets::PRESETS;
}

impl Presets for ClassifierPlan {
    const PRESETS: &'static [(&'static str, &'static str)] = sdft_assets::CLASSIFIER_PRESETS;
}

impl Presets for DirectionPlan {
    const PRESETS: &'static [(&'static str, &'static str)] = sdft_assets::DIRECTION_PRESETS;
}

/// The name of the embedded digits.
pub(crate) const DIGITS: &str = "digits";

/// The name of the embedded source model.
pub(crate) const DIGITS_SOURCE: &str = "digits-source";
