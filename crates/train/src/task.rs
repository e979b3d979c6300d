//! What the training loop asks of the thing that is trained.

use crate::checkpoint::{Checkpoint, Position, TrainingState};
use crate::error::Result;
use crate::log::Log;
use crate::progress::Progress;
use candle_core::Tensor;
use sdft_data::Batch;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The result of a step.
#[derive(Clone, Debug, PartialEq)]
pub enum StepOutcome {
    /// The weights moved. Terms of the loss and the gradient's norm, by name.
    Updated(Vec<(&'static str, f64)>),
    /// The named number was not finite, so nothing moved.
    Skipped(&'static str),
    /// The user stopped the run within the step. Nothing moved, and a resumed run repeats the step.
    Stopped,
    /// The device is still computing. [`Task::poll`] returns the outcome.
    Pending,
}

/// The files of a finished run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// The model: the averaged weights.
    pub model: PathBuf,
    /// What shows how good it is: the last grid of samples, or the table of accuracies.
    pub shown: PathBuf,
}

/// Something that [`drive`](crate::drive) can train: it takes steps, and saves and restores its state.
///
/// The loop adds everything else: batches, guards against NaN, logs, checkpoints, resuming, stopping.
pub trait Task {
    /// Fails if a parameter gets no gradient. `images` are the first few of the first batch.
    ///
    /// # Errors
    /// [`TrainError::Audit`](crate::TrainError::Audit), or the network fails.
    fn audit(&mut self, images: &Tensor) -> Result<()>;

    /// Continues from a checkpoint.
    ///
    /// # Errors
    /// The checkpoint does not fit.
    fn restore(&mut self, checkpoint: Checkpoint) -> Result<()>;

    /// Is called once before the first step. `position` is where the run starts.
    ///
    /// # Errors
    /// The preparation fails.
    fn begin(&mut self, position: &mut Position, progress: &mut dyn Progress) -> Result<()> {
        let _ = (position, progress);
        Ok(())
    }

    /// Step number `step`, counted from 0, on the images `x0` of `batch`.
    ///
    /// # Errors
    /// The network or the device fails.
    fn step(&mut self, step: u64, x0: &Tensor, batch: &Batch) -> Result<StepOutcome>;

    /// Waits for the oldest pending step. A task that never returns [`StepOutcome::Pending`] needs no own version.
    ///
    /// # Errors
    /// The device fails.
    fn poll(&mut self) -> Result<StepOutcome> {
        Ok(StepOutcome::Stopped)
    }

    /// Whether [`Self::evaluate`] has work to do after `steps` steps.
    fn is_due(&self, steps: u64) -> bool {
        let _ = steps;
        false
    }

    /// The learning rate of step `step`.
    fn learning_rate(&self, step: u64) -> f64;

    /// Is called after every step with finite numbers; measures how good the model is if that is due.
    ///
    /// # Errors
    /// The evaluation fails.
    fn evaluate(
        &mut self,
        position: &mut Position,
        log: &mut Log,
        progress: &mut dyn Progress,
    ) -> Result<()> {
        let _ = (position, log, progress);
        Ok(())
    }

    /// Whether the run ends early, because more steps would not improve the model.
    fn is_over(&self, position: &Position) -> bool {
        let _ = position;
        false
    }

    /// Draws samples of the model after `steps` steps and returns the path of the picture.
    ///
    /// # Errors
    /// The samples cannot be drawn or written.
    fn draw_samples(&mut self, steps: u64, progress: &mut dyn Progress) -> Result<Option<PathBuf>> {
        let _ = (steps, progress);
        Ok(None)
    }

    /// The tensors of a checkpoint. What else it must hold goes into `position`.
    ///
    /// # Errors
    /// The device fails.
    fn state(&mut self, position: &mut Position) -> Result<TrainingState>;

    /// The metadata of the files of weights.
    ///
    /// # Errors
    /// The metadata cannot be written as JSON.
    fn metadata(&self, position: &Position) -> Result<BTreeMap<String, String>>;

    /// Is called after a checkpoint was written.
    ///
    /// # Errors
    /// The file system fails.
    fn saved(&mut self, position: &Position) -> Result<()> {
        let _ = position;
        Ok(())
    }

    /// Writes the finished model.
    ///
    /// # Errors
    /// The file system fails.
    fn finish(&mut self, position: &Position, progress: &mut dyn Progress) -> Result<Finished>;
}
