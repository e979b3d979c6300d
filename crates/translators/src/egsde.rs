use crate::walk::edit;
use crate::{Energies, SdeditOptions};
use candle_core::{Result, Tensor};
use sdft_diffusion::{Denoiser, Diffusion};
use sdft_samplers::{NoiseSource, Observer};

/// SDEdit led by two energies: away from what is the source domain's, along what both domains share.
///
/// Source: EGSDE `egsde_sample`. The energies' gradients are taken at the state before the step; the noise of the source's own path is the
/// one that the image was noised with, and the source stays the original through all repeats. In the form
/// `eps' = eps + sqrt(1 - alpha_bar_t) (lambda_s grad S + lambda_i grad D)` this is the published shift of the mean for ancestral
/// steps, and serves DDIM as well.
///
/// # Shapes
/// - `x0`: `[B, C, H, W]` in [-1, 1] · returns: the same
///
/// # Errors
/// A starting step beyond the process; images that do not fit the classifier or the filter; whatever the networks, the noise source or
/// the observer fail with.
pub fn egsde(
    diffusion: &Diffusion,
    denoiser: &dyn Denoiser,
    energies: &Energies<'_>,
    x0: &Tensor,
    options: &SdeditOptions,
    noise: &mut dyn NoiseSource,
    observer: &mut Observer<'_>,
) -> Result<Tensor> {
    edit(
        (diffusion, denoiser),
        Some(energies),
        x0,
        None,
        options,
        noise,
        observer,
    )
}
