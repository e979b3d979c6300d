//! The variant that saves memory and time: an update at every step.

use crate::chain::{Tuned, times};
use candle_core::{Result, Tensor};
use sdft_asyrp::{descent, step};
use sdft_diffusion::Denoiser as _;
use sdft_schedule::Schedule;

/// Generates an image from `latent`. `learn` is called at each step with the clean image that the network predicts there, `[B, C, H, W]`,
/// whose graph leads to the variables; it takes a loss of this image and updates the variables in place.
///
/// The next state is that of the network before the update, and has no graph, so memory does not grow with the number of steps.
///
/// Source: DiffusionCLIP `diffusionclip.py` `clip_finetune_eff`. There the identity is that of the next state, which has no gradient.
///
/// # Errors
/// Steps that do not ascend or are not of the process; as [`sdft_diffusion::Trainable::predict`]; an error of `learn`.
pub fn tuning_steps(
    tuned: Tuned<'_>,
    schedule: &Schedule,
    latent: &Tensor,
    steps: &[usize],
    learn: &mut dyn FnMut(&Tensor) -> Result<()>,
) -> Result<()> {
    let mut x = latent.detach();
    for (t, levels) in descent(steps, schedule)? {
        let prediction = tuned.predict(&x, &times(t, &x)?)?;
        let stepped = step(&x, &prediction, &prediction, levels, None)?;
        x = stepped.next.detach();
        drop(prediction);
        learn(&stepped.x0)?;
    }
    Ok(())
}
