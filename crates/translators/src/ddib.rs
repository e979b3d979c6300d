//! DDIB.

use candle_core::{Result, Tensor};
use sdft_diffusion::{Clip, Denoiser, Diffusion};
use sdft_randn::NoiseSource;
use sdft_samplers::{Ddim, Step, StepCallback, invert_ddim, sample_ddim};

/// Both ends of a dual diffusion bridge.
#[derive(Clone, Debug)]
pub struct Bridge {
    /// The noise that the source model's flow leads to.
    pub latent: Tensor,
    /// The image that the target model's flow leads to from there.
    pub image: Tensor,
}

/// From an image to noise with the source model, from the noise to an image with the target model, deterministic throughout.
///
/// Source: DDIB `imagenet_translation.py`. The way to noise is never clamped; `clip` applies to the way back. The
/// callback is called `2 n_steps` times.
///
/// # Shapes
/// - `x0`: `[B, C, H, W]` in [-1, 1]
///
/// # Errors
/// An error of the networks or the callback.
pub fn ddib(
    diffusion: &Diffusion,
    source: &dyn Denoiser,
    target: &dyn Denoiser,
    x0: &Tensor,
    clip: Clip,
    callback: &mut StepCallback<'_>,
) -> Result<Bridge> {
    let n = diffusion.n_steps();
    let mut half = 0;
    let mut count = |step: &Step<'_>| {
        half += 1;
        callback(&Step {
            done: half,
            total: 2 * n,
            ..*step
        })
    };
    let latent = invert_ddim(diffusion, source, x0, Clip::No, &mut count)?;
    let options = Ddim {
        clip,
        ..Ddim::default()
    };
    let image = sample_ddim(
        diffusion,
        target,
        &latent,
        &options,
        &mut NoNoise,
        &mut count,
    )?;
    Ok(Bridge { latent, image })
}

/// For samplers that are deterministic.
struct NoNoise;

impl NoiseSource for NoNoise {
    fn normal(&mut self, _draw: usize, like: &Tensor) -> Result<Tensor> {
        like.zeros_like()
    }
}
