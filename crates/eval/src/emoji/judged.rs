//! The judge's probabilities for each image.

use super::attributes::EMOJI_ATTRIBUTES;
use candle_core::{DType, Result, Tensor, bail};
use sdft_features::{AttributeJudge, JudgeHead};
use std::sync::Arc;

/// The probability above which an attribute counts as seen.
pub(crate) const CONFIDENT: f32 = 0.8;
/// Batch size of the judge.
const CHUNK: usize = 256;

/// The style and the attributes of one image, as one or several judges see them.
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

    /// Whether the image is in the target's style and has, with a probability above 0.8, one of [`EMOJI_ATTRIBUTES`].
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

    fn add(&mut self, other: &Self) {
        self.style += other.style;
        let heads = self.probabilities.iter_mut().zip(&other.probabilities);
        for (p, q) in heads.flat_map(|(mine, others)| mine.iter_mut().zip(others)) {
            *p += q;
        }
    }

    fn scale(&mut self, by: f32) {
        self.style *= by;
        let all = self.probabilities.iter_mut().flatten();
        all.for_each(|p| *p *= by);
    }

    fn head(&self, attribute: &str) -> Option<usize> {
        self.heads.iter().position(|head| head.name == attribute)
    }
}

/// The view of each image: the mean of the judges' probabilities. A sample that is no clear picture rarely fools several judges in the same way.
///
/// # Shapes
/// - `images`: `[N, 3, 32, 32]` in [-1, 1]
///
/// # Errors
/// Fails if there is no judge, judges differ in their heads, or the images have another size.
pub fn judge_emoji(judges: &[AttributeJudge], images: &Tensor) -> Result<Vec<EmojiJudged>> {
    let Some((first, others)) = judges.split_first() else {
        bail!("expected at least one judge of emoji");
    };
    let mut all = judged_by(first, images)?;
    for other in others {
        if other.config().heads != first.config().heads {
            bail!("expected judges of emoji that classify the same attributes");
        }
        for (sum, seen) in all.iter_mut().zip(judged_by(other, images)?) {
            sum.add(&seen);
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "a small number")]
    let share = 1.0 / judges.len() as f32;
    all.iter_mut().for_each(|seen| seen.scale(share));
    Ok(all)
}

/// The view of one judge.
fn judged_by(judge: &AttributeJudge, images: &Tensor) -> Result<Vec<EmojiJudged>> {
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

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::judge::emoji_judge_config;
    use candle_core::Device;
    use sdft_features::JudgeConfig;
    use sdft_nn::Params;

    /// An image of this style, whose attributes have these values with these probabilities and else the first one.
    pub(crate) fn seen(style: f32, values: &[(&str, &str, f32)]) -> EmojiJudged {
        let heads = emoji_judge_config().heads;
        let probabilities = heads.iter().map(|head| {
            let mut row = vec![0.0; head.values.len()];
            row[0] = 1.0;
            for (_, value, p) in values.iter().filter(|(name, ..)| *name == head.name) {
                row[0] -= p;
                row[head.position(value).unwrap()] += p;
            }
            row
        });
        EmojiJudged {
            style,
            probabilities: probabilities.collect(),
            heads: heads.into(),
        }
    }

    #[test]
    fn probabilities_are_those_of_the_heads() {
        let config = emoji_judge_config();
        let specs = AttributeJudge::specs(&config).unwrap();
        let [judge, other] = [0, 1].map(|seed| {
            let params = Params::init(&specs, seed, &Device::Cpu).unwrap();
            [AttributeJudge::load(&config, &params).unwrap()]
        });
        let x = Tensor::rand(-1f32, 1.0, (CHUNK + 1, 3, 32, 32), &Device::Cpu).unwrap();
        let judged = judge_emoji(&judge, &x).unwrap();
        assert_eq!(judged.len(), CHUNK + 1);
        for seen in &judged {
            let all = seen.probability("tone", &config.heads[1].values);
            assert!((all - 1.0).abs() < 1e-5, "{all}");
            let best = seen.value("tone").unwrap().to_owned();
            let p = seen.probability("tone", &[&best]);
            let others = config.heads[1].values.iter();
            assert!(
                others
                    .map(|v| seen.probability("tone", &[v]))
                    .all(|q| q <= p)
            );
        }
        assert_eq!(judged[0].value("colour"), None);
        assert_eq!(judged[0].probability("tone", &["blue"]), 0.0);
        let last = judge_emoji(&judge, &x.narrow(0, CHUNK, 1).unwrap()).unwrap();
        assert_eq!(last[0], judged[CHUNK]);

        let both = [&judge[..], &other].concat();
        let [one, two, mean] = [&judge[..], &other, &both].map(|judges| {
            let judged = judge_emoji(judges, &x.narrow(0, 0, 1).unwrap()).unwrap();
            let dark = judged[0].probability("tone", &["dark"]);
            [dark, judged[0].style()]
        });
        for i in 0..2 {
            assert!((mean[i] - f32::midpoint(one[i], two[i])).abs() < 1e-6);
            assert!(one[i] != two[i]);
        }
        assert!(judge_emoji(&[], &x).is_err());
        let narrow = JudgeConfig {
            heads: config.heads[1..].to_vec(),
            ..config.clone()
        };
        let specs = AttributeJudge::specs(&narrow).unwrap();
        let params = Params::init(&specs, 0, &Device::Cpu).unwrap();
        let narrow = AttributeJudge::load(&narrow, &params).unwrap();
        let error = judge_emoji(&[judge[0].clone(), narrow], &x).unwrap_err();
        assert!(error.to_string().contains("same attributes"), "{error}");
    }
}
