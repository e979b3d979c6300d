//! What a misspelt name was meant to be.

use crate::manifest::{assets, elsewhere};

/// The known name that takes the fewest changes; the first of several.
pub(crate) fn nearest(name: &str) -> &'static str {
    let name = name.to_lowercase();
    let assets = assets().iter().map(|asset| asset.name.as_str());
    let others = elsewhere().iter().map(|known| known.name.as_str());
    assets
        .chain(others)
        .min_by_key(|known| distance(&name, known))
        .unwrap_or_default()
}

/// How many letters must be put in, taken out or replaced to turn one word into the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    // Distances of the part of `a` so far to every beginning of `b`.
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut next = Vec::with_capacity(row.len());
        let mut left = i + 1;
        next.push(left);
        for (pair, to) in row.windows(2).zip(&b) {
            let &[diagonal, above] = pair else { continue };
            let replaced = diagonal + usize::from(from != *to);
            left = replaced.min(above + 1).min(left + 1);
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_counted() {
        for (a, b, n) in [
            ("", "", 0),
            ("abc", "", 3),
            ("", "abc", 3),
            ("abc", "abc", 0),
            ("abc", "abd", 1),
            ("abc", "bc", 1),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(distance(a, b), n, "{a} {b}");
        }
    }

    #[test]
    fn slips_find_what_was_meant() {
        for (slip, meant) in [
            ("lpips-alx", "lpips-alex"),
            ("LPIPS-VGG", "lpips-vgg"),
            ("clip_b16", "clip-b16"),
            ("metface", "metfaces"),
            ("ffhq_p2", "ffhq-p2"),
            ("ahq", "aahq"),
        ] {
            assert_eq!(nearest(slip), meant);
        }
    }
}
