//! Scores of generated, translated and edited emoji.

use super::attributes::{EMOJI_ATTRIBUTES, EMOJI_OTHER, EmojiValues};
use super::judged::EmojiJudged;
use crate::error::{EvalError, Result};
use sdft_data::{DIFFERS, EmojiEntry};

/// Scores of generated emoji. Shares are from 0 to 1.
#[derive(Clone, Debug, PartialEq)]
pub struct EmojiScore {
    /// Number of samples.
    pub n: usize,
    /// Share of samples in the target's style that have at least one of [`EMOJI_ATTRIBUTES`].
    pub coverage: f64,
    /// Share of samples in the target's style.
    pub style: f64,
    /// Share of samples in the target's style that have each of [`EMOJI_ATTRIBUTES`], in its order.
    pub attributes: [f64; EMOJI_ATTRIBUTES.len()],
    /// Share of samples in the target's style that are [`EMOJI_OTHER`].
    pub other: f64,
}

/// Scores generated emoji.
///
/// # Errors
/// Fails if there are none.
pub fn score_emoji(judged: &[EmojiJudged]) -> Result<EmojiScore> {
    check(judged, judged.len())?;
    Ok(EmojiScore {
        n: judged.len(),
        coverage: share(judged, |_, seen| seen.is_covered()),
        style: share(judged, |_, seen| seen.is_in_style()),
        attributes: EMOJI_ATTRIBUTES
            .map(|attribute| share(judged, |_, seen| attribute.is_covered_by(seen))),
        other: share(judged, |_, seen| EMOJI_OTHER.is_covered_by(seen)),
    })
}

/// What a fine-tuned model keeps of what its source model draws from the same noise: for each of the source's samples with some of
/// [`EMOJI_ATTRIBUTES`] whether its counterpart has one of these in the target's style, and `None` for the other samples.
///
/// # Errors
/// Fails if there are no samples, or their number differs.
pub fn retained_emoji(source: &[EmojiJudged], judged: &[EmojiJudged]) -> Result<Vec<Option<bool>>> {
    check(judged, source.len())?;
    let pairs = source.iter().zip(judged);
    let retained = pairs.map(|(before, after)| {
        let mut drawn = EMOJI_ATTRIBUTES
            .iter()
            .filter(|attribute| attribute.is_seen_in(before))
            .peekable();
        drawn.peek()?;
        Some(drawn.any(|attribute| attribute.is_covered_by(after)))
    });
    Ok(retained.collect())
}

/// The share of `true` among the samples that [`retained_emoji`] counts; `None` if it counts none.
pub fn share_retained(retained: &[Option<bool>]) -> Option<f64> {
    let counted: Vec<bool> = retained.iter().copied().flatten().collect();
    let kept = counted.iter().filter(|kept| **kept).count();
    (!counted.is_empty()).then(|| kept as f64 / counted.len() as f64)
}

/// Scores of translated emoji. Shares are from 0 to 1; an attribute is kept if the input's value is the most probable
/// one, or if the styles differ in it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EmojiKeptScore {
    /// Number of images.
    pub n: usize,
    /// Share that keeps its kind.
    pub kind: f64,
    /// Share that keeps its skin tone.
    pub tone: f64,
    /// Share that keeps its gender.
    pub gender: f64,
    /// Share that keeps these three, and whether there are glasses and a hat.
    pub kept: f64,
    /// Share in the target's style.
    pub style: f64,
    /// Share that is both kept and in the target's style.
    pub both: f64,
}

/// Scores translated emoji; `inputs` are the emoji that they were made from.
///
/// # Errors
/// Fails if there are none, or their number differs from that of the inputs.
pub fn score_kept_emoji(judged: &[EmojiJudged], inputs: &[&EmojiEntry]) -> Result<EmojiKeptScore> {
    check(judged, inputs.len())?;
    let keeps = |i: usize, seen: &EmojiJudged, column: &str| {
        let value = inputs[i].value(column);
        value == Some(DIFFERS) || seen.value(column) == value
    };
    let keeps_all = |i: usize, seen: &EmojiJudged| {
        let columns = ["kind", "tone", "gender", "glasses", "hat"];
        columns.iter().all(|column| keeps(i, seen, column))
    };
    Ok(EmojiKeptScore {
        n: judged.len(),
        kind: share(judged, |i, seen| keeps(i, seen, "kind")),
        tone: share(judged, |i, seen| keeps(i, seen, "tone")),
        gender: share(judged, |i, seen| keeps(i, seen, "gender")),
        kept: share(judged, keeps_all),
        style: share(judged, |_, seen| seen.is_in_style()),
        both: share(judged, |i, seen| seen.is_in_style() && keeps_all(i, seen)),
    })
}

/// Scores of edited emoji. Shares are from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EmojiEditScore {
    /// Number of images.
    pub n: usize,
    /// Share whose most probable value is one that the edit leads to.
    pub edited: f64,
    /// Share whose most probable value is one that the inputs have.
    pub unchanged: f64,
    /// Share in the target's style.
    pub style: f64,
    /// Share that is edited and in the target's style.
    pub both: f64,
}

/// Scores edited emoji.
///
/// # Errors
/// Fails if there are none.
pub fn score_edited_emoji(
    judged: &[EmojiJudged],
    from: &EmojiValues,
    to: &EmojiValues,
) -> Result<EmojiEditScore> {
    check(judged, judged.len())?;
    Ok(EmojiEditScore {
        n: judged.len(),
        edited: share(judged, |_, seen| to.is_seen_in(seen)),
        unchanged: share(judged, |_, seen| from.is_seen_in(seen)),
        style: share(judged, |_, seen| seen.is_in_style()),
        both: share(judged, |_, seen| seen.is_in_style() && to.is_seen_in(seen)),
    })
}

