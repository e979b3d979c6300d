//! What a misspelt word was meant to be.

use crate::manifest::{assets, elsewhere};

/// How many suggestions a message has room for.
const MOST: usize = 4;

/// The candidates that a misspelt `word` may stand for, best first: those it begins, else those that take the fewest changes, as long as
/// half of the word stays. Case does not count, nor whether words are joined by `-` or `_`.
pub fn similar<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let plain = |text: &str| text.to_lowercase().replace('_', "-");
    let word = plain(word);
    let n = word.chars().count();
    let mut near: Vec<(usize, &str)> = candidates
        .into_iter()
        .filter_map(|candidate| {
            let other = plain(candidate);
            let distance = strsim::osa_distance(&word, &other);
            let is_beginning = n >= 3 && other.starts_with(&word);
            let is_near = distance <= (n / 2).max(1) && distance < other.chars().count();
            match (distance, is_beginning) {
                (0, _) => Some((0, candidate)),
                (_, true) => Some((1, candidate)),
                (distance, _) => is_near.then_some((distance + 1, candidate)),
            }
        })
        .collect();
    near.sort_unstable();
    near.dedup();
    let best = near.first().map_or(0, |(rank, _)| *rank);
    let as_near = near.into_iter().filter(|(rank, _)| *rank == best);
    as_near.map(|(_, word)| word).take(MOST).collect()
}

/// `"; did you mean a, b or c?"` for a misspelt word; nothing where no candidate is similar.
pub fn did_you_mean<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    ask(&similar(word, candidates))
}

/// `"; did you mean a, b or c?"` for these suggestions; nothing where there are none.
pub fn ask(suggestions: &[&str]) -> String {
    match suggestions {
        [] => String::new(),
        [one] => format!("; did you mean {one}?"),
        [rest @ .., last] => format!("; did you mean {} or {last}?", rest.join(", ")),
    }
}

/// The name of the list that takes the fewest changes; the first of several.
pub fn nearest_name(name: &str) -> &'static str {
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
            assert_eq!(nearest_name(slip), meant);
        }
    }

    #[test]
    fn a_misspelt_word_finds_its_word_and_nonsense_finds_none() {
        let verbs = [
            "train",
            "train-classifier",
            "sample",
            "ci",
            "test",
            "inspect",
        ];
        for (slip, meant) in [
            ("trian", "train"),
            ("TRAIN", "train"),
            ("smaple", "sample"),
            ("inspct", "inspect"),
            ("ic", "ci"),
        ] {
            assert_eq!(similar(slip, verbs), [meant], "{slip}");
        }
        for nonsense in ["xyzzy", "zzz", "x", ""] {
            assert!(similar(nonsense, verbs).is_empty(), "{nonsense}");
        }
    }

    #[test]
    fn a_beginning_finds_all_that_go_on_from_it() {
        let presets = ["digits-sdft", "metfaces-naive", "metfaces-sdft"];
        assert_eq!(
            similar("metfaces", presets),
            ["metfaces-naive", "metfaces-sdft"]
        );
        assert_eq!(
            did_you_mean("metfaces", presets),
            "; did you mean metfaces-naive or metfaces-sdft?"
        );
        assert_eq!(
            did_you_mean("digit_sdft", presets),
            "; did you mean digits-sdft?"
        );
        assert_eq!(did_you_mean("photos", presets), "");
    }
}
