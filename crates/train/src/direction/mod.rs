//! What moves features from one text to another: Asyrp's training.

mod plan;
mod run;

pub use plan::{DirectionData, DirectionLoop, DirectionOutput, DirectionPlan, GoalPlan, WalkPlan};
pub use run::{DirectionSetup, train_direction};
