//! Layer norm over channels and gated sums, modulated by an embedding of each image.

use crate::launch::{Arg, File, launch_for, spread};
use crate::part::{Part, empty, memory_shape};
use candle_core::{CudaStorage, DType, Layout, Result, Shape};

type Input<'a> = (&'a CudaStorage, &'a Layout);

/// Tokens `[B, C, N]`, and the parts of the embedding `[B, parts C]` that an operation reads.
#[derive(Clone, Copy, Debug)]
pub struct Tokens {
    /// Channels of a token.
    pub channels: usize,
    /// Tokens of one image.
    pub n: usize,
    /// Parts of the embedding.
    pub parts: usize,
    /// The first part that is read.
    pub first: usize,
}

impl Tokens {
    fn args(&self, elements: usize) -> [Arg; 5] {
        let images = elements / (self.channels * self.n).max(1);
        [
            images.into(),
            self.n.into(),
            self.channels.into(),
            self.parts.into(),
            self.first.into(),
        ]
    }
}

/// `(x - mean) / sqrt(variance + eps) (1 + scale) + shift`, over the channels of each token.
///
/// # Errors
/// A device error.
pub fn token_norm(
    tokens: &Tokens,
    eps: f64,
    (x, layout): Input<'_>,
    (e, e_layout): Input<'_>,
) -> Result<(CudaStorage, Shape)> {
    let x = Part::map("token_norm", x, layout)?;
    let e = Part::contiguous("token_norm", e, e_layout)?;
    let y = empty(x.device, x.dtype, x.len)?;
    let mut args = vec![Arg::At(x.at), Arg::At(e.at), Arg::At(Part::of(&y, 0)?.at)];
    args.extend(tokens.args(x.len));
    args.push(Arg::Double(eps));
    let kernel = (File::Token, "token_norm", x.dtype);
    launch_for(x.device, kernel, warps(tokens, x.len), &args)?;
    Ok((y, memory_shape(layout)))
}

/// The gradients of `x`, in the order of its memory, and of the embedding, one after the other in one flat tensor.
///
/// # Errors
/// A device error.
pub fn token_norm_gradient(
    tokens: &Tokens,
    eps: f64,
    (x, layout): Input<'_>,
    (e, e_layout): Input<'_>,
    (dy, dy_layout): Input<'_>,
) -> Result<(CudaStorage, Shape)> {
    let x = Part::map("token_norm gradient", x, layout)?;
    let e = Part::contiguous("token_norm gradient", e, e_layout)?;
    let dy = Part::map("token_norm gradient", dy, dy_layout)?;
    let n = x.len + e.len;
    let all = empty(x.device, DType::F32, n)?;
    let stats = empty(x.device, DType::F32, 2 * x.len / tokens.channels.max(1))?;
    let (to, stats_at) = (Part::of(&all, n)?, Part::of(&stats, 0)?.at);
    let sizes = tokens.args(x.len);

    let mut args = vec![
        Arg::At(x.at),
        Arg::At(e.at),
        Arg::At(dy.at),
        Arg::At(to.at),
        Arg::At(stats_at),
    ];
    args.extend(sizes);
    args.push(Arg::Double(eps));
    let kernel = (File::Token, "token_norm_grad", x.dtype);
    launch_for(x.device, kernel, warps(tokens, x.len), &args)?;

    let mut args = vec![
        Arg::At(x.at),
        Arg::At(dy.at),
        Arg::At(stats_at),
        Arg::At(to.from(x.len)),
    ];
    args.extend(sizes);
    let kernel = (File::Token, "token_norm_sums", x.dtype);
    launch_for(x.device, kernel, spread(e.len), &args)?;
    Ok((all, n.into()))
}

/// A warp for each token.
fn warps(
    tokens: &Tokens,
    elements: usize,
) -> candle_core::cuda_backend::cudarc::driver::LaunchConfig {
    spread(32 * elements / tokens.channels.max(1))
}

/// `x + gate h`.
///
/// # Errors
/// A device error.
pub fn add_gated(
    tokens: &Tokens,
    (x, layout): Input<'_>,
    (h, h_layout): Input<'_>,
    (e, e_layout): Input<'_>,
) -> Result<(CudaStorage, Shape)> {
    let x = Part::map("add_gated", x, layout)?;
    let h = Part::map("add_gated", h, h_layout)?;
    let e = Part::contiguous("add_gated", e, e_layout)?;
    let y = empty(x.device, x.dtype, x.len)?;
    let mut args = vec![
        Arg::At(x.at),
        Arg::At(h.at),
        Arg::At(e.at),
        Arg::At(Part::of(&y, 0)?.at),
    ];
    args.extend(tokens.args(x.len));
    let kernel = (File::Token, "add_gated", x.dtype);
    launch_for(x.device, kernel, spread(x.len), &args)?;
    Ok((y, memory_shape(layout)))
}

/// The gradients of `h`, in the order of its memory, and of the embedding, one after the other in one flat tensor.
///
/// # Errors
/// A device error.
pub fn add_gated_gradient(
    tokens: &Tokens,
    (h, layout): Input<'_>,
    (e, e_layout): Input<'_>,
    (dy, dy_layout): Input<'_>,
) -> Result<(CudaStorage, Shape)> {
    let h = Part::map("add_gated gradient", h, layout)?;
    let e = Part::contiguous("add_gated gradient", e, e_layout)?;
    let dy = Part::map("add_gated gradient", dy, dy_layout)?;
    let n = h.len + e.len;
    let all = empty(h.device, DType::F32, n)?;
    let to = Part::of(&all, n)?;
    let sizes = tokens.args(h.len);

    let mut args = vec![Arg::At(e.at), Arg::At(dy.at), Arg::At(to.at)];
    args.extend(sizes);
    let kernel = (File::Token, "add_gated_grad", h.dtype);
    launch_for(h.device, kernel, spread(h.len), &args)?;

    let mut args = vec![Arg::At(h.at), Arg::At(dy.at), Arg::At(to.from(h.len))];
    args.extend(sizes);
    let kernel = (File::Token, "add_gated_sums", h.dtype);
    launch_for(h.device, kernel, spread(e.len), &args)?;
    Ok((all, n.into()))
}
