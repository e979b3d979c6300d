//! Kept samples of the source model: which a step trains on, at which noise levels.

use crate::error::Result;
use crate::images::to_tensor;
use crate::plan::{KeepPlan, Plan};
use candle_core::{Device, Tensor};
use sdft_data::{Augment, Batches, ImageSource};
use sdft_diffusion::{Diffusion, Level};
use sdft_losses::Kept;
use sdft_schedule::WeightedTimesteps;
use std::ops::Range;
use std::sync::Arc;

/// How the levels of kept samples are drawn: step `t` of `T` in proportion to `(T - t)^power`.
///
/// Source: thuml/Diffusion-Tuning `train.py`.
pub(crate) struct KeptLevels {
    count: usize,
    steps: Vec<Level>,
    weighted: WeightedTimesteps,
}

/// Kept samples of a part of a batch.
#[derive(Clone, Debug)]
pub struct KeptDraw {
    /// Their places among the kept samples of the step.
    pub range: Range<usize>,
    /// Their noise, `[k, C, H, W]`.
    pub noise: Tensor,
    /// Their noise levels.
    pub levels: Vec<Level>,
    /// See [`Kept::factor`].
    pub factor: f64,
}

impl KeptLevels {
    pub(crate) fn new(plan: &KeepPlan, batch: usize, diffusion: &Diffusion) -> Result<Self> {
        let steps = diffusion.all_levels();
        let n = steps.len();
        let weights: Vec<f64> = (0..n)
            .map(|t| ((n - t) as f64 / n as f64).powf(plan.power))
            .collect();
        Ok(Self {
            count: kept_count(plan, batch),
            steps,
            weighted: WeightedTimesteps::new(&weights)?,
        })
    }

    /// The kept samples of a step.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    pub(crate) fn draw(&self, uniforms: &[f64]) -> Vec<Level> {
        let steps = uniforms.iter().map(|&u| self.weighted.sample(u));
        steps.map(|t| self.steps[t]).collect()
    }
}

/// The kept samples of a step: at least one.
fn kept_count(plan: &KeepPlan, batch: usize) -> usize {
    // The cast saturates, and the plan's check bounds both factors.
    ((plan.share * batch as f64).round() as usize).max(1)
}

impl KeptDraw {
    /// The samples as the objective takes them, with their images.
    pub fn batch<'a>(&'a self, x0: &'a Tensor) -> Kept<'a> {
        Kept {
            x0,
            levels: &self.levels,
            noise: &self.noise,
            factor: self.factor,
        }
    }
}

/// The samples of the source model in the order in which steps take them.
pub(crate) struct Bank {
    batches: Batches,
}

impl Bank {
    /// # Errors
    /// No images.
    pub(crate) fn new<M>(images: Arc<dyn ImageSource>, plan: &Plan<M>) -> Result<Self> {
        let count = kept_count(&plan.loss.keep, plan.steps.batch);
        Ok(Self {
            batches: Batches::new(images, plan.seed, count, Augment::default())?,
        })
    }

    /// The kept samples `range` of a step, `[k, C, H, W]`.
    pub(crate) fn images(
        &self,
        step: u64,
        range: &Range<usize>,
        device: &Device,
    ) -> Result<Tensor> {
        let all = to_tensor(&self.batches.batch(step)?, device)?;
        Ok(all.narrow(0, range.start, range.len())?)
    }

    /// Image `i` in the order of the steps, `[1, C, H, W]`.
    pub(crate) fn image(&self, i: u64, device: &Device) -> Result<Tensor> {
        let count = self.batches.batch_size() as u64;
        // The remainder is smaller than the size of a batch.
        let place = (i % count) as usize;
        self.images(i / count, &(place..place + 1), device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sdft_schedule::Respacing;

    #[test]
    fn kept_samples_prefer_little_noise_and_are_one_at_least() {
        let plan = <Plan>::default();
        let diffusion = plan.process.diffusion(false, &Respacing::All).unwrap();
        let uniforms: Vec<f64> = (0..4000).map(|i| (f64::from(i) + 0.5) / 4000.0).collect();
        let below_half = |power: f64| {
            let keep = KeepPlan {
                power,
                ..KeepPlan::default()
            };
            let kept = KeptLevels::new(&keep, 8, &diffusion).unwrap();
            assert_eq!(kept.count(), 2);
            let levels = kept.draw(&uniforms);
            let low = levels.iter().filter(|level| level.step.unwrap() < 500);
            low.count() as f64 / 4000.0
        };
        // The share of the weights (T - t)^power of the lower half: 1/2, 3/4 and 7/8.
        for (power, share) in [(0.0, 0.5), (1.0, 0.75), (2.0, 0.875)] {
            assert!((below_half(power) - share).abs() < 2e-3, "{power}");
        }
        assert_eq!(kept_count(&KeepPlan::default(), 1), 1);
    }
}
