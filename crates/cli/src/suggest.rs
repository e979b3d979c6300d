/// The candidate nearest to `word`, if it is near enough to be what was meant.
pub(crate) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let limit = (word.chars().count() / 2).max(2);
    candidates
        .into_iter()
        .map(|c| (strsim::levenshtein(word, c), c))
        .min()
        .filter(|(d, _)| *d <= limit)
        .map(|(_, c)| c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_errors_find_their_word_and_nonsense_finds_none() {
        let keys = ["optim.lr", "optim.ema", "loop.steps"];
        assert_eq!(nearest("optim.lrr", keys), Some("optim.lr"));
        assert_eq!(nearest("lop.step", keys), Some("loop.steps"));
        assert_eq!(nearest("zzz", keys), None);
    }
}
