//! SDEdit.

use crate::SdeditOptions;
use crate::walk::{Extras, edit};
use candle_core::{Result, Tensor};
use sdft_diffusion::{Denoiser, Diffusion};
use sdft_randn::NoiseSource;
use sdft_samplers::StepCallback;

/// Noises an image to the level of a step, and denoises it with the model of the target domain.
///
/// Source: SDEdit `image_editing_sample` ([`crate::Walk::Ancestral`] on the full process); with DDIM both readings of the paper: part
/// of a coarse process ([`crate::start_of`]) or a process of its own below the level ([`crate::steps_inside`]).
///
/// # Shapes
/// - `x0`: `[B, C, H, W]` in [-1, 1] · `mask`: broadcast to it, 1 where the image is kept, 0 where it is edited · returns: as `x0`
///
/// # Errors
/// A starting step beyond the process; an error of the network, the noise source or the callback.
pub fn sdedit(
    diffusion: &Diffusion,
    denoiser: &dyn Denoiser,
    x0: &Tensor,
    mask: Option<&Tensor>,
    options: &SdeditOptions,
    noise: &mut dyn NoiseSource,
    callback: &mut StepCallback<'_>,
) -> Result<Tensor> {
    let extras = Extras {
        mask,
        ..Extras::default()
    };
    edit(diffusion, denoiser, x0, extras, options, noise, callback)
}
