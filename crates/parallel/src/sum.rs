//! Several tensors in one buffer, and a sum over processes that has begun.

use crate::error::Result;
#[cfg(feature = "nccl")]
use crate::nccl::SumOnGpu;
use candle_core::{Shape, Tensor};

/// A sum over all processes that has begun.
pub(crate) struct Sum {
    shapes: Vec<Shape>,
    total: Total,
}

/// The sum of all tensors in one buffer.
pub(crate) enum Total {
    /// `None` for no tensors.
    Known(Option<Tensor>),
    #[cfg(feature = "nccl")]
    OnGpu(SumOnGpu),
}

impl Sum {
    pub(crate) fn new(shapes: Vec<Shape>, total: Total) -> Self {
        Self { shapes, total }
    }

    /// The sum of each tensor. Work that is queued on the GPU from now on comes after it.
    pub(crate) fn finish(self) -> Result<Vec<Tensor>> {
        let total = match self.total {
            Total::Known(None) => return Ok(Vec::new()),
            Total::Known(Some(total)) => total,
            #[cfg(feature = "nccl")]
            Total::OnGpu(sum) => sum.finish()?,
        };
        let mut start = 0;
        let parts = self.shapes.iter().map(|shape| {
            let n = shape.elem_count();
            let part = total.narrow(0, start, n)?.reshape(shape)?;
            start += padded(n);
            Ok(part)
        });
        parts.collect()
    }
}

/// Each tensor begins at a multiple of four elements, for kernels that read four at a time.
fn padded(n: usize) -> usize {
    n.next_multiple_of(4)
}

/// A buffer of its own with the values of all tensors.
pub(crate) fn flatten(tensors: &[Tensor]) -> candle_core::Result<Tensor> {
    let flat = tensors.iter().map(|tensor| {
        let flat = tensor.detach().flatten_all()?;
        let gap = padded(flat.elem_count()) - flat.elem_count();
        flat.pad_with_zeros(0, 0, gap)
    });
    let flat = flat.collect::<candle_core::Result<Vec<_>>>()?;
    match &flat[..] {
        [one] => one.copy(),
        several => Tensor::cat(several, 0),
    }
}
