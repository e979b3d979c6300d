//! Weights and images that are part of the library, and their names.

/// The name of the embedded digits.
pub const DIGITS: &str = "digits";

/// The name of the embedded source model, which draws digits.
pub const DIGITS_SOURCE: &str = "digits-source";

/// The embedded source model.
pub(crate) const DIGITS_SOURCE_WEIGHTS: &[u8] =
    include_bytes!("../../../assets/weights/digits-source.safetensors");

/// The embedded classifier that judges digits.
pub(crate) const DIGITS_JUDGE_WEIGHTS: &[u8] =
    include_bytes!("../../../assets/weights/digits-judge.safetensors");

/// The embedded classifiers that judge emoji, from two seeds.
pub(crate) const EMOJI_JUDGE_WEIGHTS: &[u8] =
    include_bytes!("../../../assets/weights/emoji-judge.safetensors");
pub(crate) const SECOND_EMOJI_JUDGE_WEIGHTS: &[u8] =
    include_bytes!("../../../assets/weights/emoji-judge-2.safetensors");

/// Whether a name is that of embedded images or weights.
pub fn is_embedded(name: &str) -> bool {
    [DIGITS, DIGITS_SOURCE].contains(&name)
}
