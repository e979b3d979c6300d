//! ILVR.

use crate::LowPass;
use candle_core::{Result, Tensor};
use sdft_diffusion::{Clip, Denoiser, Diffusion};
use sdft_randn::NoiseSource;
use sdft_samplers::{Step, StepCallback, Stepped, ddpm_step};

/// Options of ILVR.
#[derive(Clone, Debug)]
pub struct Ilvr {
    /// The filter whose output follows the reference.
    pub low_pass: LowPass,
    /// The reference is followed in steps above this one, not from there on (`range_t` of ILVR's script).
    pub free: usize,
    /// Whether predicted clean images are clamped.
    pub clip: Clip,
}

/// Ancestral sampling from noise whose coarse image follows a reference.
///
/// Source: the paper of ILVR, Alg. 1: after each step the low-passed state is replaced by that of the reference at the same noise level.
/// Draws are taken in this order: the starting noise, then for each step the step's own and the reference's, used or not.
///
/// # Shapes
/// - `reference`: `[B, C, H, W]` in [-1, 1] · returns: the same
///
/// # Errors
/// Images of another size than the filter's; an error of the network, the noise source or the callback.
pub fn ilvr(
    diffusion: &Diffusion,
    denoiser: &dyn Denoiser,
    reference: &Tensor,
    options: &Ilvr,
    noise: &mut dyn NoiseSource,
    callback: &mut StepCallback<'_>,
) -> Result<Tensor> {
    let total = diffusion.n_steps();
    let mut x = noise.normal(0, reference)?;
    for (done, t) in (0..total).rev().enumerate() {
        let prediction = diffusion.predict(denoiser, &x, &vec![t; x.dim(0)?])?;
        let z = noise.normal(1 + 2 * done, &x)?;
        let Stepped { mut next, x0 } =
            ddpm_step(diffusion, &prediction, &x, t, options.clip, Some(&z))?;
        if t > options.free {
            let e = noise.normal(2 + 2 * done, &x)?;
            let followed = diffusion.q_sample(reference, &vec![t - 1; x.dim(0)?], &e)?;
            next = (&next + options.low_pass.apply(&(followed - &next)?)?)?;
        }
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
