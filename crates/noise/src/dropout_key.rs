/// Where in a training run a batch stands; dropout masks are a pure function of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DropoutKey<'a> {
    /// The seed of the run.
    pub seed: u64,
    /// The optimiser step.
    pub step: u64,
    /// For each sample of the batch its number within the step, below 2^24.
    pub samples: &'a [u64],
}
