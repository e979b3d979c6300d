use candle_core::{Result, Tensor};

/// What a sampler shows after each step.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// How many steps are done, this one included.
    pub done: usize,
    /// How many there will be.
    pub total: usize,
    /// The step of the process that was just left.
    pub t: usize,
    /// The state after the step.
    pub x: &'a Tensor,
    /// The clean image predicted in this step.
    pub x0: &'a Tensor,
}

/// Sees every step; an error stops the sampler.
pub type Observer<'a> = dyn FnMut(&Step<'_>) -> Result<()> + 'a;
