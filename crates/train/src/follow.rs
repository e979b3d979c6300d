//! The part of a process that does not lead: its share of every batch, and nothing else.

use crate::drive::to_tensor;
use crate::error::{Result, TrainError};
use crate::learner::{Learner, PendingStep};
use crate::plan::Plan;
use crate::run::{batches, learner};
use crate::snapshot::{Position, Snapshot, Tensors};
use candle_core::Device;
use sdft_data::{ImageSource, Prefetcher};
use sdft_nn::Params;
use sdft_parallel::{Command, ProcessGroup};
use std::path::PathBuf;
use std::sync::Arc;

/// What a process that follows works with.
pub struct Follower {
    /// The plan of the process that leads.
    pub plan: Plan,
    /// The source model's weights, unless the method is `scratch`.
    pub source: Option<Params>,
    /// The images.
    pub data: Arc<dyn ImageSource>,
    /// Where it computes.
    pub device: Device,
    /// The others.
    pub peers: Arc<ProcessGroup>,
}

/// Does its share of each step until the process that leads says that there are no more.
///
/// # Errors
/// A process that has gone, or rank 0 cannot go on; whatever the network fails with.
pub fn follow(follower: Follower) -> Result<()> {
    let Follower {
        plan,
        source,
        data,
        device,
        peers,
    } = follower;
    plan.validate()?;
    let (_, mut learner) = learner(&plan, source, &device, &peers)?;
    let mut position = Position::default();
    share_start(&peers, &mut learner, &mut position)?;
    let mut prefetch = Prefetcher::new(batches(&plan, data)?, position.step);
    let mut step = position.step;
    let mut waiting: Option<PendingStep> = None;
    loop {
        match peers.next_command()? {
            Command::Step => {}
            Command::End => break,
        }
        let batch = prefetch.next()?;
        let issued = learner.issue(step, &to_tensor(&batch, &device)?)?;
        // A step at a time is ahead of what is known; what it did, the process that leads says.
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

/// Everything that moves, and where it is, from the process that leads to all others.
pub(crate) fn share_start(
    peers: &ProcessGroup,
    learner: &mut Learner,
    position: &mut Position,
) -> Result<()> {
    let own = learner.state(position)?;
    let broken = |problem: String| TrainError::ProcessGroup(problem);
    let text = serde_json::to_vec(position).map_err(|error| broken(error.to_string()))?;
    let text = peers.broadcast(text)?;
    let share = |tensors: &Tensors| peers.broadcast_tensors(tensors);
    let tensors = [
        share(&own.weights)?,
        share(&own.ema)?,
        share(&own.optimizer)?,
    ];
    if peers.is_leader() {
        return Ok(());
    }
    *position = serde_json::from_slice(&text).map_err(|error| broken(error.to_string()))?;
    let snapshot = Snapshot {
        path: PathBuf::from("the process that leads"),
        position: position.clone(),
        tensors: tensors.map(|part| part.into_iter().collect()),
    };
    let device = learner.device();
    learner.restore(snapshot, &device)
}
