use crate::{NoiseSource, Observer, Step};
use candle_core::{Result, Tensor, bail};
use sdft_diffusion::{Clip, Denoiser, Diffusion, Prediction};

/// The choices of a DDIM trajectory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ddim {
    /// Share of fresh noise: 0 is deterministic, 1 is as random as DDPM.
    pub eta: f64,
    /// Whether predicted clean images are clamped.
    pub clip: Clip,
    /// The step to start from; none means the last of the process. Below it, `x` is taken as noised to that step.
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

/// One step of DDIM: the state one step of the process earlier, and the predicted clean image.
///
/// Source: guided-diffusion `ddim_sample`; the noise is derived again from the clamped image. At step 0 the state is the image.
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
) -> Result<(Tensor, Tensor)> {
    let steps = vec![t; x.dim(0)?];
    let (x0, eps) = clean_and_noise(diffusion, prediction, x, &steps, options.clip)?;
    let schedule = &diffusion.schedule;
    let (ab, ab_prev) = (schedule.alpha_bar()[t], schedule.alpha_bar_prev()[t]);
    let sigma = options.eta * ((1.0 - ab_prev) / (1.0 - ab)).sqrt() * (1.0 - ab / ab_prev).sqrt();
    let mean =
        ((&x0 * ab_prev.sqrt())? + (eps * (1.0 - ab_prev - sigma * sigma).max(0.0).sqrt())?)?;
    let next = match noise {
        _ if sigma == 0.0 || t == 0 => mean,
        Some(noise) => (mean + (noise * sigma)?)?,
        None => bail!("DDIM with eta {} needs noise", options.eta),
    };
    Ok((next, x0))
}

/// One step of the deterministic flow towards noise: the state one step later, and the predicted clean image.
///
/// Source: guided-diffusion `ddim_reverse_sample`. After the last step the state is the predicted noise.
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
) -> Result<(Tensor, Tensor)> {
    let steps = vec![t; x.dim(0)?];
    let (x0, eps) = clean_and_noise(diffusion, prediction, x, &steps, clip)?;
    let ab_next = diffusion.schedule.alpha_bar_next()[t];
    let next = ((&x0 * ab_next.sqrt())? + (eps * (1.0 - ab_next).sqrt())?)?;
    Ok((next, x0))
}

fn clean_and_noise(
    diffusion: &Diffusion,
    prediction: &Prediction,
    x: &Tensor,
    t: &[usize],
    clip: Clip,
) -> Result<(Tensor, Tensor)> {
    let x0 = diffusion.x0_from_eps(x, t, &prediction.eps)?;
    match clip {
        Clip::Yes => {
            let x0 = x0.clamp(-1.0, 1.0)?;
            let eps = diffusion.eps_from_x0(x, t, &x0)?;
            Ok((x0, eps))
        }
        Clip::No => Ok((x0, prediction.eps.clone())),
    }
}

/// Runs DDIM from `options.start` down to step 0 and returns the images.
///
/// # Shapes
/// - `x`: `[B, C, H, W]`, the state at the starting step · returns: the same
///
/// # Errors
/// A starting step beyond the process; whatever the network, the noise source or the observer fails with.
pub fn sample_ddim(
    diffusion: &Diffusion,
    denoiser: &dyn Denoiser,
    x: &Tensor,
    options: &Ddim,
    noise: &mut dyn NoiseSource,
    observer: &mut Observer<'_>,
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
        let (next, x0) = ddim_step(diffusion, &prediction, &x, t, options, fresh.as_ref())?;
        // Without this the graph of gradients of a trainable network would grow with every step.
        x = next.detach();
        observer(&Step {
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
/// Whatever the network or the observer fails with.
pub fn invert_ddim(
    diffusion: &Diffusion,
    denoiser: &dyn Denoiser,
    x0: &Tensor,
    clip: Clip,
    observer: &mut Observer<'_>,
) -> Result<Tensor> {
    let total = diffusion.n_steps();
    let mut x = x0.clone();
    for t in 0..total {
        let prediction = diffusion.predict(denoiser, &x, &vec![t; x.dim(0)?])?;
        let (next, clean) = ddim_reverse_step(diffusion, &prediction, &x, t, clip)?;
        x = next.detach();
        observer(&Step {
            done: t + 1,
            total,
            t,
            x: &x,
            x0: &clean,
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
