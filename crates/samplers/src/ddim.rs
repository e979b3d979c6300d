//! DDIM's sampler and its inversion.

use crate::{Step, StepCallback, Stepped};
use candle_core::{Result, Tensor, bail};
use sdft_diffusion::{Clip, Denoiser, Diffusion, Prediction, PredictionType};
use sdft_randn::NoiseSource;

/// Options of a DDIM trajectory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ddim {
    /// Share of fresh noise: 0 is deterministic, 1 is as random as DDPM.
    pub eta: f64,
    /// Whether predicted clean images are clamped, as the process says.
    pub clip: Clip,
    /// The step to start from, at whose noise level `x` is; `None` is the last of the process.
    pub start: Option<usize>,
}

impl Default for Ddim {
    /// Deterministic, clamped, from the last step.
    fn default() -> Self {
        Self {
            eta: 0.0,
            clip: Clip::Yes,
            start: None,
        }
    }
}

/// One step of DDIM, to the step below `t`. At step 0 the next state is the image.
///
/// Where diffusers samples ([`Diffusion::sampling`]) the direction is the network's own noise, the next level is that of `t - T / n`, and noise
/// may enter at the last step too. Otherwise the noise is derived again from the clamped image.
///
/// Source: guided-diffusion `ddim_sample`, diffusers `DDIMScheduler.step`.
///
/// # Shapes
/// - `x`, `noise`: `[B, C, H, W]` · `t`: one step for the whole batch
///
/// # Errors
/// `t` beyond the process; `eta` above 0 without noise.
pub fn ddim_step(
    diffusion: &Diffusion,
    prediction: &Prediction,
    x: &Tensor,
    t: usize,
    options: &Ddim,
    noise: Option<&Tensor>,
) -> Result<Stepped> {
    let steps = vec![t; x.dim(0)?];
    let (x0, eps) = clean_and_noise(diffusion, prediction, x, &steps, options.clip)?;
    let schedule = &diffusion.schedule;
    let (ab, ab_prev) = (schedule.alpha_bar()[t], schedule.alpha_bar_ddim()[t]);
    let kept = match diffusion.sampling {
        None => ab / ab_prev,
        // Close to 1 this rounding changes the noise by up to 3e-4 of its size.
        Some(_) => f64::from((ab / ab_prev) as f32),
    };
    let sigma = options.eta * ((1.0 - ab_prev) / (1.0 - ab)).sqrt() * (1.0 - kept).sqrt();
    let mean =
        ((&x0 * ab_prev.sqrt())? + (eps * (1.0 - ab_prev - sigma * sigma).max(0.0).sqrt())?)?;
    let next = match noise {
        _ if sigma == 0.0 || (t == 0 && diffusion.sampling.is_none()) => mean,
        Some(noise) => (mean + (noise * sigma)?)?,
        None => bail!("DDIM with eta {} needs noise", options.eta),
    };
    Ok(Stepped { next, x0 })
}

/// One step of the deterministic flow towards noise, to the step above `t`. After the last step the state is the predicted noise.
///
/// Source: guided-diffusion `ddim_reverse_sample`.
///
/// # Shapes
/// - `x`: `[B, C, H, W]` · `t`: one step for the whole batch
///
/// # Errors
/// `t` beyond the process.
pub fn ddim_reverse_step(
    diffusion: &Diffusion,
    prediction: &Prediction,
    x: &Tensor,
    t: usize,
    clip: Clip,
) -> Result<Stepped> {
    let steps = vec![t; x.dim(0)?];
    let (x0, eps) = clean_and_noise(diffusion, prediction, x, &steps, clip)?;
    let ab_next = diffusion.schedule.alpha_bar_next()[t];
    let next = ((&x0 * ab_next.sqrt())? + (eps * (1.0 - ab_next).sqrt())?)?;
    Ok(Stepped { next, x0 })
}

/// The predicted clean image and noise. The noise is that of the clamped image, or, where diffusers samples, as predicted.
fn clean_and_noise(
    diffusion: &Diffusion,
    prediction: &Prediction,
    x: &Tensor,
    t: &[usize],
    clip: Clip,
) -> Result<(Tensor, Tensor)> {
    let x0 = diffusion.clamped(diffusion.x0(prediction, x, t)?, clip)?;
    let alpha_bar = diffusion.schedule.alpha_bar();
    let is_unclamped = clip == Clip::No || diffusion.unbounded;
    let eps = match diffusion.sampling {
        Some(_) => diffusion.eps(prediction, x, t)?,
        None if is_unclamped => diffusion.eps(prediction, x, t)?,
        // Pure noise.
        _ if t.iter().any(|&t| alpha_bar.get(t) == Some(&0.0)) => {
            let clean = Prediction::new(x0.clone(), PredictionType::Sample);
            diffusion.eps(&clean, x, t)?
        }
        _ => diffusion.eps_from_x0(x, t, &x0)?,
    };
    Ok((x0, eps))
}

/// Runs DDIM from `options.start` down to step 0 and returns the images.
///
/// # Shapes
/// - `x`: `[B, C, H, W]`, the state at the starting step · returns: the same
///
/// # Errors
/// A starting step beyond the process; an error of the network, the noise source or the callback.
pub fn sample_ddim(
    diffusion: &Diffusion,
    denoiser: &dyn Denoiser,
    x: &Tensor,
    options: &Ddim,
    noise: &mut dyn NoiseSource,
    callback: &mut StepCallback<'_>,
) -> Result<Tensor> {
    let total = n_steps_from(diffusion, options.start)?;
    let mut x = x.clone();
    for (done, t) in (0..total).rev().enumerate() {
        let prediction = diffusion.predict(denoiser, &x, &vec![t; x.dim(0)?])?;
        let fresh = if options.eta > 0.0 {
            Some(noise.normal(done, &x)?)
        } else {
            None
        };
        let Stepped { next, x0 } =
            ddim_step(diffusion, &prediction, &x, t, options, fresh.as_ref())?;
        // Without this the graph of gradients of a trainable network would grow with every step.
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

/// Runs the deterministic flow from an image through all steps and returns its latent noise.
///
/// # Shapes
/// - `x0`: `[B, C, H, W]` · returns: the same
///
/// # Errors
/// An error of the network or the callback.
pub fn invert_ddim(
    diffusion: &Diffusion,
    denoiser: &dyn Denoiser,
    x0: &Tensor,
    clip: Clip,
    callback: &mut StepCallback<'_>,
) -> Result<Tensor> {
    let total = diffusion.n_steps();
    let mut x = x0.clone();
    for t in 0..total {
        let prediction = diffusion.predict(denoiser, &x, &vec![t; x.dim(0)?])?;
        let Stepped { next, x0 } = ddim_reverse_step(diffusion, &prediction, &x, t, clip)?;
        x = next.detach();
        callback(&Step {
            done: t + 1,
            total,
            t,
            x: &x,
            x0: &x0,
        })?;
    }
    Ok(x)
}

pub(crate) fn n_steps_from(diffusion: &Diffusion, start: Option<usize>) -> Result<usize> {
    let n = diffusion.n_steps();
    match start {
        None => Ok(n),
        Some(t) if t < n => Ok(t + 1),
        Some(t) => bail!("starting step {t} is outside 0..{n}"),
    }
}
