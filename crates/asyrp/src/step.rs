use candle_core::{Result, Tensor};

/// What a step gives.
#[derive(Clone, Debug)]
pub struct Stepped {
    /// The state that the step leads to.
    pub next: Tensor,
    /// The clean image, predicted from the changed features.
    pub x0: Tensor,
}

/// One asymmetric step from the level `ab` of `alpha_bar` to `ab_next`, which is 1 where the image is clean.
///
/// ```text
/// x0 = (x - sqrt(1 - ab) eps_changed) / sqrt(ab)
/// next = sqrt(ab_next) x0 + sqrt(1 - ab_next - c^2) eps + c z,   c = eta sqrt((1 - ab / ab_next) (1 - ab_next) / (1 - ab))
/// ```
/// With `ab_next < ab` and no noise it is a step of the inversion. Nothing is clamped.
///
/// # Shapes
/// - `x`, `eps`, `eps_changed`, `z`: `[B, C, H, W]`
///
/// Source: Asyrp `utils/diffusion_utils.py` `denoising_step`, sampling type ddim; `noise` is `(eta, z)`.
///
/// # Errors
/// When shapes do not fit.
pub fn step(
    x: &Tensor,
    (ab, ab_next): (f64, f64),
    eps: &Tensor,
    eps_changed: &Tensor,
    noise: Option<(f64, &Tensor)>,
) -> Result<Stepped> {
    let x0 = ((x - (eps_changed * (1.0 - ab).sqrt())?)? / ab.sqrt())?;
    let c = noise.map_or(0.0, |(eta, _)| {
        eta * ((1.0 - ab / ab_next) * (1.0 - ab_next) / (1.0 - ab))
            .max(0.0)
            .sqrt()
    });
    let along = (1.0 - ab_next - c * c).max(0.0).sqrt();
    let mut next = ((&x0 * ab_next.sqrt())? + (eps * along)?)?;
    if let Some((_, z)) = noise
        && c > 0.0
    {
        next = (next + (z * c)?)?;
    }
    Ok(Stepped { next, x0 })
}
