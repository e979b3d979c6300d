use crate::LowPass;
use candle_core::{Result, Tensor};
use sdft_diffusion::{Clip, Denoiser, Diffusion};
use sdft_samplers::{NoiseSource, Observer, Step, ddpm_step};

/// How long a reference is followed, and on what scale.
#[derive(Clone, Debug)]
pub struct Ilvr {
    /// What of the reference is followed.
    pub low_pass: LowPass,
    /// The reference is followed in steps above this one; from there on the model is free (`range_t` of ILVR's script).
    pub free: usize,
    /// Whether predicted clean images are clamped.
    pub clip: Clip,
}

/// Ancestral sampling from noise whose coarse image follows a reference.
///
/// Source: the paper of ILVR, Alg. 1: after each step the low-passed state gives way to that of the reference at the same noise level.
/// Draws are taken in this order: the starting noise, then for each step the step's own and the reference's, used or not.
///
/// # Shapes
/// - `reference`: `[B, C, H, W]` in [-1, 1] · returns: the same
///
/// # Errors
/// Images of another size than the filter's; whatever the network, the noise source or the observer fails with.
pub fn ilvr(
    diffusion: &Diffusion,
    denoiser: &dyn Denoiser,
    reference: &Tensor,
    options: &Ilvr,
    noise: &mut dyn NoiseSource,
    observer: &mut Observer<'_>,
) -> Result<Tensor> {
    let total = diffusion.n_steps();
    let mut x = noise.normal(0, reference)?;
    for (done, t) in (0..total).rev().enumerate() {
        let prediction = diffusion.predict(denoiser, &x, &vec![t; x.dim(0)?])?;
        let z = noise.normal(1 + 2 * done, &x)?;
        let (mut next, x0) = ddpm_step(diffusion, &prediction, &x, t, options.clip, Some(&z))?;
        if t > options.free {
            let e = noise.normal(2 + 2 * done, &x)?;
            let followed = diffusion.q_sample(reference, &vec![t - 1; x.dim(0)?], &e)?;
            next = (&next + options.low_pass.apply(&(followed - &next)?)?)?;
        }
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
