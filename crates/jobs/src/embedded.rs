//! Images and models that are part of the library, and their names.

use sdft_data::{Digits, Emoji};

/// The name of the embedded digits.
pub const DIGITS: &str = "digits";

/// The name of the embedded source model, which draws digits.
pub const DIGITS_SOURCE: &str = "digits-source";

/// The name of the embedded emoji.
pub const EMOJI: &str = "emoji";

/// The name of the embedded source model that draws emoji.
pub const EMOJI_SOURCE: &str = "emoji-source";

/// The names of embedded images.
pub const EMBEDDED_IMAGES: [&str; 2] = [EMOJI, DIGITS];

/// The names of embedded models.
pub const EMBEDDED_MODELS: [&str; 2] = [EMOJI_SOURCE, DIGITS_SOURCE];

/// The width and height of the images of an embedded model; `None` for other names.
pub fn embedded_size(model: &str) -> Option<usize> {
    match model {
        DIGITS_SOURCE => Some(Digits::SIZE),
        EMOJI_SOURCE => Some(Emoji::SIZE),
        _ => None,
    }
}

/// The file of an embedded model; `None` for other names.
pub(crate) fn embedded_model(name: &str) -> Option<&'static [u8]> {
    match name {
        DIGITS_SOURCE => Some(sdft_assets::DIGITS_SOURCE_WEIGHTS),
        EMOJI_SOURCE => Some(sdft_assets::EMOJI_SOURCE_WEIGHTS),
        _ => None,
    }
}

/// Whether a name is that of embedded images or an embedded model.
pub fn is_embedded(name: &str) -> bool {
    EMBEDDED_IMAGES.contains(&name) || EMBEDDED_MODELS.contains(&name)
}
