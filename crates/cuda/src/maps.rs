//! Kernels on feature maps: layouts, elements, rows, resampling and pooling.

use crate::launch::{Arg, File, blocks, launch, launch_for, long, spread, suffix};
use crate::part::{Part, channels_last, dims, empty, is_map, memory_shape};
use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::cudarc::driver::LaunchConfig;
use candle_core::{CudaStorage, DType, Layout, Result, Shape};

type Input<'a> = (&'a CudaStorage, &'a Layout);

/// A contiguous copy in this type: a feature map with its channels last; with `planes`, and for everything else, in the order of its
/// dimensions.
///
/// # Errors
/// A type other than f32, bf16 and f16, or a device error.
pub fn dense(
    x: &CudaStorage,
    layout: &Layout,
    dtype: DType,
    planes: bool,
) -> Result<(CudaStorage, Shape)> {
    let rank = layout.dims().len();
    let last = rank >= 3 && is_map(layout)?;
    let (b, c, n) = dims(layout);
    let shape = if planes || rank < 3 {
        layout.shape().clone()
    } else {
        memory_shape(layout)
    };
    if last || layout.is_contiguous() {
        let x = Part::at_start("dense", x, layout)?;
        let y = empty(x.device, dtype, x.len)?;
        // Nothing moves where there is one channel or one position, or the order is right.
        let turns = rank >= 3 && c > 1 && n > 1 && last == planes;
        if turns {
            // From [n, c] to [c, n] or back, image by image.
            let (rows, cols) = if last { (n, c) } else { (c, n) };
            transpose(x, &y, dtype, (b, rows, cols))?;
        } else {
            cast(x, &y, dtype)?;
        }
        return Ok((y, shape));
    }
    // Views with gaps are rare: candle makes them contiguous first.
    let closed = x.to_dtype(layout, x.dtype())?;
    dense(&closed, &Layout::contiguous(layout.shape()), dtype, planes)
}

pub(crate) fn cast(x: Part<'_>, y: &CudaStorage, dtype: DType) -> Result<()> {
    let y = Part::of(y, x.len)?;
    if x.dtype == dtype {
        // A plain copy.
        return copy(x, y.at);
    }
    let name = format!("cast_{}_{}", suffix(x.dtype), suffix(dtype));
    let args = [Arg::At(x.at), Arg::At(y.at), long(x.len)];
    launch(
        x.device,
        (File::Elementwise, &name),
        spread(x.len / 8),
        &args,
    )
}

fn copy(x: Part<'_>, to: u64) -> Result<()> {
    use candle_core::cuda_backend::WrapErr;
    use candle_core::cuda_backend::cudarc::driver::result::memcpy_dtod_async;
    let bytes = x.len * x.dtype.size_in_bytes();
    // SAFETY: both sides have this many elements, and the device has one stream.
    unsafe { memcpy_dtod_async(to, x.at, bytes, x.device.cuda_stream().cu_stream()) }.w()
}

/// `[batch, rows, cols]` to `[batch, cols, rows]`, in another type if asked for.
pub(crate) fn transpose(
    x: Part<'_>,
    y: &CudaStorage,
    dtype: DType,
    sides: (usize, usize, usize),
) -> Result<()> {
    transpose_to(x, Part::of(y, x.len)?.at, dtype, sides)
}

/// [`transpose`] to an address.
pub(crate) fn transpose_to(
    x: Part<'_>,
    to: u64,
    dtype: DType,
    (batch, rows, cols): (usize, usize, usize),
) -> Result<()> {
    let name = format!("transpose_{}_{}", suffix(x.dtype), suffix(dtype));
    let side = |n: usize| u32::try_from(n.clamp(1, 65535)).unwrap_or(65535);
    let config = LaunchConfig {
        grid_dim: (
            u32::try_from(cols.div_ceil(32).max(1)).unwrap_or(u32::MAX),
            side(rows.div_ceil(32)),
            side(batch),
        ),
        block_dim: (32, 8, 1),
        shared_mem_bytes: 0,
    };
    let args = [
        Arg::At(x.at),
        Arg::At(to),
        batch.into(),
        rows.into(),
        cols.into(),
    ];
    launch(x.device, (File::Layout, &name), config, &args)
}

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

