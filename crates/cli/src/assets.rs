//! The data and weights that the program carries with it.

/// The name of the embedded digits.
pub(crate) const DIGITS: &str = "digits";

/// The name of the embedded source model.
pub(crate) const DIGITS_SOURCE: &str = "digits-source";

/// The source model of the embedded example.
pub(crate) const DIGITS_SOURCE_WEIGHTS: &[u8] =
    include_bytes!("../../../assets/weights/digits-source.safetensors");

/// The classifier that judges samples of digits.
pub(crate) const DIGITS_JUDGE_WEIGHTS: &[u8] =
    include_bytes!("../../../assets/weights/digits-judge.safetensors");
