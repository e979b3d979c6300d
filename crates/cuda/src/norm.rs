//! Group normalisation with scale, shift and SiLU, and its gradient.

use crate::launch::{Arg, File, MOST_ROWS, blocks, lanes, launch, launch_for, spread};
use crate::part::{Part, dims, empty, memory_shape};
use candle_core::{CudaStorage, DType, Layout, Result, Shape};
use std::sync::Arc;

type Input<'a> = (&'a CudaStorage, &'a Layout);
/// A feature map, and the bias of its channels `[C]` if it has not been added yet.
type Biased<'a> = (Input<'a>, Option<Input<'a>>);

/// The groups and the activation of a norm.
#[derive(Clone, Copy, Debug)]
pub struct Norm {
    /// Groups of channels.
    pub groups: usize,
    /// Whether SiLU follows the affine map.
    pub silu: bool,
}

/// Mean and reciprocal standard deviation of each group of each image, on the device.
#[derive(Clone)]
pub struct Statistics(Arc<CudaStorage>);

struct Sizes {
    b: usize,
    c: usize,
    positions: usize,
    groups: usize,
    chunks: usize,
}

impl Norm {
    fn sizes(&self, layout: &Layout, dtype: DType) -> Result<Sizes> {
        let (b, c, positions) = dims(layout);
        // Each image has blocks of its own in the grid's second dimension.
        if b > MOST_ROWS {
            candle_core::bail!("norm_act: expected at most {MOST_ROWS} images, found {b}");
        }
        // A few rows of threads per block; a few thousand blocks fill any GPU.
        let rows = (256 / (c / lanes(dtype)).clamp(1, 256)).max(1);
        let most = (2048 / b.max(1)).clamp(1, 256);
        Ok(Sizes {
            b,
            c,
            positions,
            groups: self.groups,
            chunks: positions.div_ceil(rows * 8).clamp(1, most),
        })
    }
}

impl Sizes {
    fn args(&self) -> [Arg; 4] {
        [
            self.b.into(),
            self.positions.into(),
            self.c.into(),
            self.groups.into(),
        ]
    }

    /// Blocks of the passes that write a map: pixel blocks by images.
    fn cover(&self, dtype: DType) -> candle_core::cuda_backend::cudarc::driver::LaunchConfig {
        let rows = (256 / (self.c / lanes(dtype)).clamp(1, 256)).max(1);
        let most = (8192 / self.b.max(1)).max(1);
        blocks(self.positions.div_ceil(rows * 8).clamp(1, most), self.b)
    }
}

/// The address of a bias, or null.
fn address(bias: Option<Input<'_>>) -> Result<Arg> {
    let bias = bias
        .map(|(bias, layout)| Part::contiguous("norm_act", bias, layout))
        .transpose()?;
    Ok(Arg::At(bias.map_or(0, |bias| bias.at)))
}

/// `act(a (x - mean) / sqrt(variance + eps) + b)` with `ab` `[2, B, C]`, and the statistics.
///
/// # Errors
/// A device error.
pub fn norm_forward(
    norm: &Norm,
    eps: f64,
    ((x, layout), bias): Biased<'_>,
    (ab, ab_layout): Input<'_>,
) -> Result<(CudaStorage, Shape, Statistics)> {
    let x = Part::map("norm_act", x, layout)?;
    let bias = address(bias)?;
    let ab = Part::contiguous("norm_act", ab, ab_layout)?;
    let s = norm.sizes(layout, x.dtype)?;
    let device = x.device;
    let partial = empty(device, DType::F32, s.b * s.chunks * s.groups * 2)?;
    let statistics = empty(device, DType::F32, s.b * s.groups * 2)?;
    let y = empty(device, x.dtype, x.len)?;
    let [partial_at, statistics_at, y_at] = [&partial, &statistics, &y].map(|p| Part::of(p, 0));
    let (partial_at, statistics_at, y_at) = (partial_at?.at, statistics_at?.at, y_at?.at);

    let mut args = vec![Arg::At(x.at), bias, Arg::At(partial_at)];
    args.extend(s.args());
    args.push(s.chunks.into());
    launch_for(
        device,
        (File::Norm, "norm_partial", x.dtype),
        blocks(s.chunks, s.b),
        &args,
    )?;

    let mut args = vec![
        Arg::At(x.at),
        bias,
        Arg::At(partial_at),
        Arg::At(statistics_at),
    ];
    args.extend(s.args());
    args.extend([s.chunks.into(), Arg::Double(eps)]);
    launch_for(
        device,
        (File::Norm, "norm_finish", x.dtype),
        blocks(s.b, 1),
        &args,
    )?;

    let mut args = vec![
        Arg::At(x.at),
        bias,
        Arg::At(ab.at),
        Arg::At(statistics_at),
        Arg::At(y_at),
    ];
    args.extend(s.args());
    args.push(Arg::Int(norm.silu.into()));
    launch_for(
        device,
        (File::Norm, "norm_apply", x.dtype),
        s.cover(x.dtype),
        &args,
    )?;
    Ok((y, memory_shape(layout), Statistics(Arc::new(statistics))))
}

