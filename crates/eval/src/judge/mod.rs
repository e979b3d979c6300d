//! Training the judges of the embedded sets.

mod digits;
mod disturb;
mod emoji;
mod report;

pub use digits::{JudgeReport, train_judge};
pub use emoji::{emoji_judge_config, evaluate_emoji_judges, train_emoji_judge};
pub use report::{EmojiJudgeReport, HeadReport, ValueReport};

use candle_core::{DType, Device, Result, Tensor, WithDType};
use sdft_autograd::backward;
use sdft_features::{AttributeJudge, JudgeConfig};
use sdft_nn::Params;
use sdft_optim::{AdamW, Decay, LearningRate, Optimizer, Rule, collect_gradients};

/// Every tenth digit or emoji is held out for the test.
const HELD_OUT: usize = 10;

/// Images with what is known about them.
struct Batch {
    /// `[N, 3, side, side]` in [-1, 1].
    images: Vec<f32>,
    /// The share of the target's style in each image; `None` if it does not count.
    style: Vec<Option<f32>>,
    /// For each head, the value of each image; `None` if it does not count.
    labels: Vec<Vec<Option<u32>>>,
}

/// Trains a judge with AdamW on the batch that `draw` returns for each step. `progress` is called with (steps done, steps, loss).
fn train(
    config: &JudgeConfig,
    seed: u64,
    steps: u64,
    draw: impl Fn(u64) -> Batch,
    progress: &mut dyn FnMut(u64, u64, f64),
) -> Result<(AttributeJudge, Params)> {
    let specs = AttributeJudge::specs(config)?;
    let (params, vars) = Params::init(&specs, seed, &Device::Cpu)?.trainable()?;
    let judge = AttributeJudge::load(config, &params)?;
    let mut optimizer =
        Optimizer::new(Rule::AdamW(AdamW::default()), &vars).map_err(candle_core::Error::wrap)?;
    let rate = LearningRate {
        base: 2e-3,
        warmup_steps: 50,
        decay: Decay::Cosine { steps, floor: 0.05 },
    };
    for step in 0..steps {
        let loss = draw(step).loss(&judge)?;
        let gradients = collect_gradients(&vars, &backward(&loss)?);
        optimizer
            .step(&gradients, rate.at(step), 1.0)
            .map_err(candle_core::Error::wrap)?;
        progress(step + 1, steps, f64::from(loss.to_scalar::<f32>()?));
    }
    let frozen = params
        .iter()
        .map(|(name, tensor)| (name.to_owned(), tensor.detach()))
        .collect();
    let params = Params::new(frozen);
    Ok((AttributeJudge::load(config, &params)?, params))
}

impl Batch {
    /// The sum over the heads of the mean cross-entropy, plus the mean binary cross-entropy of the style.
    fn loss(self, judge: &AttributeJudge) -> Result<Tensor> {
        let (n, side) = (self.style.len(), judge.config().side);
        let x = Tensor::from_vec(self.images, (n, 3, side, side), &Device::Cpu)?;
        let seen = judge.classify(&x)?;
        let mut total = Tensor::zeros((), DType::F32, &Device::Cpu)?;
        for (logits, labels) in seen.heads.iter().zip(&self.labels) {
            if let Some((logits, labels)) = known(logits, labels)? {
                let loss = candle_nn::loss::cross_entropy(&logits.contiguous()?, &labels)?;
                total = (total + loss)?;
            }
        }
        if let Some((logits, share)) = known(&seen.style, &self.style)? {
            // The stable form of -y log s(l) - (1 - y) log(1 - s(l)): max(l, 0) - l y + log(1 + exp(-|l|)).
            let tail = (logits.abs()?.neg()?.exp()? + 1.0)?.log()?;
            total = (total + ((logits.relu()? - (&logits * share)?)? + tail)?.mean_all()?)?;
        }
        Ok(total)
    }
}

/// The rows whose value is known, and the values; `None` if there are none.
fn known<T: WithDType>(rows: &Tensor, values: &[Option<T>]) -> Result<Option<(Tensor, Tensor)>> {
    let found: Vec<T> = values.iter().copied().flatten().collect();
    let n = found.len();
    if n == 0 {
        return Ok(None);
    }
    let found = Tensor::from_vec(found, n, &Device::Cpu)?;
    if n == values.len() {
        return Ok(Some((rows.clone(), found)));
    }
    let mut places = Vec::with_capacity(n);
    for (i, _) in (0u32..).zip(values).filter(|(_, value)| value.is_some()) {
        places.push(i);
    }
    let places = Tensor::from_vec(places, n, &Device::Cpu)?;
    Ok(Some((rows.contiguous()?.index_select(&places, 0)?, found)))
}

/// The pixel of the image that is moved to `at`; the edge is repeated.
#[expect(
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    reason = "clamped to the image"
)]
fn shifted(at: usize, by: isize, side: usize) -> usize {
    (at as isize - by).clamp(0, side as isize - 1) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use sdft_features::DigitsJudge;

    #[test]
    fn unknown_values_take_no_part_in_the_loss() {
        let config = DigitsJudge::config();
        let specs = AttributeJudge::specs(&config).unwrap();
        let params = Params::init(&specs, 0, &Device::Cpu).unwrap();
        let judge = AttributeJudge::load(&config, &params).unwrap();
        let loss = |style: [Option<f32>; 3], labels: [Option<u32>; 3], places: &[usize]| {
            let images = places.iter().flat_map(|i| vec![*i as f32 / 3.0; 768]);
            let batch = Batch {
                images: images.collect(),
                style: places.iter().map(|&i| style[i]).collect(),
                labels: vec![places.iter().map(|&i| labels[i]).collect()],
            };
            batch.loss(&judge).unwrap().to_scalar::<f32>().unwrap()
        };
        let (style, labels) = (
            [Some(1.0), Some(0.5), Some(0.0)],
            [Some(3), Some(1), Some(4)],
        );
        let none = [None; 3];
        let some = [Some(1.0), None, Some(0.0)];
        assert_eq!(loss(some, none, &[0, 1, 2]), loss(style, none, &[0, 2]),);
        let masked = [None, Some(1), Some(4)];
        let (both, one) = (
            loss(style, masked, &[0, 1, 2]),
            loss([None; 3], labels, &[1, 2]) + loss(style, none, &[0, 1, 2]),
        );
        assert!((both - one).abs() < 1e-5, "{both} {one}");
        assert_eq!(loss([None; 3], [None; 3], &[0, 1]), 0.0);
    }
}
