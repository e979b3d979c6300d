//! One asymmetric step.

use candle_core::{Result, Tensor};
use sdft_diffusion::Prediction;
use sdft_samplers::Stepped;

/// The noise levels of a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Levels {
    /// `alpha_bar` of the state that the step starts from.
    pub alpha_bar: f64,
    /// `alpha_bar` of the state that it leads to; 1 is the clean image.
    pub alpha_bar_next: f64,
    /// Share of fresh noise: 0 is deterministic, 1 is as random as DDPM.
    pub eta: f64,
}

/// One asymmetric step.
///
/// ```text
/// x0 = (x - sqrt(1 - ab) eps_changed) / sqrt(ab)
/// next = sqrt(ab_next) x0 + sqrt(1 - ab_next - c^2) eps + c z,   c = eta sqrt((1 - ab / ab_next) (1 - ab_next) / (1 - ab))
/// ```
/// With `ab_next < ab` and no noise it is a step of the inversion. Nothing is clamped.
///
/// # Shapes
/// - `x`, `z`: `[B, C, H, W]`
///
/// Source: Asyrp `utils/diffusion_utils.py` `denoising_step`, sampling type ddim.
///
/// # Errors
/// When shapes do not fit.
pub fn step(
    x: &Tensor,
    plain: &Prediction,
    changed: &Prediction,
    levels: Levels,
    z: Option<&Tensor>,
) -> Result<Stepped> {
    let (ab, ab_next) = (levels.alpha_bar, levels.alpha_bar_next);
    let x0 = changed.x0_at(x, ab)?;
    let eps = plain.eps_at(x, ab)?;
    let c = z.map_or(0.0, |_| {
        levels.eta
            * ((1.0 - ab / ab_next) * (1.0 - ab_next) / (1.0 - ab))
                .max(0.0)
                .sqrt()
    });
    let along = (1.0 - ab_next - c * c).max(0.0).sqrt();
    let mut next = ((&x0 * ab_next.sqrt())? + (eps * along)?)?;
    if let Some(z) = z
        && c > 0.0
    {
        next = (next + (z * c)?)?;
    }
    Ok(Stepped { next, x0 })
}
