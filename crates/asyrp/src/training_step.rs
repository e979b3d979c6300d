//! The trajectory along which a direction is trained.

use crate::{Mix, edit::descent, edit::times, step::step};
use candle_core::{Result, Tensor};
use sdft_diffusion::BottleneckNet;
use sdft_schedule::Schedule;

/// A step of a trajectory at which a direction is updated.
#[derive(Clone, Copy, Debug)]
pub struct TrainingStep<'a> {
    /// Number of finished steps, this one included.
    pub done: usize,
    /// Number of steps of the trajectory.
    pub total: usize,
    /// The step of the process.
    pub t: usize,
    /// The clean image predicted from the changed features; its graph leads to the blocks.
    pub x0: &'a Tensor,
    /// The clean image that the unchanged model predicts on its own trajectory, without a graph.
    pub origin: &'a Tensor,
}

/// Runs from `latent` down `steps`, with the directions and without. `learn` is called at each step, takes a loss of the two images and
/// updates the blocks' parameters in place.
///
/// The next state is that of the blocks before the update. Each step is a graph of its own, so memory does not grow with their number.
///
/// Source: Asyrp `diffusion_latent.py` `run_training`: one update per step and image; `steps` are those of
/// [`crate::training_sequence`]; from the lowest one the trajectory leads to the clean image at once.
///
/// # Errors
/// Steps that do not ascend or are not of the process; as [`BottleneckNet::predict_edited`]; an error of `learn`.
pub fn training_steps(
    net: &dyn BottleneckNet,
    schedule: &Schedule,
    latent: &Tensor,
    mix: &Mix<'_>,
    steps: &[usize],
    learn: &mut dyn FnMut(&TrainingStep<'_>) -> Result<()>,
) -> Result<()> {
    let (mut x, mut x_origin) = (latent.detach(), latent.detach());
    for (done, (t, levels)) in descent(steps, schedule)?.into_iter().enumerate() {
        let times = times(t, &x)?;
        let both = net.predict_edited(&x, &times, &mut |h, emb| mix.apply(h, emb))?;
        let edited = step(&x, &both.plain.detach(), both.changed(), levels, None)?;
        let unchanged = net.predict(&x_origin, &times)?.detach();
        let origin = step(&x_origin, &unchanged, &unchanged, levels, None)?;
        learn(&TrainingStep {
            done: done + 1,
            total: steps.len(),
            t,
            x0: &edited.x0,
            origin: &origin.x0,
        })?;
        (x, x_origin) = (edited.next.detach(), origin.next);
    }
    Ok(())
}
