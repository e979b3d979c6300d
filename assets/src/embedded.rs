//! Files that are part of every program, so that it works from any folder.

/// Presets of runs: names and TOML texts. The first line of a text is a comment that describes it.
pub const PRESETS: &[(&str, &str)] = &[
    ("own-32", include_str!("../configs/own-32.toml")),
    ("own-64", include_str!("../configs/own-64.toml")),
    ("own-128", include_str!("../configs/own-128.toml")),
    ("own-256", include_str!("../configs/own-256.toml")),
    ("digits-sdft", include_str!("../configs/digits-sdft.toml")),
    ("digits-naive", include_str!("../configs/digits-naive.toml")),
    (
        "digits-scratch",
        include_str!("../configs/digits-scratch.toml"),
    ),
    (
        "digits-source",
        include_str!("../configs/digits-source.toml"),
    ),
    (
        "metfaces-sdft",
        include_str!("../configs/metfaces-sdft.toml"),
    ),
    ("aahq-sdft", include_str!("../configs/aahq-sdft.toml")),
];

/// Presets of classifiers for EGSDE: names and TOML texts.
pub const CLASSIFIER_PRESETS: &[(&str, &str)] = &[(
    "digits-classifier",
    include_str!("../configs/digits-classifier.toml"),
)];

/// Presets of editing directions: names and TOML texts.
pub const DIRECTION_PRESETS: &[(&str, &str)] = &[
    ("smiling", include_str!("../configs/edit/smiling.toml")),
    ("sad", include_str!("../configs/edit/sad.toml")),
    ("angry", include_str!("../configs/edit/angry.toml")),
    ("young", include_str!("../configs/edit/young.toml")),
    ("old", include_str!("../configs/edit/old.toml")),
    ("man", include_str!("../configs/edit/man.toml")),
    ("woman", include_str!("../configs/edit/woman.toml")),
    (
        "digits-3-to-2",
        include_str!("../configs/edit/digits-3-to-2.toml"),
    ),
];

/// A PNG picture of all handwritten digits, 8x8 pixels each.
pub const DIGITS_PNG: &[u8] = include_bytes!("../digits/digits-8x8.png");

/// The classes of the digits in [`DIGITS_PNG`], in its order.
pub const DIGITS_LABELS: &[u8] = include_bytes!("../digits/labels.txt");

/// A diffusion model trained on the digits, as `.safetensors`.
pub const DIGITS_SOURCE_WEIGHTS: &[u8] = include_bytes!("../weights/digits-source.safetensors");

/// A classifier of the digits that judges samples, as `.safetensors`.
pub const DIGITS_JUDGE_WEIGHTS: &[u8] = include_bytes!("../weights/digits-judge.safetensors");
