//! The judge's probabilities for each image.

use super::attributes::EMOJI_ATTRIBUTES;
use candle_core::{DType, Result, Tensor};
use sdft_features::{AttributeJudge, JudgeHead};
use std::sync::Arc;

/// The probability above which an attribute counts as seen.
pub(crate) const CONFIDENT: f32 = 0.8;
/// Batch size of the judge.
const CHUNK: usize = 256;

/// The style and the attributes of one image, as a judge sees them.
#[derive(Clone, Debug, PartialEq)]
pub struct EmojiJudged {
    heads: Arc<[JudgeHead]>,
    style: f32,
    probabilities: Vec<Vec<f32>>,
}

impl EmojiJudged {
    /// Probability of the target's style (Fluent, not Noto), 0 to 1.
    pub fn style(&self) -> f32 {
        self.style
    }

    /// Whether the image is in the target's style.
    pub fn is_in_style(&self) -> bool {
        self.style > 0.5
    }

    /// Whether the image is in the target's style and has, with a probability above 0.8, an attribute that the target set lacks.
    pub fn is_covered(&self) -> bool {
        let mut all = EMOJI_ATTRIBUTES.iter();
        all.any(|attribute| attribute.is_covered_by(self))
    }

    /// The probabilities of the values of each head, in the judge's order.
    pub(crate) fn probabilities(&self) -> &[Vec<f32>] {
        &self.probabilities
    }

    /// The place of the most probable value of a head.
    pub(crate) fn most_probable(&self, head: usize) -> usize {
        let mut best = 0;
        for (i, p) in self.probabilities[head].iter().enumerate() {
            if *p > self.probabilities[head][best] {
                best = i;
            }
        }
        best
    }

    /// The most probable value of an attribute; `None` if the judge does not know the attribute.
    pub fn value(&self, attribute: &str) -> Option<&str> {
        let head = self.head(attribute)?;
        let values = &self.heads[head].values;
        values.get(self.most_probable(head)).map(String::as_str)
    }

    /// The probability that an attribute has one of these values, 0 to 1. Names that the judge does not know add nothing.
    pub fn probability(&self, attribute: &str, values: &[impl AsRef<str>]) -> f32 {
        let Some(head) = self.head(attribute) else {
            return 0.0;
        };
        let known = &self.heads[head];
        let places = values
            .iter()
            .filter_map(|value| known.position(value.as_ref()));
        places.map(|place| self.probabilities[head][place]).sum()
    }

    fn head(&self, attribute: &str) -> Option<usize> {
        self.heads.iter().position(|head| head.name == attribute)
    }
}

/// The judge's view of each image.
///
/// # Shapes
/// - `images`: `[N, 3, 32, 32]` in [-1, 1]
///
/// # Errors
/// Fails if the images have another size.
pub fn judge_emoji(judge: &AttributeJudge, images: &Tensor) -> Result<Vec<EmojiJudged>> {
    let n = images.dim(0)?;
    let heads: Arc<[JudgeHead]> = judge.config().heads.clone().into();
    let mut all = Vec::with_capacity(n);
    for start in (0..n).step_by(CHUNK) {
        let seen = judge.classify(&images.narrow(0, start, CHUNK.min(n - start))?)?;
        let style = candle_nn::ops::sigmoid(&seen.style)?;
        let style = style.to_dtype(DType::F32)?.to_vec1::<f32>()?;
        let mut rows = Vec::with_capacity(heads.len());
        for logits in &seen.heads {
            rows.push(candle_nn::ops::softmax(logits, 1)?.to_vec2::<f32>()?);
        }
        for (i, style) in style.into_iter().enumerate() {
            all.push(EmojiJudged {
                heads: Arc::clone(&heads),
                style,
                probabilities: rows.iter().map(|head| head[i].clone()).collect(),
            });
        }
    }
    Ok(all)
}
