//! What the program carries with it, so that it works from any folder.

use sdft_train::{ClassifierPlan, DirectionPlan, Plan};

const PRESETS: [(&str, &str); 10] = [
    (
        "own-32",
        include_str!("../../../assets/configs/own-32.toml"),
    ),
    (
        "own-64",
        include_str!("../../../assets/configs/own-64.toml"),
    ),
    (
        "own-128",
        include_str!("../../../assets/configs/own-128.toml"),
    ),
    (
        "own-256",
        include_str!("../../../assets/configs/own-256.toml"),
    ),
    (
        "digits-sdft",
        include_str!("../../../assets/configs/digits-sdft.toml"),
    ),
    (
        "digits-naive",
        include_str!("../../../assets/configs/digits-naive.toml"),
    ),
    (
        "digits-scratch",
        include_str!("../../../assets/configs/digits-scratch.toml"),
    ),
    (
        "digits-source",
        include_str!("../../../assets/configs/digits-source.toml"),
    ),
    (
        "metfaces-sdft",
        include_str!("../../../assets/configs/metfaces-sdft.toml"),
    ),
    (
        "aahq-sdft",
        include_str!("../../../assets/configs/aahq-sdft.toml"),
    ),
];

/// Presets of classifiers.
const CLASSIFIERS: [(&str, &str); 1] = [(
    "digits-classifier",
    include_str!("../../../assets/configs/digits-classifier.toml"),
)];

/// Presets of directions.
const DIRECTIONS: [(&str, &str); 8] = [
    (
        "smiling",
        include_str!("../../../assets/configs/edit/smiling.toml"),
    ),
    ("sad", include_str!("../../../assets/configs/edit/sad.toml")),
    (
        "angry",
        include_str!("../../../assets/configs/edit/angry.toml"),
    ),
    (
        "young",
        include_str!("../../../assets/configs/edit/young.toml"),
    ),
    ("old", include_str!("../../../assets/configs/edit/old.toml")),
    ("man", include_str!("../../../assets/configs/edit/man.toml")),
    (
        "woman",
        include_str!("../../../assets/configs/edit/woman.toml"),
    ),
    (
        "digits-3-to-2",
        include_str!("../../../assets/configs/edit/digits-3-to-2.toml"),
    ),
];

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
    const PRESETS: &'static [(&'static str, &'static str)] = &PRESETS;
}

impl Presets for ClassifierPlan {
    const PRESETS: &'static [(&'static str, &'static str)] = &CLASSIFIERS;
}

impl Presets for DirectionPlan {
    const PRESETS: &'static [(&'static str, &'static str)] = &DIRECTIONS;
}

/// The name under which the embedded digits go.
pub(crate) const DIGITS: &str = "digits";

/// The name under which the embedded source model goes.
pub(crate) const DIGITS_SOURCE: &str = "digits-source";

/// The source model of the embedded example.
pub(crate) const DIGITS_SOURCE_WEIGHTS: &[u8] =
    include_bytes!("../../../assets/weights/digits-source.safetensors");
