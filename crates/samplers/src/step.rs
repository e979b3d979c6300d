//! What a sampler reports after each step.

use candle_core::{Result, Tensor};

/// A finished step of a trajectory.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// Number of finished steps, this one included.
    pub done: usize,
    /// Number of steps of the trajectory.
    pub total: usize,
    /// The timestep that the step started from; of a sampler with levels of its own, the nearest one.
    pub t: usize,
    /// The state after the step.
    pub x: &'a Tensor,
    /// The clean image predicted in this step.
    pub x0: &'a Tensor,
}

/// Called after every step; an error stops the sampler.
pub type StepCallback<'a> = dyn FnMut(&Step<'_>) -> Result<()> + 'a;

/// The result of one step.
#[derive(Clone, Debug)]
pub struct Stepped {
    /// The state that the step leads to.
    pub next: Tensor,
    /// The clean image predicted in this step.
    pub x0: Tensor,
}
