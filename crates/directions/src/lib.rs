//! Trains a direction of edits (Asyrp): a block on the deepest features of a diffusion model, which stays unchanged.
//!
//! A run is a [`DirectionPlan`] in and a run folder out, as in [`sdft_train`]; the loop, the checkpoints and the logs are those of that
//! crate. A step is a whole trajectory, in which the block is updated at every step of the sampler.
//!
//! # Example: a plan is checked before anything happens
//! ```
//! use sdft_directions::DirectionPlan;
//! use sdft_train::RunPlan;
//!
//! assert_eq!(DirectionPlan::default().validate().unwrap_err().key, "source");
//! ```
//!
//! **Invariant:** gradients reach the block and nothing else; a trajectory counts as a whole or not at all.

pub use crate::{
    plan::{DirectionData, DirectionLoop, DirectionOutput, DirectionPlan, GoalPlan, WalkPlan},
    train::{DirectionSetup, train_direction},
};

mod plan;
mod train;
