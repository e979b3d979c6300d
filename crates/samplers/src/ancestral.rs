//! DDPM's ancestral sampler.

use crate::ddim::n_steps_from;
use crate::{Step, StepCallback, Stepped};
use candle_core::{Result, Tensor, bail};
use sdft_diffusion::{Clip, Denoiser, Diffusion, Prediction};
use sdft_randn::NoiseSource;

/// Options of an ancestral trajectory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ancestral {
    /// Whether predicted clean images are clamped, as the process says.
    pub clip: Clip,
    /// The step to start from; `None` is the last of the process.
    pub start: Option<usize>,
}

impl Default for Ancestral {
    /// Clamped, from the last step.
    fn default() -> Self {
        Self {
            clip: Clip::Yes,
            start: None,
        }
    }
}

/// One ancestral step, to the step below `t`. Where no noise enters ([`Diffusion::noise_enters`]) the next state is the mean.
///
/// Source: guided-diffusion `p_sample`, diffusers `DDPMScheduler.step`.
///
/// # Shapes
/// - `x`, `z`: `[B, C, H, W]` · `t`: one step for the whole batch
///
/// # Errors
/// `t` beyond the process; no noise where the step needs it.
pub fn ddpm_step(
    diffusion: &Diffusion,
    prediction: &Prediction,
    x: &Tensor,
    t: usize,
    clip: Clip,
    z: Option<&Tensor>,
) -> Result<Stepped> {
    let reverse = diffusion.reverse(prediction, x, &vec![t; x.dim(0)?], clip)?;
    let next = match z {
        _ if !diffusion.noise_enters(t) => reverse.mean,
        None => bail!("an ancestral step from {t} needs noise"),
        Some(z) => (reverse.mean + z.broadcast_mul(&(reverse.log_variance * 0.5)?.exp()?)?)?,
    };
    Ok(Stepped {
        next,
        x0: reverse.x0,
    })
}

/// Runs DDPM's ancestral sampler down to step 0 and returns the images.
///
/// Source: guided-diffusion `p_sample_loop`. Every step takes a draw from the noise source; that of a step without noise is not used.
///
/// # Shapes
/// - `x`: `[B, C, H, W]`, the state at the starting step · returns: the same
///
/// # Errors
/// A starting step beyond the process; an error of the network, the noise source or the callback.
pub fn sample_ddpm(
    diffusion: &Diffusion,
    denoiser: &dyn Denoiser,
    x: &Tensor,
    options: &Ancestral,
    noise: &mut dyn NoiseSource,
    callback: &mut StepCallback<'_>,
) -> Result<Tensor> {
    let total = n_steps_from(diffusion, options.start)?;
    let mut x = x.clone();
    for (done, t) in (0..total).rev().enumerate() {
        let prediction = diffusion.predict(denoiser, &x, &vec![t; x.dim(0)?])?;
        let z = noise.normal(done, &x)?;
        let Stepped { next, x0 } =
            ddpm_step(diffusion, &prediction, &x, t, options.clip, Some(&z))?;
        x = next.detach();
        callback(&Step {
            done: done + 1,
            total,
            t,
            x: &x,
            x0: &x0,
        })?;
    }
    Ok(x)
}
