//! Euler's and Heun's methods in the time of a flow along straight lines.

use crate::StepCallback;
use crate::flow::{Report, noise_and_image_at};
use candle_core::{DType, Result, Tensor, bail};
use sdft_diffusion::{Denoiser, Diffusion, Level};

/// A method for the equation `dx / dtau = v`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StraightMethod {
    /// One evaluation a step, of first order. Its steps are those of deterministic DDIM on the same levels.
    Euler,
    /// Two evaluations a step, of second order, except for the last step, which is Euler's: at `tau = 0` the velocity does not follow from
    /// a predicted image.
    Heun,
}

/// Options of [`sample_straight`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Straight {
    /// Number of steps.
    pub steps: usize,
    /// The method.
    pub method: StraightMethod,
}

impl Straight {
    /// The noise levels of the steps: `tau = 1 - i / steps`, from pure noise on. The last step leads from the last of them to the image.
    ///
    /// A network that is called with steps gets the nearest step for each level; levels that fall on one step count once.
    ///
    /// # Errors
    /// No steps.
    pub fn levels(&self, diffusion: &Diffusion) -> Result<Vec<Level>> {
        if self.steps == 0 {
            bail!("expected at least 1 step, found 0");
        }
        let taus = (0..self.steps).map(|i| 1.0 - i as f64 / self.steps as f64);
        let mut levels: Vec<Level> = taus.map(|tau| diffusion.level_at_tau(tau)).collect();
        levels.dedup_by(|a, b| a.alpha_bar == b.alpha_bar);
        Ok(levels)
    }
}

/// Follows the flow from `latents`, unit-variance noise, to the images, with even steps of `tau`. The state is f64 between two calls of the
/// network.
///
/// Source: SiT `ode`, with its times reversed; diffusers `FlowMatchEulerDiscreteScheduler` with a shift of 1.
/// ```text
/// x_tau = (1 - tau) x0 + tau eps        v = eps^ - x0^
/// Euler   x' = x + (tau' - tau) v        Heun   x' = x + (tau' - tau) (v + v') / 2
/// ```
/// # Shapes
/// - `latents`: `[B, C, H, W]` · returns: the same
///
/// # Errors
/// As [`Straight::levels`]; an error of the network or the callback.
pub fn sample_straight(
    diffusion: &Diffusion,
    denoiser: &dyn Denoiser,
    latents: &Tensor,
    options: &Straight,
    callback: &mut StepCallback<'_>,
) -> Result<Tensor> {
    let (levels, dtype) = (options.levels(diffusion)?, latents.dtype());
    let Some(first) = levels.first() else {
        bail!("expected at least 1 step, found 0");
    };
    let mut x = from_preserving(&latents.to_dtype(DType::F64)?, first)?;
    let mut report = Report {
        callback,
        diffusion,
        levels: &levels,
    };
    for (done, &level) in levels.iter().enumerate() {
        let (velocity, x0) = velocity_and_image(denoiser, &x, level, dtype)?;
        let next = levels.get(done + 1).copied();
        let length = next.map_or(0.0, |next| next.tau()) - level.tau();
        let mut after = (&x + (&velocity * length)?)?;
        if let (StraightMethod::Heun, Some(next)) = (options.method, next) {
            let (at_end, _) = velocity_and_image(denoiser, &after, next, dtype)?;
            after = (&x + ((velocity + at_end)? * (0.5 * length))?)?;
        }
        x = after;
        let shown = match next {
            Some(next) => to_preserving(&x, &next)?,
            None => x.clone(),
        };
        report.state(done, &shown, &x0, dtype)?;
    }
    x.to_dtype(dtype)
}

/// The velocity `eps - x0` and the clean image that the network predicts at `x_tau`.
fn velocity_and_image(
    denoiser: &dyn Denoiser,
    x: &Tensor,
    level: Level,
    dtype: DType,
) -> Result<(Tensor, Tensor)> {
    let xt = to_preserving(x, &level)?;
    let (eps, x0) = noise_and_image_at(denoiser, &xt, level, dtype)?;
    Ok(((eps - &x0)?, x0))
}

/// The share of image and noise in the state of the variance-preserving process, together.
fn share(level: &Level) -> f64 {
    level.alpha_bar.sqrt() + (1.0 - level.alpha_bar).sqrt()
}

/// `x_tau` from the state of the variance-preserving process.
fn from_preserving(xt: &Tensor, level: &Level) -> Result<Tensor> {
    xt / share(level)
}

/// The state of the variance-preserving process from `x_tau`.
fn to_preserving(x: &Tensor, level: &Level) -> Result<Tensor> {
    x * share(level)
}
