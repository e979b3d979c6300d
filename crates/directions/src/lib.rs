//! Trains edits: a direction on the deepest features of a diffusion model that stays unchanged (Asyrp), or a copy of the whole model
//! (DiffusionCLIP).
//!
//! A run is a [`DirectionPlan`] or a [`TuningPlan`] in and a run folder out, as in [`sdft_train`]; the loop, the checkpoints and the logs
//! are those of that crate. A step is a whole trajectory. Asyrp updates the block at every step of the sampler, DiffusionCLIP updates the
//! model once for a trajectory, or at every step too.
//!
//! # Example: a plan is checked before anything happens
//! ```
//! use sdft_directions::{DirectionPlan, TuningPlan};
//! use sdft_train::RunPlan;
//!
//! assert_eq!(DirectionPlan::default().validate().unwrap_err().key, "source");
//! assert_eq!(TuningPlan::default().validate().unwrap_err().key, "source");
//! ```
//!
//! **Invariant:** the original model never changes; a trajectory counts as a whole or not at all.

pub use crate::{
    plan::{
        DirectionData, DirectionLoop, DirectionOutput, DirectionPlan, EditMethod, GoalPlan,
        WalkPlan,
    },
    train::{DirectionSetup, train_direction},
    tuning::{TuningSetup, tune_model},
    tuning_plan::{TuningLoop, TuningPlan, TuningWalk, UpdateEach},
};

mod check;
mod inverted;
mod plan;
mod train;
mod tuning;
mod tuning_plan;
