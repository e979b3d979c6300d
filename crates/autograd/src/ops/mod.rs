//! The kernels as differentiable operations on tensors.

// Each operation is written once, as an [`op::Op`]; it becomes part of candle's graph or of a tape, on either device. candle's own
// convolutions, fused normalisations and resampling are not used: they lose gradients without an error or have slow backward passes.

mod attention;
mod channels;
mod conv2d;
mod conv2d_gradients;
mod dense;
mod dropout;
mod elementwise;
mod embedding;
mod filter;
mod heads;
mod linears;
mod modulate;
mod norm_act;
#[cfg(feature = "cuda")]
mod norm_act_gpu;
mod op;
mod pool;
mod resample;
mod separable;
mod token;

pub(crate) use elementwise::add_gradients;
pub use {
    attention::attention,
    channels::{add_per_channel, concat},
    conv2d::{
        conv2d, conv2d_joined, conv2d_onto, conv2d_padded, conv2d_unbiased, linear, pointwise,
        pointwise_onto,
    },
    dense::{flatten_space, join_rows, to_dtype, to_nchw, unflatten_space, unpatchify},
    dropout::dropout,
    elementwise::{add, add_scaled, affine, gelu, relu, silu},
    embedding::embedding,
    filter::{resample_filter_down, resample_filter_up},
    heads::heads_apart,
    linears::linears,
    norm_act::{group_norm, group_norm_biased, group_norm_joined, norm_act},
    pool::pool,
    resample::{average_pool_2x, upsample_nearest_2x},
    separable::separable,
    token::{add_gated, token_norm},
};

use candle_core::{CpuStorage, DType, Error, Layout, Result, Tensor, WithDType, bail};

/// The elements of a contiguous CPU tensor.
pub(crate) fn elements<'a, T: WithDType>(
    op: &'static str,
    (storage, layout): (&'a CpuStorage, &Layout),
) -> Result<&'a [T]> {
    let (start, end) = layout
        .contiguous_offsets()
        .ok_or_else(|| Error::Msg(format!("{op}: the input is not contiguous")))?;
    Ok(&storage.as_slice::<T>()?[start..end])
}

/// Fails unless `x` has a floating-point type and the parameters have the same, or f32 where `x` is half precision.
pub(crate) fn check_dtypes(op: &'static str, x: &Tensor, parameters: &[&Tensor]) -> Result<()> {
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
                "{op}: expected parameters of type {} for an input of type {}, found {}",
                wanted.as_str(),
                dtype.as_str(),
                parameter.dtype().as_str()
            );
        }
    }
    Ok(())
}

/// Fails unless all tensors have the same shape and type.
pub(crate) fn check_same(op: &'static str, a: &Tensor, b: &Tensor) -> Result<()> {
    check_dtypes(op, a, &[])?;
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

/// Runs a body for the element type of a storage, f32 or f64: `T` names it inside.
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

/// As [`for_float`], with bf16: `E` names the type of the feature maps, `R` that of the parameters.
macro_rules! for_element {
    ($op:expr, $storage:expr, $E:ident, $R:ident => $body:expr) => {
        match $storage {
            candle_core::CpuStorage::BF16(_) => {
                type $E = half::bf16;
                type $R = f32;
                $body
            }
            other => $crate::ops::for_float!($op, other, $R => {
                type $E = $R;
                $body
            }),
        }
    };
}
pub(crate) use for_element;
