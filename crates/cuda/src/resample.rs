//! Changes of resolution: upsampling, pooling and separable filters.

use crate::launch::{Arg, File, launch_for, spread};
use crate::part::{Part, channels_last, empty};
use candle_core::{CudaStorage, Layout, Result, Shape};

type Input<'a> = (&'a CudaStorage, &'a Layout);

/// Nearest-neighbour upsampling by two.
///
/// # Errors
/// A device error.
pub fn upsample((x, layout): Input<'_>) -> Result<(CudaStorage, Shape)> {
    let (b, c, h, w) = layout.shape().dims4()?;
    let x = Part::map("upsample", x, layout)?;
    // One thread per position of the input.
    let work = x.len;
    resampled("upsample", x, [b, c, h, w], [2 * h, 2 * w], work, None)
}

/// `factor` times the sum of each 2x2 square.
///
/// # Errors
/// A device error.
pub fn pool2((x, layout): Input<'_>, factor: f32) -> Result<(CudaStorage, Shape)> {
    let (b, c, h, w) = layout.shape().dims4()?;
    let x = Part::map("pool2", x, layout)?;
    let (to, work) = ([h / 2, w / 2], b * c * (h / 2) * (w / 2));
    resampled("pool2", x, [b, c, h, w], to, work, Some(factor))
}

/// The adjoint of [`pool2`] for images of `h x w`.
///
/// # Errors
/// A device error.
pub fn pool2_gradient(
    (dy, layout): Input<'_>,
    h: usize,
    w: usize,
    factor: f32,
) -> Result<(CudaStorage, Shape)> {
    let (b, c, _, _) = layout.shape().dims4()?;
    let dy = Part::map("pool2 gradient", dy, layout)?;
    let (to, work) = ([h, w], b * c * h * w);
    resampled("pool2_grad", dy, [b, c, h, w], to, work, Some(factor))
}

/// Resamples by two with a filter `[K]` in both directions, to a feature map of size `to`: a convolution of stride 2 padded by `pad`, or
/// with `up` its adjoint; times `factor`.
///
/// # Errors
/// A device error.
pub fn filter(
    up: bool,
    (x, layout): Input<'_>,
    filter: Input<'_>,
    pad: usize,
    to: [usize; 2],
    factor: f32,
) -> Result<(CudaStorage, Shape)> {
    let (b, c, h, w) = layout.shape().dims4()?;
    let x = Part::map("resampling filter", x, layout)?;
    let taps = Part::contiguous("resampling filter", filter.0, filter.1)?;
    let n = b * c * to[0] * to[1];
    let y = empty(x.device, x.dtype, n)?;
    let args = [
        Arg::At(x.at),
        Arg::At(taps.at),
        Arg::At(Part::of(&y, n)?.at),
        b.into(),
        h.into(),
        w.into(),
        c.into(),
        to[0].into(),
        to[1].into(),
        taps.len.into(),
        pad.into(),
        Arg::Float(factor),
    ];
    let kernel = if up { "filter_up" } else { "filter_down" };
    launch_for(
        x.device,
        (File::Resample, kernel, x.dtype),
        spread(n / 4),
        &args,
    )?;
    Ok((y, channels_last(b, c, to[0], to[1])))
}

/// Runs a resampling kernel on `x` of `dims`, to a feature map of size `to`.
fn resampled(
    kernel: &str,
    x: Part<'_>,
    [b, c, h, w]: [usize; 4],
    to: [usize; 2],
    work: usize,
    factor: Option<f32>,
) -> Result<(CudaStorage, Shape)> {
    let n = b * c * to[0] * to[1];
    let y = empty(x.device, x.dtype, n)?;
    let mut args = vec![
        Arg::At(x.at),
        Arg::At(Part::of(&y, n)?.at),
        b.into(),
        h.into(),
        w.into(),
        c.into(),
    ];
    args.extend(factor.map(Arg::Float));
    launch_for(
        x.device,
        (File::Resample, kernel, x.dtype),
        spread(work / 4),
        &args,
    )?;
    Ok((y, channels_last(b, c, to[0], to[1])))
}

/// Pooling by windows of `k x k`.
#[derive(Clone, Copy, Debug)]
pub struct Pool {
    /// Side of a window.
    pub k: usize,
    /// Distance between two windows.
    pub stride: usize,
    /// Padding on each side, which is ignored.
    pub pad: usize,
    /// Mean instead of maximum.
    pub mean: bool,
}

impl Pool {
    fn args(&self, (b, c, h, w): (usize, usize, usize, usize)) -> [Arg; 8] {
        [
            b.into(),
            h.into(),
            w.into(),
            c.into(),
            self.k.into(),
            self.stride.into(),
            self.pad.into(),
            Arg::Int(self.mean.into()),
        ]
    }
}

/// The mean or maximum of each window.
///
/// # Errors
/// A device error.
pub fn pool_forward(pool: &Pool, (x, layout): Input<'_>) -> Result<(CudaStorage, Shape)> {
    let (b, c, h, w) = layout.shape().dims4()?;
    let side = |n: usize| (n + 2 * pool.pad - pool.k) / pool.stride + 1;
    let x = Part::map("pool", x, layout)?;
    let n = b * c * side(h) * side(w);
    let y = empty(x.device, x.dtype, n)?;
    let mut args = vec![Arg::At(x.at), Arg::At(Part::of(&y, n)?.at)];
    args.extend(pool.args((b, c, h, w)));
    launch_for(
        x.device,
        (File::Resample, "pool", x.dtype),
        spread(n),
        &args,
    )?;
    Ok((y, channels_last(b, c, side(h), side(w))))
}

/// The gradient of the input of [`pool_forward`].
///
/// # Errors
/// A device error.
pub fn pool_gradient(
    pool: &Pool,
    (x, layout): Input<'_>,
    (dy, dy_layout): Input<'_>,
) -> Result<(CudaStorage, Shape)> {
    let (b, c, h, w) = layout.shape().dims4()?;
    let x = Part::map("pool gradient", x, layout)?;
    let dy = Part::map("pool gradient", dy, dy_layout)?;
    let dx = empty(x.device, x.dtype, x.len)?;
    let mut args = vec![
        Arg::At(x.at),
        Arg::At(dy.at),
        Arg::At(Part::of(&dx, x.len)?.at),
    ];
    args.extend(pool.args((b, c, h, w)));
    launch_for(
        x.device,
        (File::Resample, "pool_grad", x.dtype),
        spread(x.len),
        &args,
    )?;
    Ok((dx, channels_last(b, c, h, w)))
}
