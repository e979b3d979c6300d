//! Functions of a network whose work on a GPU is recorded and launched again as a whole.

// A small network is limited by the hundreds of launches of a call, which take the host longer than the GPU takes to compute. A graph of
// CUDA's is one launch.

use candle_core::{Result, Tensor};
#[cfg(feature = "cuda")]
use std::sync::{Mutex, PoisonError};

#[cfg(feature = "cuda")]
mod call;
#[cfg(feature = "cuda")]
mod recorded;
#[cfg(feature = "cuda")]
mod replay;
#[cfg(feature = "cuda")]
mod trained;

/// What a network has recorded of one of its functions. A copy has recorded nothing.
///
/// On the CPU, and in builds without the feature `cuda`, nothing is recorded.
#[derive(Default)]
pub struct Graphs {
    #[cfg(feature = "cuda")]
    recorded: Mutex<recorded::Recorded>,
}

impl Clone for Graphs {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl std::fmt::Debug for Graphs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Graphs")
    }
}

impl Graphs {
    /// `f(x, others)` inside [`crate::taped`] or [`crate::no_grad`], where `x` is a map `[B, C, H, W]`.
    ///
    /// `repeats` states that `f` is the same function in all such calls: of its arguments, and of parameters that are only changed in
    /// place. The first call of a shape runs it. On a GPU with `SDFT_CUDA_GRAPHS=1`, after [`sdft_cuda::allow_recording`], the second call
    /// records its work, and later calls launch the recording; where gradients are needed, the backward pass has its own. The first two
    /// launches are compared with `f` and its gradients. If a bit differs, or the work cannot be recorded, all calls of this shape run `f`.
    /// So do calls with more than 2^18 pixels, or 2^17 with gradients, which are not limited by launches, and a call while another one
    /// still waits for its backward pass.
    ///
    /// # Shapes
    /// - returns: that of `f`
    ///
    /// # Errors
    /// Those of `f`.
    pub fn run(
        &self,
        x: &Tensor,
        others: &[Tensor],
        repeats: bool,
        f: impl Fn(&Tensor, &[Tensor]) -> Result<Tensor>,
    ) -> Result<Tensor> {
        #[cfg(feature = "cuda")]
        if repeats && let Some(call) = call::Call::new(x, others)? {
            let mut recorded = self.recorded.lock().unwrap_or_else(PoisonError::into_inner);
            return recorded.run(&call, &f);
        }
        let _ = repeats;
        f(x, others)
    }
}
