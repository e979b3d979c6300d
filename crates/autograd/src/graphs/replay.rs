//! A recorded call without gradients.

use super::call::{Call, check, fill, like, log};
use crate::no_grad;
use candle_core::{Result, Tensor};
use sdft_cuda::Recording;

/// A recording with the memory that it reads and writes.
pub(super) struct Replay {
    recording: Recording,
    inputs: Vec<Tensor>,
    output: Tensor,
    launches: u64,
}

impl Replay {
    /// Records `f`, and compares its first launch with the result `y` of this call.
    pub(super) fn new(
        call: &Call<'_>,
        y: &Tensor,
        f: &impl Fn(&Tensor, &[Tensor]) -> Result<Tensor>,
    ) -> Result<Self> {
        let inputs = call.inputs().map(like);
        let inputs = inputs.collect::<Result<Vec<_>>>()?;
        let output = like(y)?;
        // Loads the kernel of such copies, which a recording cannot.
        fill(&like(y)?, y)?;
        let recording = Recording::new(call.device(), || {
            let y = no_grad(|| f(&inputs[0], &inputs[1..]))?;
            fill(&output, &y)
        })?;
        let mut replay = Self {
            recording,
            inputs,
            output,
            launches: 0,
        };
        check(&replay.run(call)?, y)?;
        Ok(replay)
    }

    /// The result for the inputs of a call.
    pub(super) fn run(&mut self, call: &Call<'_>) -> Result<Tensor> {
        for (to, x) in self.inputs.iter().zip(call.inputs()) {
            fill(to, x)?;
        }
        self.recording.launch()?;
        self.launches += 1;
        self.output.copy()
    }
}

impl Drop for Replay {
    fn drop(&mut self) {
        let (parts, launches) = (self.recording.parts(), self.launches);
        let shape = self.inputs[0].dims();
        log(shape, &format!("{parts} parts, launched {launches} times"));
    }
}
