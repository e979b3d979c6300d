//! The variant that saves memory and time: an update at every step.

use crate::chain::{Tuned, times};
use candle_core::{Result, Tensor};
use sdft_asyrp::{descent, step};
use sdft_diffusion::Denoiser as _;
use sdft_schedule::Schedule;

/// A step of a generation at which the network is updated.
#[derive(Clone, Copy, Debug)]
pub struct TuningStep<'a> {
    /// Number of finished steps, this one included.
    pub done: usize,
    /// Number of steps of the generation.
    pub total: usize,
    /// The step of the process.
    pub t: usize,
    /// The clean image that the network predicts at this step, `[B, C, H, W]`; its graph leads to the variables.
    pub x0: &'a Tensor,
}

/// Generates an image from `latent`. `learn` is called at each step, takes a loss of the predicted clean image and updates the variables
/// in place.
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
    learn: &mut dyn FnMut(&TuningStep<'_>) -> Result<()>,
) -> Result<()> {
    let mut x = latent.detach();
    for (done, (t, levels)) in descent(steps, schedule)?.into_iter().enumerate() {
        let prediction = tuned.predict(&x, &times(t, &x)?)?;
        let stepped = step(&x, &prediction, &prediction, levels, None)?;
        x = stepped.next.detach();
        drop(prediction);
        learn(&TuningStep {
            done: done + 1,
            total: steps.len(),
            t,
            x0: &stepped.x0,
        })?;
    }
    Ok(())
}
