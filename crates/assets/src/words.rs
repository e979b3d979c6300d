//! What a misspelt name was meant to be.

use crate::manifest::{assets, elsewhere};

/// The known name that takes the fewest changes; the first of several.
pub fn nearest(name: &str) -> &'static str {
    let name = name.to_lowercase();
    let assets = assets().iter().map(|asset| asset.name.as_str());
    let others = elsewhere().iter().map(|known| known.name.as_str());
    assets
        .chain(others)
        .min_by_key(|known| strsim::levenshtein(&name, known))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_find_what_was_meant() {
        for (slip, meant) in [
            ("lpips-alx", "lpips-alex"),
            ("LPIPS-VGG", "lpips-vgg"),
            ("clip_b16", "clip-b16"),
            ("metfacs", "metfaces"),
            ("ffhq_p2", "ffhq-p2"),
            ("ahq", "aahq"),
        ] {
            assert_eq!(nearest(slip), meant);
        }
    }
}