/// The share of images that count, which is called with the place of each image.
fn share(judged: &[EmojiJudged], counts: impl Fn(usize, &EmojiJudged) -> bool) -> f64 {
    let all = judged.iter().enumerate();
    all.filter(|(i, seen)| counts(*i, seen)).count() as f64 / judged.len() as f64
}

fn check(judged: &[EmojiJudged], expected: usize) -> Result<()> {
    if judged.is_empty() || judged.len() != expected {
        return Err(EvalError::Tensor(candle_core::Error::Msg(format!(
            "expected {} judged images, found {}",
            expected.max(1),
            judged.len()
        ))));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::emoji::judged::tests::seen;
    use sdft_data::Emoji;

    #[test]
    fn a_sample_is_covered_if_it_is_in_style_and_surely_has_what_the_target_set_lacks() {
        let portrait = ("kind", "portrait", 1.0);
        let judged = [
            seen(0.9, &[portrait, ("gender", "woman", 0.9)]),
            seen(0.9, &[portrait, ("gender", "woman", 0.7)]),
            seen(0.4, &[portrait, ("gender", "woman", 0.9)]),
            // Three dark tones together.
            seen(
                0.9,
                &[portrait, ("tone", "medium", 0.4), ("tone", "dark", 0.5)],
            ),
            seen(0.9, &[portrait, ("mood", "happy", 1.0)]),
            seen(0.9, &[("kind", "animal", 0.95), ("glasses", "yes", 1.0)]),
            seen(0.9, &[("kind", "food", 0.5), ("kind", "plant", 0.45)]),
            seen(0.9, &[portrait, ("tone", "medium-light", 1.0)]),
        ];
        let score = score_emoji(&judged).unwrap();
        assert_eq!((score.n, score.coverage, score.style), (8, 0.375, 0.875));
        let eighths = [1.0, 1.0, 1.0, 0.0, 0.0, 1.0];
        assert_eq!(score.attributes, eighths.map(|n: f64| n / 8.0));
        assert_eq!(score.other, 0.125);
        assert!(score_emoji(&[]).is_err());
    }

    #[test]
    fn a_model_retains_what_it_draws_like_its_source() {
        let woman = |style| seen(style, &[("gender", "woman", 0.9)]);
        let dark = |style| seen(style, &[("tone", "dark", 0.9)]);
        let none = |style| seen(style, &[]);
        let both = |style| seen(style, &[("gender", "woman", 0.9), ("tone", "dark", 0.9)]);
        let source = [woman(0.1), woman(0.1), woman(0.1), both(0.1), none(0.1)];
        // Kept, in the wrong style, another attribute, one of two, and nothing to keep.
        let after = [woman(0.9), woman(0.1), dark(0.9), dark(0.9), woman(0.9)];
        let kept = retained_emoji(&source, &after).unwrap();
        let expected = [Some(true), Some(false), Some(false), Some(true), None];
        assert_eq!(kept, expected);
        assert_eq!(share_retained(&kept), Some(0.5));
        let nothing = [none(0.1), none(0.9)];
        let kept = retained_emoji(&nothing, &after[..2]).unwrap();
        assert_eq!(share_retained(&kept), None);
        let error = retained_emoji(&source, &after[..2]).unwrap_err();
        assert!(error.to_string().contains("expected 5"), "{error}");
    }

    #[test]
    fn a_translation_keeps_what_its_input_shows() {
        let emoji = Emoji::embedded().unwrap();
        let find = |code: &str| {
            let mut all = emoji.entries().iter();
            all.find(|entry| entry.code == code).unwrap()
        };
        let woman = find("1f469-1f3ff");
        let fox = find("1f98a");
        let of_woman = [
            ("kind", "portrait", 0.9),
            ("tone", "dark", 0.9),
            ("gender", "woman", 0.9),
        ];
        let mut man = of_woman;
        man[2].1 = "man";
        let judged = [
            seen(0.9, &of_woman),
            seen(0.1, &of_woman),
            seen(0.9, &man),
            seen(0.9, &[("kind", "animal", 0.6)]),
        ];
        let inputs = [woman, woman, woman, fox];
        let score = score_kept_emoji(&judged, &inputs).unwrap();
        assert_eq!((score.kind, score.tone, score.gender), (1.0, 1.0, 0.75));
        assert_eq!((score.kept, score.style, score.both), (0.75, 0.75, 0.5));
        let mut with_hat = of_woman.to_vec();
        with_hat.push(("hat", "yes", 0.9));
        let score = score_kept_emoji(&[seen(0.9, &with_hat)], &[woman]).unwrap();
        assert_eq!((score.kind, score.gender, score.kept), (1.0, 1.0, 0.0));
        let error = score_kept_emoji(&judged, &inputs[..3]).unwrap_err();
        assert!(error.to_string().contains("expected 3"), "{error}");
    }

    #[test]
    fn an_edit_counts_if_the_judge_sees_one_of_its_values() {
        let [from, to] = ["tone=light", "tone=medium-dark,dark"].map(|text| text.parse().unwrap());
        let judged = [
            seen(0.9, &[("tone", "dark", 0.9)]),
            seen(0.2, &[("tone", "medium-dark", 0.9)]),
            seen(0.9, &[("tone", "light", 0.9)]),
            seen(0.9, &[("tone", "medium", 0.9)]),
        ];
        let score = score_edited_emoji(&judged, &from, &to).unwrap();
        assert_eq!((score.edited, score.unchanged), (0.5, 0.25));
        assert_eq!((score.style, score.both), (0.75, 0.25));
    }
}
