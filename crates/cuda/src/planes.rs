//! Convolutions on copies in PyTorch's order.

use crate::conv::Conv;
use crate::cudnn::Pass;
use crate::maps::{transpose, transpose_to};
use crate::part::{Part, empty};
use candle_core::cuda_backend::CudaDevice;
use candle_core::{DType, Result};

/// Calls `run` with the addresses of copies in PyTorch's order, and puts the result of the pass in place, channels last.
pub(crate) fn on_planes(
    device: &CudaDevice,
    (pass, conv, dtype): (Pass, &Conv, DType),
    at: [u64; 3],
    run: impl FnOnce([u64; 3]) -> Result<()>,
) -> Result<()> {
    let sizes = [
        (conv.batch, conv.c_in, conv.h * conv.w),
        (conv.c_out, conv.c_in, conv.k[0] * conv.k[1]),
        (conv.batch, conv.c_out, conv.out_h() * conv.out_w()),
    ];
    let result = match pass {
        Pass::InputGradient => 0,
        Pass::WeightGradient => 1,
        Pass::Forward => 2,
    };
    let mut copies = Vec::with_capacity(3);
    let mut addresses = [0; 3];
    for (i, (&from, &(n, c, size))) in at.iter().zip(&sizes).enumerate() {
        let len = n * c * size;
        let to = empty(device, dtype, len)?;
        if i != result {
            let part = Part {
                at: from,
                dtype,
                len,
                device,
            };
            transpose(part, &to, dtype, (n, size, c))?;
        }
        addresses[i] = Part::of(&to, len)?.at;
        copies.push(to);
    }
    run(addresses)?;
    let (n, c, size) = sizes[result];
    let back = Part::of(&copies[result], n * c * size)?;
    transpose_to(back, at[result], dtype, (n, c, size))
}