/// The gradients of `a` and `b`, `[2, B, C]`, and the two means of each group that the gradient of `x` needs, `[B, G, 2]`, one after the
/// other in one flat tensor.
///
/// # Errors
/// A device error.
pub fn norm_sums(
    norm: &Norm,
    statistics: &Statistics,
    ((x, layout), bias): Biased<'_>,
    (ab, ab_layout): Input<'_>,
    (dy, dy_layout): Input<'_>,
) -> Result<(CudaStorage, Shape)> {
    let x = Part::map("norm_act gradient", x, layout)?;
    let bias = address(bias)?;
    let dy = Part::map("norm_act gradient", dy, dy_layout)?;
    let ab = Part::contiguous("norm_act gradient", ab, ab_layout)?;
    let s = norm.sizes(layout, x.dtype)?;
    let device = x.device;
    let partial = empty(device, DType::F32, s.b * s.chunks * s.c * 2)?;
    let n = 2 * s.b * s.c + 2 * s.b * s.groups;
    let sums = empty(device, DType::F32, n)?;
    let (partial_at, to) = (Part::of(&partial, 0)?.at, Part::of(&sums, n)?);
    let statistics_at = Part::of(&statistics.0, 0)?.at;

    let mut args = vec![
        Arg::At(x.at),
        bias,
        Arg::At(dy.at),
        Arg::At(ab.at),
        Arg::At(statistics_at),
        Arg::At(partial_at),
    ];
    args.extend(s.args());
    args.extend([s.chunks.into(), Arg::Int(norm.silu.into())]);
    launch_for(
        device,
        (File::Norm, "norm_grad_partial", x.dtype),
        blocks(s.chunks, s.b),
        &args,
    )?;

    let mut args = vec![
        Arg::At(partial_at),
        Arg::At(ab.at),
        Arg::At(to.at),
        Arg::At(to.from(2 * s.b * s.c)),
    ];
    args.extend(s.args());
    args.push(s.chunks.into());
    launch(
        device,
        (File::Norm, "norm_grad_finish"),
        blocks(s.b, 1),
        &args,
    )?;
    Ok((sums, n.into()))
}

/// The gradient of `x`, from [`norm_sums`], plus `earlier`, which has the shape and the order of `x`.
///
/// # Errors
/// A device error.
pub fn norm_gradient(
    norm: &Norm,
    statistics: &Statistics,
    ((x, layout), bias): Biased<'_>,
    (ab, ab_layout): Input<'_>,
    (dy, dy_layout): Input<'_>,
    (sums, sums_layout): Input<'_>,
    earlier: Option<Input<'_>>,
) -> Result<(CudaStorage, Shape)> {
    let x = Part::map("norm_act gradient", x, layout)?;
    let bias = address(bias)?;
    let dy = Part::map("norm_act gradient", dy, dy_layout)?;
    let ab = Part::contiguous("norm_act gradient", ab, ab_layout)?;
    let sums = Part::contiguous("norm_act gradient", sums, sums_layout)?;
    let earlier = earlier
        .map(|(earlier, layout)| Part::map("norm_act gradient", earlier, layout))
        .transpose()?;
    let s = norm.sizes(layout, x.dtype)?;
    let dx = empty(x.device, x.dtype, x.len)?;
    let mut args = vec![
        Arg::At(x.at),
        bias,
        Arg::At(dy.at),
        Arg::At(ab.at),
        Arg::At(Part::of(&statistics.0, 0)?.at),
        Arg::At(sums.from(2 * s.b * s.c)),
        Arg::At(earlier.map_or(0, |earlier| earlier.at)),
        Arg::At(Part::of(&dx, 0)?.at),
    ];
    args.extend(s.args());
    args.push(Arg::Int(norm.silu.into()));
    launch_for(
        x.device,
        (File::Norm, "norm_grad_apply", x.dtype),
        s.cover(x.dtype),
        &args,
    )?;
    Ok((dx, memory_shape(layout)))
}

/// `[2, B, C]`: `w (1 + scale)` and `bias (1 + scale) + shift`, with scale and shift the halves of `e` `[B, 2 C]`.
///
/// # Errors
/// A device error.
pub fn modulate(
    (w, w_layout): Input<'_>,
    (bias, bias_layout): Input<'_>,
    e: Option<Input<'_>>,
    batch: usize,
) -> Result<(CudaStorage, Shape)> {
    let w = Part::contiguous("modulate", w, w_layout)?;
    let bias = Part::contiguous("modulate", bias, bias_layout)?;
    let e = e
        .map(|(e, layout)| Part::contiguous("modulate", e, layout))
        .transpose()?;
    let c = w.len;
    let ab = empty(w.device, DType::F32, 2 * batch * c)?;
    let args = [
        Arg::At(w.at),
        Arg::At(bias.at),
        Arg::At(e.map_or(0, |e| e.at)),
        Arg::At(Part::of(&ab, 0)?.at),
        batch.into(),
        c.into(),
    ];
    launch(w.device, (File::Norm, "modulate"), spread(batch * c), &args)?;
    Ok((ab, (2, batch, c).into()))
}

/// The gradients of `w`, `bias` and `e`, one after the other in one flat tensor.
///
/// # Errors
/// A device error.
pub fn modulate_gradient(
    (dab, dab_layout): Input<'_>,
    (w, w_layout): Input<'_>,
    (bias, bias_layout): Input<'_>,
    (e, e_layout): Input<'_>,
) -> Result<(CudaStorage, Shape)> {
    let dab = Part::contiguous("modulate gradient", dab, dab_layout)?;
    let w = Part::contiguous("modulate gradient", w, w_layout)?;
    let bias = Part::contiguous("modulate gradient", bias, bias_layout)?;
    let e = Part::contiguous("modulate gradient", e, e_layout)?;
    let (c, batch) = (w.len, e_layout.dims()[0]);
    let n = 2 * c + e.len;
    let all = empty(w.device, DType::F32, n)?;
    let to = Part::of(&all, n)?;
    let args = [
        Arg::At(dab.at),
        Arg::At(w.at),
        Arg::At(bias.at),
        Arg::At(e.at),
        Arg::At(to.from(2 * c)),
        Arg::At(to.at),
        batch.into(),
        c.into(),
    ];
    launch(w.device, (File::Norm, "modulate_grad"), spread(c), &args)?;
    Ok((all, n.into()))
}
