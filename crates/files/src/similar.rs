//! Suggestions for misspelled words and paths.

use std::path::Path;

/// The most suggestions in a message.
const MOST: usize = 4;

/// The candidates that a misspelled `word` may stand for, at most four: those that start with it, otherwise those that take the fewest
/// changes if half of the word stays. Case is ignored, and `_` equals `-`.
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

/// `"; did you mean a, b or c?"` for a misspelled word; empty where no candidate is similar.
pub fn did_you_mean<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    suggest(&similar(word, candidates))
}

/// `"; did you mean a, b or c?"` for these suggestions; empty where there are none.
pub fn suggest(suggestions: &[&str]) -> String {
    match suggestions {
        [] => String::new(),
        [one] => format!("; did you mean {one}?"),
        [rest @ .., last] => format!("; did you mean {} or {last}?", rest.join(", ")),
    }
}

/// What to add to an error about a path that does not exist: `"; did you mean NAME?"` of a similar name in its folder, or that the folder does
/// not exist; empty otherwise.
pub fn similar_path(path: &Path) -> String {
    let folder = crate::parent_of(path);
    if !folder.is_dir() {
        return format!("; the folder {} does not exist", folder.display());
    }
    let wanted = path.file_name().unwrap_or_default().to_string_lossy();
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let names: Vec<String> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    did_you_mean(&wanted, names.iter().map(String::as_str))
}

/// The candidate that takes the fewest changes; the first of several, none where there are no candidates.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    let mut candidates: Vec<&str> = candidates.into_iter().collect();
    // The sort is stable.
    candidates.sort_by_key(|candidate| strsim::osa_distance(&word, candidate));
    candidates.first().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelled_path_finds_its_neighbour_or_names_the_missing_folder() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("faces.pt"), "").unwrap();
        let near = |path: &str| similar_path(&dir.path().join(path));
        assert_eq!(near("faecs.pt"), "; did you mean faces.pt?");
        assert_eq!(near("x"), "");
        let folder = dir.path().join("runs");
        let expected = format!("; the folder {} does not exist", folder.display());
        assert_eq!(near("runs/faces.pt"), expected);
    }

    #[test]
    fn a_misspelled_word_finds_its_word_and_nonsense_finds_none() {
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
    fn a_prefix_finds_all_words_that_start_with_it() {
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
