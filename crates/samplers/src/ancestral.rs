use crate::ddim::n_steps_from;
use crate::{NoiseSource, Observer, Step};
use candle_core::{Result, Tensor};
use sdft_diffusion::{Clip, Denoiser, Diffusion};

/// The choices of an ancestral trajectory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ancestral {
    /// Whether predicted clean images are clamped.
    pub clip: Clip,
    /// The step to start from; none means the last of the process.
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

/// Runs DDPM's ancestral sampler down to step 0 and returns the images.
///
/// Source: guided-diffusion `p_sample_loop`. A noise is drawn at every step and not used at step 0.
///
/// # Shapes
/// - `x`: `[B, C, H, W]`, the state at the starting step · returns: the same
///
/// # Errors
/// A starting step beyond the process; whatever the network, the noise source or the observer fails with.
pub fn sample_ddpm(
    diffusion: &Diffusion,
    denoiser: &dyn Denoiser,
    x: &Tensor,
    options: &Ancestral,
    noise: &mut dyn NoiseSource,
    observer: &mut Observer<'_>,
) -> Result<Tensor> {
    let total = n_steps_from(diffusion, options.start)?;
    let mut x = x.clone();
    for (done, t) in (0..total).rev().enumerate() {
        let steps = vec![t; x.dim(0)?];
        let prediction = diffusion.predict(denoiser, &x, &steps)?;
        let reverse = diffusion.reverse(&prediction, &x, &steps, options.clip)?;
        let fresh = noise.normal(done, &x)?;
        let next = if t == 0 {
            reverse.mean
        } else {
            (reverse.mean + fresh.broadcast_mul(&(reverse.log_variance * 0.5)?.exp()?)?)?
        };
        x = next.detach();
        observer(&Step {
            done: done + 1,
            total,
            t,
            x: &x,
            x0: &reverse.x0,
        })?;
    }
    Ok(x)
}
