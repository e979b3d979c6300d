//! Kernels on feature maps: layouts, elements and rows.

use crate::launch::{Arg, File, blocks, launch, launch_for, long, spread, suffix};
use crate::part::{Part, channels_last, dims, empty, is_map, memory_shape};
use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::cudarc::driver::LaunchConfig;
use candle_core::{CudaStorage, DType, Layout, Result, Shape, bail};

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

/// `silu` or `relu`.
///
/// # Errors
/// A device error.
pub fn elementwise(kernel: &str, (x, layout): Input<'_>) -> Result<(CudaStorage, Shape)> {
    let x = Part::at_start(kernel, x, layout)?;
    let y = empty(x.device, x.dtype, x.len)?;
    let args = [Arg::At(x.at), Arg::At(Part::of(&y, x.len)?.at), long(x.len)];
    launch_for(
        x.device,
        (File::Elementwise, kernel, x.dtype),
        spread(x.len / 4),
        &args,
    )?;
    Ok((y, memory_shape(layout)))
}

/// `add`, `mul`, `silu_grad` or `relu_grad` of two tensors of one layout; the result has the type of the first.
///
/// # Errors
/// Layouts that differ, or a device error.
pub fn pairwise(kernel: &str, a: Input<'_>, b: Input<'_>) -> Result<(CudaStorage, Shape)> {
    if a.1.stride() != b.1.stride() && is_map(a.1)? != is_map(b.1)? {
        bail!("{kernel}: expected two tensors of the same layout");
    }
    let (x, y) = (
        Part::at_start(kernel, a.0, a.1)?,
        Part::at_start(kernel, b.0, b.1)?,
    );
    let out = empty(x.device, x.dtype, x.len)?;
    let args = [
        Arg::At(x.at),
        Arg::At(y.at),
        Arg::At(Part::of(&out, x.len)?.at),
        long(x.len),
    ];
    launch_for(
        x.device,
        (File::Elementwise, kernel, x.dtype),
        spread(x.len / 4),
        &args,
    )?;
    Ok((out, memory_shape(a.1)))
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

/// Rows of a table `[N, D]`.
///
/// # Errors
/// A device error.
pub fn embedding((table, layout): Input<'_>, rows: &[u32]) -> Result<(CudaStorage, Shape)> {
    let width = layout.dims()[1];
    let table = Part::contiguous("embedding", table, layout)?;
    let y = empty(table.device, table.dtype, rows.len() * width)?;
    let to = Part::of(&y, rows.len() * width)?;
    for (i, &row) in rows.iter().enumerate() {
        let one = Part {
            at: table.from(row as usize * width),
            len: width,
            ..table
        };
        copy(one, to.from(i * width))?;
    }
    Ok((y, (rows.len(), width).into()))
}
