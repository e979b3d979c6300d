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

/// The name of the embedded autoencoder of the digits.
pub const DIGITS_AUTOENCODER: &str = "digits-autoencoder";

/// The name of the embedded source model that draws digits as a transformer, in the latents of that autoencoder.
pub const DIGITS_DIT_SOURCE: &str = "digits-dit-source";

/// The names of embedded images.
pub const EMBEDDED_IMAGES: [&str; 2] = [EMOJI, DIGITS];

/// The names of embedded models.
pub const EMBEDDED_MODELS: [&str; 3] = [EMOJI_SOURCE, DIGITS_SOURCE, DIGITS_DIT_SOURCE];

/// The width and height of the images of an embedded model; `None` for other names.
pub fn embedded_size(model: &str) -> Option<usize> {
    match model {
        DIGITS_SOURCE | DIGITS_DIT_SOURCE => Some(Digits::SIZE),
        EMOJI_SOURCE => Some(Emoji::SIZE),
        _ => None,
    }
}

/// The file of an embedded model; `None` for other names.
pub fn embedded_model(name: &str) -> Option<&'static [u8]> {
    match name {
        DIGITS_SOURCE => Some(sdft_assets::DIGITS_SOURCE_WEIGHTS),
        DIGITS_DIT_SOURCE => Some(sdft_assets::DIGITS_DIT_SOURCE_WEIGHTS),
        EMOJI_SOURCE => Some(sdft_assets::EMOJI_SOURCE_WEIGHTS),
        _ => None,
    }
}

/// The file of an embedded autoencoder; `None` for other names.
pub fn embedded_autoencoder(name: &str) -> Option<&'static [u8]> {
    (name == DIGITS_AUTOENCODER).then_some(sdft_assets::DIGITS_AUTOENCODER_WEIGHTS)
}

/// Whether a name is that of embedded images or an embedded model or autoencoder.
pub fn is_embedded(name: &str) -> bool {
    EMBEDDED_IMAGES.contains(&name) || EMBEDDED_MODELS.contains(&name) || name == DIGITS_AUTOENCODER
}

#[cfg(test)]
mod tests {
    use super::*;
    use sdft_assets::{HubCache, listing};
    use std::path::Path;

    #[test]
    fn the_list_of_names_has_the_embedded_ones() {
        let cache = HubCache::from_environment().unwrap();
        let list = listing(&[], &cache, Path::new("nowhere")).unwrap();
        let (embedded, _) = list.split_once("\n\n").unwrap();
        let all = EMBEDDED_IMAGES.iter().chain(&EMBEDDED_MODELS);
        for name in all.chain([&DIGITS_AUTOENCODER]) {
            let mut words = embedded.split([' ', ',', ':', ';', '\n']);
            assert!(words.any(|word| word == *name), "{name}: {embedded}");
        }
    }
}
