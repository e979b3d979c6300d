//! EGSDE.

use crate::walk::{Extras, edit};
use crate::{Energies, SdeditOptions};
use candle_core::{Result, Tensor};
use sdft_diffusion::{Denoiser, Diffusion};
use sdft_randn::NoiseSource;
use sdft_samplers::StepCallback;

/// SDEdit led by two energies: away from the features of the source domain, and along what both domains share.
///
/// Source: EGSDE `egsde_sample`. The energies' gradients are taken at the state before the step. The source is noised with the same noise
/// as the image, and stays the original through all repeats. In the form
/// `eps' = eps + sqrt(1 - alpha_bar_t) (lambda_s grad S + lambda_i grad D)` this is the published shift of the mean for ancestral
/// steps, and works for DDIM as well.
///
/// # Shapes
/// - `x0`: `[B, C, H, W]` in [-1, 1] · returns: the same
///
/// # Errors
/// A starting step beyond the process; images that do not fit the classifier or the filter; an error of the networks, the noise source or
/// the callback.
pub fn egsde(
    diffusion: &Diffusion,
    denoiser: &dyn Denoiser,
    energies: &Energies<'_>,
    x0: &Tensor,
    options: &SdeditOptions,
    noise: &mut dyn NoiseSource,
    callback: &mut StepCallback<'_>,
) -> Result<Tensor> {
    let extras = Extras {
        energies: Some(energies),
        ..Extras::default()
    };
    edit(diffusion, denoiser, x0, extras, options, noise, callback)
}
