//! The inputs of an objective.

use candle_core::{Result, Tensor, bail};
use sdft_diffusion::Level;

/// Target images with the noise and the noise levels of a training step.
#[derive(Clone, Copy, Debug)]
pub struct NoisedBatch<'a> {
    /// Clean images `[B, C, H, W]` in [-1, 1].
    pub x0: &'a Tensor,
    /// Noise levels, one per image.
    pub levels: &'a [Level],
    /// Gaussian noise, shaped like `x0`.
    pub noise: &'a Tensor,
    /// Factors that undo a non-uniform choice of levels, one per image; `None` means 1.
    pub importance: Option<&'a [f64]>,
    /// Factors of the distillation term, one per image: any weight in addition to the objective's, or what undoes a random choice of
    /// images ([`distill_factor`](crate::distill_factor)). The source model skips images of factor 0. `None` means 1.
    pub distill: Option<&'a [f64]>,
    /// How much each pixel counts, `[B, 1, H, W]` in 0 to 1: the loss of an image is a weighted mean over its pixels. `None` means 1.
    pub mask: Option<&'a Tensor>,
    /// What is added to the noise in the target of the base loss, shaped like `x0` and without gradient: guidance that is built into the
    /// network ([`dogfit_shift`](crate::dogfit_shift), [`ant_shift`](crate::ant_shift)). `None` means 0.
    pub shift: Option<&'a Tensor>,
    /// Samples of the source model that are trained on as well. [`Objective::keep`](crate::Objective::keep) needs them.
    pub kept: Option<Kept<'a>>,
}

/// Samples of the source model with the noise and the noise levels of a training step.
#[derive(Clone, Copy, Debug)]
pub struct Kept<'a> {
    /// Clean images `[K, C, H, W]` in [-1, 1].
    pub x0: &'a Tensor,
    /// Noise levels, one per image.
    pub levels: &'a [Level],
    /// Gaussian noise, shaped like `x0`.
    pub noise: &'a Tensor,
    /// The factor of their mean loss; 1 unless a part of a batch has more or fewer of them per image than the batch.
    pub factor: f64,
}

/// Pure noise as an input of both networks, Eq. (5).
#[derive(Clone, Copy, Debug)]
pub struct Auxiliary<'a> {
    /// Gaussian noise `[A, C, H, W]`.
    pub z: &'a Tensor,
    /// Noise levels, one per input.
    pub levels: &'a [Level],
    /// The weight of each input: `w_aux(t)` where the step `t` is drawn uniformly, the mean of `w_aux` where it is drawn in proportion to it.
    pub weights: &'a [f64],
}

impl<'a> NoisedBatch<'a> {
    /// A batch in which all images have the same weight.
    pub fn new(x0: &'a Tensor, levels: &'a [Level], noise: &'a Tensor) -> Self {
        Self {
            x0,
            levels,
            noise,
            importance: None,
            distill: None,
            mask: None,
            shift: None,
            kept: None,
        }
    }

    /// The images that the source model sees: those whose factor is not 0.
    ///
    /// # Errors
    /// Another number of factors than images.
    pub fn seen(&self) -> Result<Vec<usize>> {
        let n = self.levels.len();
        let Some(factors) = self.distill else {
            return Ok((0..n).collect());
        };
        if factors.len() != n {
            bail!(
                "distillation factors: expected {n}, one for each image, found {}",
                factors.len()
            );
        }
        Ok((0..n).filter(|&i| factors[i] != 0.0).collect())
    }

    /// `w` times the factors of image `i` in the distillation term.
    pub(crate) fn weigh(&self, w: f64, i: usize) -> f64 {
        let of = |factors: Option<&[f64]>| factors.map_or(1.0, |factors| factors[i]);
        w * of(self.distill) * of(self.importance)
    }
}