/// Concatenates the channels of `a` and `b`.
///
/// # Errors
/// A device error.
pub fn concat(a: Input<'_>, b: Input<'_>) -> Result<(CudaStorage, Shape)> {
    let (batch, left, h, w) = a.1.shape().dims4()?;
    let right = b.1.dims()[1];
    let (a, b) = (
        Part::map("concat", a.0, a.1)?,
        Part::map("concat", b.0, b.1)?,
    );
    let (rows, n) = (batch * h * w, a.len + b.len);
    let y = empty(a.device, a.dtype, n)?;
    let args = [
        Arg::At(a.at),
        Arg::At(b.at),
        Arg::At(Part::of(&y, n)?.at),
        long(rows),
        left.into(),
        right.into(),
    ];
    launch_for(
        a.device,
        (File::Layout, "cat", a.dtype),
        spread(n / 4),
        &args,
    )?;
    Ok((y, channels_last(batch, left + right, h, w)))
}

/// `n` channels from `first` on.
///
/// # Errors
/// A device error.
pub fn channels((x, layout): Input<'_>, first: usize, n: usize) -> Result<(CudaStorage, Shape)> {
    let (b, c, h, w) = layout.shape().dims4()?;
    let x = Part::map("channels", x, layout)?;
    let rows = b * h * w;
    let y = empty(x.device, x.dtype, rows * n)?;
    let args = [
        Arg::At(x.at),
        Arg::At(Part::of(&y, rows * n)?.at),
        long(rows),
        c.into(),
        first.into(),
        n.into(),
    ];
    launch_for(
        x.device,
        (File::Layout, "slice", x.dtype),
        spread(rows * n / 4),
        &args,
    )?;
    Ok((y, channels_last(b, n, h, w)))
}

/// `x + e` with one f32 number per image and channel.
///
/// # Errors
/// A device error.
pub fn add_per_channel((x, layout): Input<'_>, e: Input<'_>) -> Result<(CudaStorage, Shape)> {
    let (b, c, n) = dims(layout);
    let x = Part::map("add_per_channel", x, layout)?;
    let e = Part::contiguous("add_per_channel", e.0, e.1)?;
    let y = empty(x.device, x.dtype, x.len)?;
    let args = [
        Arg::At(x.at),
        Arg::At(e.at),
        Arg::At(Part::of(&y, x.len)?.at),
        long(b),
        long(n),
        c.into(),
    ];
    launch_for(
        x.device,
        (File::Rows, "bias_add_images", x.dtype),
        spread(x.len / 4),
        &args,
    )?;
    Ok((y, memory_shape(layout)))
}

/// The sum of each plane, `[B, C]` f32.
///
/// # Errors
/// A device error.
pub fn plane_sums((x, layout): Input<'_>) -> Result<(CudaStorage, Shape)> {
    let (b, c, n) = dims(layout);
    let x = Part::map("plane sums", x, layout)?;
    let out = empty(x.device, DType::F32, b * c)?;
    let args = [
        Arg::At(x.at),
        Arg::At(Part::of(&out, b * c)?.at),
        long(b),
        long(n),
        c.into(),
    ];
    launch_for(
        x.device,
        (File::Rows, "image_sum", x.dtype),
        blocks(c.div_ceil(32), b),
        &args,
    )?;
    Ok((out, (b, c).into()))
}

/// The sum over images and positions of each of `c` channels, f32.
///
/// # Errors
/// A device error.
pub fn column_sum((x, layout): Input<'_>, c: usize) -> Result<CudaStorage> {
    let x = Part::map("column sum", x, layout)?;
    let rows = x.len / c.max(1);
    // Enough chunks to fill a GPU, but long enough that the first step dominates.
    let chunks = rows.div_ceil(256).clamp(1, 512);
    let partial = empty(x.device, DType::F32, chunks * c)?;
    let out = empty(x.device, DType::F32, c)?;
    let at = Part::of(&partial, chunks * c)?.at;
    let args = [
        Arg::At(x.at),
        Arg::At(at),
        long(rows),
        c.into(),
        chunks.into(),
    ];
    launch_for(
        x.device,
        (File::Rows, "column_sum_partial", x.dtype),
        blocks(chunks, 1),
        &args,
    )?;
    let args = [
        Arg::At(at),
        Arg::At(Part::of(&out, c)?.at),
        c.into(),
        chunks.into(),
    ];
    launch(
        x.device,
        (File::Rows, "column_sum_finish"),
        blocks(c.div_ceil(32), 1),
        &args,
    )?;
    Ok(out)
}
