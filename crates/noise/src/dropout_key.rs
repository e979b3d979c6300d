//! The key of dropout masks.

/// The position of a batch in a training run, which determines its dropout masks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DropoutKey<'a> {
    /// The seed of the run.
    pub seed: u64,
    /// The optimiser step.
    pub step: u64,
    /// For each sample of the batch, its number within the step; below 2^24.
    pub samples: &'a [u64],
}
