//! A process of another rank than 0: it computes its share of every batch, and nothing else.

use crate::checkpoint::{Checkpoint, Position, Tensors};
use crate::error::{Result, TrainError};
use crate::images::{StepImages, to_tensor};
use crate::learner::Learner;
use crate::outcome::PendingStep;
use crate::plan::Plan;
use crate::run::{MethodInputs, batches, learner};
use crate::source::Source;
use candle_core::Device;
use sdft_data::{ImageSource, Prefetcher};
use sdft_diffusion::Trainable;
use sdft_parallel::{Command, ProcessGroup};
use std::path::PathBuf;
use std::sync::Arc;

/// What a process of another rank than 0 needs.
pub struct Follower<M = toml::Table> {
    /// The plan of rank 0.
    pub plan: Plan<M>,
    /// The network. Its values come from rank 0.
    pub network: Box<dyn Trainable>,
    /// The frozen source model, unless the method is `scratch`.
    pub source: Option<Source>,
    /// The images.
    pub data: Arc<dyn ImageSource>,
    /// What other methods than SDFT need.
    pub methods: MethodInputs,
    /// The device of the network and of the images.
    pub device: Device,
    /// All processes of the run.
    pub group: Arc<ProcessGroup>,
}

/// Computes its share of each step until rank 0 ends the run.
///
/// # Errors
/// A process is disconnected, rank 0 fails, or the network fails.
pub fn follow<M>(follower: Follower<M>) -> Result<()> {
    let Follower {
        plan,
        network,
        source,
        data,
        methods,
        device,
        group,
    } = follower;
    let mut learner = learner(&plan, network, source, methods, &*data, &group)?;
    let mut position = Position::default();
    share_start(&group, &mut learner, &mut position)?;
    let mut prefetch = Prefetcher::new(batches(&plan, data)?, position.step);
    let mut step = position.step;
    let mut waiting: Option<PendingStep> = None;
    loop {
        match group.next_command()? {
            Command::Step => {}
            Command::End => break,
        }
        let batch = prefetch.next()?;
        let images = StepImages::of(&batch, &to_tensor(&batch, &device)?)?;
        let issued = learner.issue(step, images)?;
        // At most one step is pending. Its outcome is for rank 0 to report.
        if let Some(before) = waiting.replace(issued) {
            before.wait()?;
        }
        step += 1;
    }
    if let Some(last) = waiting {
        last.wait()?;
    }
    Ok(())
}

/// Sends the complete state and its position from rank 0 to all others.
pub(crate) fn share_start(
    group: &ProcessGroup,
    learner: &mut Learner,
    position: &mut Position,
) -> Result<()> {
    let own = learner.state(position)?;
    let broken = |problem: String| TrainError::ProcessGroup(problem);
    let text = serde_json::to_vec(position).map_err(|error| broken(error.to_string()))?;
    let text = group.broadcast(text)?;
    let share = |tensors: &Tensors| group.broadcast_tensors(tensors);
    let [weights, ema, optimizer] = [
        share(&own.weights)?,
        share(&own.ema)?,
        share(&own.optimizer)?,
    ];
    if group.is_leader() {
        return Ok(());
    }
    *position = serde_json::from_slice(&text).map_err(|error| broken(error.to_string()))?;
    learner.load(Checkpoint {
        path: PathBuf::from("the state of rank 0"),
        position: position.clone(),
        weights: weights.into_iter().collect(),
        ema: ema.into_iter().collect(),
        optimizer: optimizer.into_iter().collect(),
    })
}
