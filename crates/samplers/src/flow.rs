//! What the samplers that choose their own noise levels share: the levels, and the network in EDM's coordinates.

use crate::{Step, StepCallback};
use candle_core::{DType, Result, Tensor, bail};
use sdft_diffusion::{Denoiser, Diffusion, Level, Prediction, predict_at};

/// The levels of these values of sigma, from most noise to least. Values that fall on one step of a discrete process count once.
pub(crate) fn levels_of(diffusion: &Diffusion, sigmas: &[f64]) -> Vec<Level> {
    let mut levels: Vec<Level> = sigmas
        .iter()
        .map(|&sigma| diffusion.level_near(sigma))
        .collect();
    levels.dedup_by(|a, b| a.alpha_bar == b.alpha_bar);
    levels
}

/// `n` numbers from `first` to `last` in equal steps; only `first` if `n` is 1.
pub(crate) fn evenly(n: usize, first: f64, last: f64) -> impl Iterator<Item = f64> {
    let intervals = n.saturating_sub(1).max(1) as f64;
    (0..n).map(move |i| first + i as f64 / intervals * (last - first))
}

/// Fails unless there are steps, and values of sigma to spread them over.
pub(crate) fn check_range(what: &str, steps: usize, low: f64, high: f64) -> Result<()> {
    if steps == 0 {
        bail!("{what}: expected at least 1 step, found 0");
    }
    let is_range = low > 0.0 && low < high && high.is_finite();
    if !is_range {
        bail!("{what}: expected sigma_min above 0 and below sigma_max, found {low} and {high}");
    }
    Ok(())
}

/// The predicted noise and clean image at `x = x0 + sigma eps`, in f64. The noise is the slope of the deterministic flow, `dx / dsigma`.
///
/// The network is called in `dtype`.
pub(crate) fn noise_and_image(
    denoiser: &dyn Denoiser,
    x: &Tensor,
    level: Level,
    dtype: DType,
) -> Result<(Tensor, Tensor)> {
    noise_and_image_at(denoiser, &variance_preserving(x, &level)?, level, dtype)
}

/// The same at the state `xt` of the variance-preserving process, which is finite where no signal is left.
pub(crate) fn noise_and_image_at(
    denoiser: &dyn Denoiser,
    xt: &Tensor,
    level: Level,
    dtype: DType,
) -> Result<(Tensor, Tensor)> {
    let levels = vec![level; xt.dim(0)?];
    let predicted = predict_at(denoiser, &xt.to_dtype(dtype)?, &levels)?;
    let output = predicted.output.detach().to_dtype(DType::F64)?;
    let prediction = Prediction::new(output, predicted.prediction_type);
    Ok((prediction.eps(xt, &levels)?, prediction.x0(xt, &levels)?))
}

/// The state of the variance-preserving process, `x_t = x / sqrt(1 + sigma^2)`.
fn variance_preserving(x: &Tensor, level: &Level) -> Result<Tensor> {
    x * level.alpha_bar.sqrt()
}

/// The callback of a sampler that goes through these levels.
pub(crate) struct Report<'a, 'b> {
    pub(crate) callback: &'a mut StepCallback<'b>,
    pub(crate) diffusion: &'a Diffusion,
    pub(crate) levels: &'a [Level],
}

impl Report<'_, '_> {
    /// Calls the callback after the step from `levels[done]`, which led to `x` in EDM's coordinates.
    pub(crate) fn step(
        &mut self,
        done: usize,
        x: &Tensor,
        x0: &Tensor,
        dtype: DType,
    ) -> Result<()> {
        match self.levels.get(done + 1) {
            Some(next) => self.state(done, &variance_preserving(x, next)?, x0, dtype),
            None => self.state(done, x, x0, dtype),
        }
    }

    /// The same with the state of the variance-preserving process.
    pub(crate) fn state(
        &mut self,
        done: usize,
        x: &Tensor,
        x0: &Tensor,
        dtype: DType,
    ) -> Result<()> {
        (self.callback)(&Step {
            done: done + 1,
            total: self.levels.len(),
            t: self.diffusion.nearest_step(self.levels[done].sigma()),
            x: &x.to_dtype(dtype)?,
            x0: &x0.to_dtype(dtype)?,
        })
    }
}
