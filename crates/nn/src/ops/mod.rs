//! The kernels as differentiable operations on tensors.
//!
//! candle's own convolutions, fused normalisations and resampling either lose gradients without an
//! error or are slow backwards, so nothing in this crate calls them.

mod add;
mod attention;
mod conv2d;
mod mask;
mod norm_act;
mod pool;
mod release;
mod relu;
mod resample;
mod separable;

pub(crate) use add::add;
pub use attention::attention;
pub use conv2d::{conv2d, linear};
pub(crate) use conv2d::{conv2d_of, pointwise};
pub(crate) use mask::mask;
pub use norm_act::norm_act;
pub(crate) use norm_act::norm_act_of;
pub use pool::pool;
pub use release::release;
pub use relu::relu;
pub use resample::{average_pool_2x, upsample_nearest_2x};
pub use separable::separable;

use crate::kernels::Real;
use candle_core::{CpuStorage, DType, Error, Layout, Result, Tensor};

/// The input of an operation, and whether others read it too.
#[derive(Clone, Copy)]
pub(crate) enum Input<'a> {
    /// Others may.
    Shared(&'a Tensor),
    /// No one else does: its memory is free once the backward pass has been here.
    OnlyHere(&'a Tensor),
}

impl<'a> Input<'a> {
    pub(crate) fn tensor(self) -> &'a Tensor {
        let (Self::Shared(x) | Self::OnlyHere(x)) = self;
        x
    }

    pub(crate) fn is_only_here(self) -> bool {
        matches!(self, Self::OnlyHere(_))
    }
}

/// The elements of a contiguous CPU tensor.
pub(crate) fn elements<'a, T: Real>(
    op: &'static str,
    storage: &'a CpuStorage,
    layout: &Layout,
) -> Result<&'a [T]> {
    let (start, end) = layout
        .contiguous_offsets()
        .ok_or_else(|| Error::Msg(format!("{op}: the input is not contiguous")))?;
    storage
        .as_slice::<T>()?
        .get(start..end)
        .ok_or_else(|| Error::Msg(format!("{op}: the input has been released")))
}

/// Fails unless all tensors have the same floating type, f32 or f64.
pub(crate) fn same_float(op: &'static str, tensors: &[&Tensor]) -> Result<()> {
    let dtype = tensors[0].dtype();
    if !matches!(dtype, DType::F32 | DType::F64) {
        candle_core::bail!("{op}: expected f32 or f64, found {dtype:?}");
    }
    for tensor in tensors {
        if tensor.dtype() != dtype {
            candle_core::bail!("{op}: mixed types {dtype:?} and {:?}", tensor.dtype());
        }
    }
    Ok(())
}

/// Runs a body once for the floating type of a storage: `T` names the type inside.
macro_rules! for_float {
    ($op:expr, $storage:expr, $T:ident => $body:expr) => {
        match $storage {
            candle_core::CpuStorage::F32(_) => {
                type $T = f32;
                $body
            }
            candle_core::CpuStorage::F64(_) => {
                type $T = f64;
                $body
            }
            other => candle_core::bail!(
                "{}: expected f32 or f64, found {:?}",
                $op,
                candle_core::backend::BackendStorage::dtype(other)
            ),
        }
    };
}
pub(crate) use for_float;
