//! The kernels as differentiable operations on tensors.
//!
//! candle's own convolutions, fused normalisations and resampling either lose gradients without an
//! error or are slow backwards, so nothing in this crate calls them. Each operation is written once, as an [`op::Op`]; it becomes
//! part of candle's graph or of a tape, on either device.

mod attention;
mod channels;
mod conv2d;
mod dense;
mod elementwise;
mod lookup;
mod modulate;
mod norm_act;
mod op;
mod pool;
mod resample;
mod separable;

pub use attention::attention;
pub(crate) use channels::add_per_channel;
pub use channels::concat;
pub(crate) use conv2d::pointwise;
pub use conv2d::{conv2d, linear};
pub(crate) use dense::{flatten_space, unflatten_space};
pub use dense::{to_nchw, to_type};
pub use elementwise::{add, relu, silu};
pub(crate) use elementwise::{add_gradients, mask};
pub use lookup::lookup;
pub(crate) use modulate::modulate;
pub use norm_act::norm_act;
pub(crate) use norm_act::norm_act_of;
pub use pool::pool;
pub use resample::{average_pool_2x, upsample_nearest_2x};
pub use separable::separable;

use crate::kernels::Real;
use candle_core::{CpuStorage, DType, Error, Layout, Result, Tensor, bail};

/// The elements of a contiguous CPU tensor.
pub(crate) fn elements<'a, T: Real>(
    op: &'static str,
    (storage, layout): (&'a CpuStorage, &Layout),
) -> Result<&'a [T]> {
    let (start, end) = layout
        .contiguous_offsets()
        .ok_or_else(|| Error::Msg(format!("{op}: the input is not contiguous")))?;
    Ok(&storage.as_slice::<T>()?[start..end])
}

/// Fails unless `x` is of a floating type and the parameters beside it are of the same, or f32 beside half numbers.
pub(crate) fn check_types(op: &'static str, x: &Tensor, parameters: &[&Tensor]) -> Result<()> {
    let dtype = x.dtype();
    let wanted = match dtype {
        DType::F32 | DType::F64 => dtype,
        DType::BF16 | DType::F16 => DType::F32,
        other => bail!(
            "{op}: expected f32, f64, bf16 or f16, found {}",
            other.as_str()
        ),
    };
    for parameter in parameters {
        if parameter.dtype() != wanted {
            bail!(
                "{op}: expected parameters of type {} beside {}, found {}",
                wanted.as_str(),
                dtype.as_str(),
                parameter.dtype().as_str()
            );
        }
    }
    Ok(())
}

/// Fails unless all tensors have the same shape and type.
fn check_same(op: &'static str, a: &Tensor, b: &Tensor) -> Result<()> {
    check_types(op, a, &[])?;
    if a.shape() != b.shape() || a.dtype() != b.dtype() {
        bail!(
            "{op}: {:?} {} and {:?} {} do not fit",
            a.shape(),
            a.dtype().as_str(),
            b.shape(),
            b.dtype().as_str()
        );
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
