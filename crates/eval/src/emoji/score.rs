//! Scores of generated, translated and edited emoji.

use super::attributes::{EMOJI_ATTRIBUTES, EmojiValues};
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
    })
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
    /// Share that keeps all three.
    pub kept: f64,
    /// Share in the target's style.
    pub style: f64,
    /// Share that keeps all three in the target's style.
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
        let columns = ["kind", "tone", "gender"];
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
