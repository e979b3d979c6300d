use crate::SdeditOptions;
use crate::walk::edit;
use candle_core::{Result, Tensor};
use sdft_diffusion::{Denoiser, Diffusion};
use sdft_samplers::{NoiseSource, Observer};

/// Noises an image to the level of a step and lets the model of the target domain denoise it.
///
/// Source: SDEdit `image_editing_sample` ([`crate::Walk::Ancestral`] on the full process); with DDIM both readings of the paper: part
/// of a coarse process ([`crate::start_of`]) or a process of its own below the level ([`crate::steps_inside`]).
///
/// # Shapes
/// - `x0`: `[B, C, H, W]` in [-1, 1] · `mask`: broadcast to it, 1 where the image is kept, 0 where it is edited · returns: as `x0`
///
/// # Errors
/// A starting step beyond the process; whatever the network, the noise source or the observer fails with.
pub fn sdedit(
    diffusion: &Diffusion,
    denoiser: &dyn Denoiser,
    x0: &Tensor,
    mask: Option<&Tensor>,
    options: &SdeditOptions,
    noise: &mut dyn NoiseSource,
    observer: &mut Observer<'_>,
) -> Result<Tensor> {
    edit(
        (diffusion, denoiser),
        None,
        x0,
        mask,
        options,
        noise,
        observer,
    )
}
