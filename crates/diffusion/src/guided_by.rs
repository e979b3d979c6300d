//! Guidance of a model away from another model.

use crate::{Denoiser, Diffusion, Level, Prediction};
use candle_core::{Result, Tensor, bail};
use serde::{Deserialize, Serialize};

/// The noise levels `low < sigma <= high`, with EDM's `sigma = sqrt((1 - alpha_bar) / alpha_bar)`. Plans write `[low, high]`.
///
/// Source: Kynkäänniemi et al. 2024, guidance in a limited interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "[f64; 2]", into = "[f64; 2]")]
pub struct SigmaInterval {
    /// The lower end, 0 or more; it is outside the interval.
    pub low: f64,
    /// The upper end, which is inside; it may be infinite.
    pub high: f64,
}

impl From<[f64; 2]> for SigmaInterval {
    fn from([low, high]: [f64; 2]) -> Self {
        Self { low, high }
    }
}

impl From<SigmaInterval> for [f64; 2] {
    fn from(interval: SigmaInterval) -> Self {
        [interval.low, interval.high]
    }
}

impl SigmaInterval {
    /// Whether a noise level is in the interval.
    pub fn contains(&self, level: &Level) -> bool {
        let sigma = level.sigma();
        self.low < sigma && sigma <= self.high
    }
}

/// A model that is guided away from another one, as a [`Denoiser`]. Samplers and translators take it like any other.
///
/// ```text
/// output = guide + weight (model - guide)
/// ```
/// The guide is usually the source model that the model was fine-tuned from. Its prediction is converted to the quantity that the model
/// predicts; the combination is the same in every space. A learned variance is the model's. With a weight of 1, and for images whose noise
/// level is outside the interval, the prediction is the model's to the bit; if that is the whole batch, the guide is not evaluated.
///
/// Source: Zhong et al. 2025, Domain Guidance.
#[derive(Clone, Copy)]
pub struct GuidedBy<'a> {
    /// The model.
    pub model: &'a dyn Denoiser,
    /// The guide. It is called with the same times as the model.
    pub guide: &'a dyn Denoiser,
    /// 0 is the guide alone, 1 the model alone, more than 1 moves away from the guide.
    pub weight: f64,
    /// The noise levels at which the guide takes part; all if `None`.
    pub interval: Option<SigmaInterval>,
    /// The first channels of the images, which the guide has learned, if the images have more: the model alone predicts the others.
    pub channels: Option<usize>,
    /// The process of the sampler, which gives the noise level of a time.
    pub diffusion: &'a Diffusion,
}

impl Denoiser for GuidedBy<'_> {
    /// # Errors
    /// Those of both models; a weight that is not finite; times that are not those of the process.
    fn predict(&self, xt: &Tensor, t: &[f32]) -> Result<Prediction> {
        if !self.weight.is_finite() {
            bail!("weight: expected a finite number, found {}", self.weight);
        }
        let model = self.model.predict(xt, t)?;
        if self.weight == 1.0 {
            return Ok(model);
        }
        let levels = self.diffusion.levels_at(t)?;
        let takes_part = |level| self.interval.is_none_or(|i| i.contains(level));
        let inside: Vec<bool> = levels.iter().map(takes_part).collect();
        if !inside.contains(&true) {
            return Ok(model);
        }
        let guided = self.guided(&model, xt, t, &levels)?;
        let output = match inside.contains(&false) {
            false => guided,
            true => {
                let images = inside.iter().enumerate().map(|(i, inside)| match inside {
                    true => guided.narrow(0, i, 1),
                    false => model.output.narrow(0, i, 1),
                });
                Tensor::cat(&images.collect::<Result<Vec<_>>>()?, 0)?
            }
        };
        Ok(Prediction { output, ..model })
    }
}

impl GuidedBy<'_> {
    /// The guided output for a prediction of the model.
    fn guided(
        &self,
        model: &Prediction,
        xt: &Tensor,
        t: &[f32],
        levels: &[Level],
    ) -> Result<Tensor> {
        let learned = |x: &Tensor| match self.channels {
            Some(channels) => x.narrow(1, 0, channels),
            None => Ok(x.clone()),
        };
        let guide = self.guide.predict(xt, t)?;
        let guide = Prediction::new(learned(&guide.output)?, guide.prediction_type);
        let guide = guide.convert(model.prediction_type, &learned(xt)?, levels)?;
        let output = (&guide + ((learned(&model.output)? - &guide)? * self.weight)?)?;
        match self.channels {
            None => Ok(output),
            Some(channels) => {
                let others = model.output.dim(1)?.saturating_sub(channels);
                Tensor::cat(&[output, model.output.narrow(1, channels, others)?], 1)
            }
        }
    }
}
