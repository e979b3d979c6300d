//! EDM's sampler: Heun's method of second order, with churn.

use crate::StepCallback;
use crate::flow::{Report, check_range, evenly, levels_of, noise_and_image};
use candle_core::{DType, Result, Tensor};
use sdft_diffusion::{Denoiser, Diffusion, Level};
use sdft_randn::NoiseSource;

/// Options of Heun's sampler; names and defaults as in NVlabs/edm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Heun {
    /// Number of steps, each of which calls the network twice, except for the last.
    pub steps: usize,
    /// The smallest noise level above 0; at least the network's own.
    pub sigma_min: f64,
    /// The largest noise level; at most the network's own.
    pub sigma_max: f64,
    /// How the levels are spaced, above 0; `None` is the process's own, or 7.
    pub rho: Option<f64>,
    /// How much fresh noise all steps add; 0 is deterministic.
    pub s_churn: f64,
    /// The smallest level at which noise is added.
    pub s_min: f64,
    /// The largest level at which noise is added.
    pub s_max: f64,
    /// The standard deviation of the noise that is added.
    pub s_noise: f64,
}

impl Default for Heun {
    /// 18 deterministic steps.
    fn default() -> Self {
        Self {
            steps: 18,
            sigma_min: 0.002,
            sigma_max: 80.0,
            rho: None,
            s_churn: 0.0,
            s_min: 0.0,
            s_max: f64::INFINITY,
            s_noise: 1.0,
        }
    }
}

impl Heun {
    /// The noise levels of the steps, from most noise to least; the last step leads from the last of them to the image.
    ///
    /// A network that is called with steps gets the nearest step for each level, as EDM's sampler does with such networks. Levels that
    /// fall on one step count once, so there can be fewer than [`Self::steps`].
    ///
    /// # Errors
    /// No steps, or no levels between the smallest and the largest.
    pub fn levels(&self, diffusion: &Diffusion) -> Result<Vec<Level>> {
        let (least, most) = diffusion.sigma_range();
        let (low, high) = (self.sigma_min.max(least), self.sigma_max.min(most));
        check_range("Heun's sampler", self.steps, low, high)?;
        let rho = match (self.rho, &diffusion.continuous) {
            (Some(rho), _) => rho,
            (None, continuous) => {
                let edm = continuous.as_ref().and_then(|continuous| continuous.edm());
                edm.map_or(7.0, |edm| edm.rho)
            }
        };
        if !(rho > 0.0 && rho.is_finite()) {
            candle_core::bail!("Heun's sampler: expected rho above 0, found {rho}");
        }
        let roots = evenly(self.steps, high.powf(1.0 / rho), low.powf(1.0 / rho));
        let sigmas: Vec<f64> = roots.map(|root| root.powf(rho)).collect();
        Ok(levels_of(diffusion, &sigmas))
    }

    /// The level that the noise added in front of a step leads to.
    fn churned(&self, diffusion: &Diffusion, level: Level) -> Level {
        let sigma = level.sigma();
        if self.s_churn <= 0.0 || sigma < self.s_min || sigma > self.s_max {
            return level;
        }
        let gamma = (self.s_churn / self.steps as f64).min(2f64.sqrt() - 1.0);
        diffusion.level_near(sigma + gamma * sigma)
    }
}

/// Runs Heun's sampler from `latents`, unit-variance noise, and returns the images.
///
/// The state is f64 between two calls of the network. Step `i` has draw `i` of the noise source, whether it adds noise or not.
///
/// Source: Karras et al. 2022, Algorithm 2; NVlabs/edm `edm_sampler`.
///
/// # Shapes
/// - `latents`: `[B, C, H, W]` · returns: the same
///
/// # Errors
/// As [`Heun::levels`]; an error of the network, the noise source or the callback.
pub fn sample_heun(
    diffusion: &Diffusion,
    denoiser: &dyn Denoiser,
    latents: &Tensor,
    options: &Heun,
    noise: &mut dyn NoiseSource,
    callback: &mut StepCallback<'_>,
) -> Result<Tensor> {
    let (levels, dtype) = (options.levels(diffusion)?, latents.dtype());
    let mut x = latents.to_dtype(DType::F64)?;
    let mut report = Report {
        callback,
        diffusion,
        levels: &levels,
    };
    for (done, &level) in levels.iter().enumerate() {
        if done == 0 {
            x = (x * level.sigma())?;
        }
        let from = options.churned(diffusion, level);
        let added = (from.sigma().powi(2) - level.sigma().powi(2)).sqrt();
        if added > 0.0 {
            let z = noise.normal(done, latents)?.to_dtype(DType::F64)?;
            x = (x + z * (added * options.s_noise))?;
        }
        let (slope, x0) = noise_and_image(denoiser, &x, from, dtype)?;
        let next = levels.get(done + 1);
        let length = next.map_or(0.0, Level::sigma) - from.sigma();
        let mut after = (&x + (&slope * length)?)?;
        if let Some(&next) = next {
            let (at_end, _) = noise_and_image(denoiser, &after, next, dtype)?;
            after = (&x + ((slope + at_end)? * (0.5 * length))?)?;
        }
        x = after;
        report.step(done, &x, &x0, dtype)?;
    }
    x.to_dtype(dtype)
}
