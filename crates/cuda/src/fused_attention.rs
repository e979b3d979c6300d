//! Attention in one kernel that keeps no scores: half precision, heads of up to 128 channels, compute capability 8.0 and later.

use crate::attention::Attention;
use crate::launch::{Arg, File, launch_for};
use crate::part::{Part, empty};
use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::LaunchConfig;
use candle_core::{CudaStorage, DType, Result};

/// Rows of a block.
const ROWS: usize = 64;
/// The widths of heads that kernels exist for; other heads are padded.
const WIDTHS: [usize; 4] = [32, 64, 96, 128];

/// Whether the kernel computes this attention. `SDFT_CUDA_ATTENTION=products` selects matrix products instead.
pub(crate) fn fits(a: &Attention, parts: &[Part<'_>]) -> Result<bool> {
    let width = a.width();
    let (Some(first), true) = (parts.first(), (16..=128).contains(&width)) else {
        return Ok(false);
    };
    // Rows are read 16 bytes at a time.
    let aligned = width.is_multiple_of(8) && parts.iter().all(|part| part.at.is_multiple_of(16));
    if first.dtype == DType::F32 || !aligned || blocks(a).is_none() {
        return Ok(false);
    }
    let products =
        std::env::var_os("SDFT_CUDA_ATTENTION").is_some_and(|wanted| wanted == "products");
    let stream = first.device.cuda_stream();
    let (major, _) = stream.context().compute_capability().w()?;
    Ok(major >= 8 && !products)
}

/// The result `[B, N, C]`.
pub(crate) fn forward(a: &Attention, qkv: Part<'_>) -> Result<CudaStorage> {
    let out = empty(qkv.device, qkv.dtype, a.batch * a.n * a.channels)?;
    let out_at = Part::of(&out, 0)?.at;
    run(a, qkv, "fused_forward", &[qkv.at, out_at, 0, 0, 0])?;
    Ok(out)
}

/// The gradient of the projection.
pub(crate) fn backward(a: &Attention, qkv: Part<'_>, dout: Part<'_>) -> Result<CudaStorage> {
    let rows = a.batch * a.heads * a.n;
    let sums = empty(qkv.device, DType::F32, 2 * rows)?;
    let sums = Part::of(&sums, 2 * rows)?;
    let (lse, delta) = (sums.at, sums.from(rows));
    let dqkv = empty(qkv.device, qkv.dtype, qkv.len)?;
    let to = Part::of(&dqkv, 0)?.at;
    // The forward pass again: its sums are a small part of the work, and would be kept for the whole step.
    run(a, qkv, "fused_forward", &[qkv.at, 0, dout.at, lse, delta])?;
    let addresses = [qkv.at, dout.at, lse, delta, to];
    run(a, qkv, "fused_query_grad", &addresses)?;
    run(a, qkv, "fused_key_grad", &addresses)?;
    Ok(dqkv)
}

/// Blocks of a launch, if a grid can have that many.
fn blocks(a: &Attention) -> Option<u32> {
    let blocks = a.batch * a.heads * a.n.div_ceil(ROWS);
    i32::try_from(blocks).ok()?.try_into().ok()
}

fn run(a: &Attention, on: Part<'_>, kernel: &str, addresses: &[u64]) -> Result<()> {
    let width = a.width();
    let padded = WIDTHS.into_iter().find(|&padded| width <= padded);
    let (head, third) = a.steps();
    let mut args: Vec<Arg> = addresses.iter().map(|&at| Arg::At(at)).collect();
    args.extend([a.n, a.heads, width, head, third].map(Arg::from));
    args.push(a.scale());
    let config = LaunchConfig {
        grid_dim: (blocks(a).unwrap_or(0), 1, 1),
        block_dim: (128, 1, 1),
        shared_mem_bytes: 0,
    };
    let name = format!("{kernel}_{}", padded.unwrap_or(0));
    launch_for(
        on.device,
        (File::FusedAttention, &name, on.dtype),
        config,
        &args,
    )
}
