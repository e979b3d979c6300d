//! Group normalisation with scale, shift and SiLU, and its gradient.

use crate::launch::{Arg, File, MOST_ROWS, blocks, lanes, launch, launch_for, spread};
use crate::part::{Part, dims, empty, memory_shape};
use candle_core::cuda_backend::cudarc::driver::LaunchConfig;
use candle_core::{CudaStorage, DType, Layout, Result, Shape};
use std::sync::Arc;

type Input<'a> = (&'a CudaStorage, &'a Layout);

/// What is normalised: a feature map, or two whose channels follow one another, which may lack the bias of their channels.
#[derive(Clone, Copy)]
pub struct NormInput<'a> {
    /// The map, or the first channels.
    pub x: (&'a CudaStorage, &'a Layout),
    /// The other channels.
    pub more: Option<(&'a CudaStorage, &'a Layout)>,
    /// `[C]`, added first.
    pub bias: Option<(&'a CudaStorage, &'a Layout)>,
}

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

/// The addresses and sizes of an input.
struct Maps<'a> {
    x: Part<'a>,
    more: Option<Part<'a>>,
    bias: Option<Part<'a>>,
    /// Channels of `x`.
    split: usize,
    b: usize,
    /// Channels of both maps.
    c: usize,
    positions: usize,
    groups: usize,
    chunks: usize,
    /// In memory order, of both maps.
    shape: Shape,
}

impl<'a> Maps<'a> {
    fn of(norm: &Norm, input: NormInput<'a>) -> Result<Self> {
        let op = "norm_act";
        let (storage, layout) = input.x;
        let x = Part::map(op, storage, layout)?;
        let more = match input.more {
            Some((more, layout)) => Some(Part::map(op, more, layout)?),
            None => None,
        };
        let bias = match input.bias {
            Some((bias, layout)) => Some(Part::contiguous(op, bias, layout)?),
            None => None,
        };
        let (b, split, positions) = dims(layout);
        let others = input.more.map_or(0, |(_, layout)| dims(layout).1);
        // Each image has blocks of its own in the grid's second dimension.
        if b > MOST_ROWS {
            candle_core::bail!("norm_act: expected at most {MOST_ROWS} images, found {b}");
        }
        if more.is_some_and(|more| more.dtype != x.dtype || more.len != b * others * positions) {
            candle_core::bail!("norm_act: expected two maps of one type and size");
        }
        let c = split + others;
        // A few rows of threads per block; a few thousand blocks fill any GPU.
        let rows = (256 / (c / lanes(x.dtype)).clamp(1, 256)).max(1);
        let most = (2048 / b.max(1)).clamp(1, 256);
        let mut shape = memory_shape(layout).into_dims();
        if let Some(channels) = shape.last_mut() {
            *channels = c;
        }
        Ok(Self {
            x,
            more,
            bias,
            split,
            b,
            c,
            positions,
            groups: norm.groups,
            chunks: positions.div_ceil(rows * 8).clamp(1, most),
            shape: shape.into(),
        })
    }

    /// Launches a kernel that takes the input first, and the sizes after `args`, then `last`.
    fn launch(&self, name: &str, config: LaunchConfig, args: &[Arg], last: &[Arg]) -> Result<()> {
        let mut all = vec![Arg::At(self.x.at)];
        if let Some(more) = self.more {
            all.extend([Arg::At(more.at), self.split.into()]);
        }
        all.push(Arg::At(self.bias.map_or(0, |bias| bias.at)));
        all.extend(args);
        all.extend(self.sizes());
        all.extend(last);
        let joined = if self.more.is_some() { "_joined" } else { "" };
        let kernel = (File::Norm, &*format!("{name}{joined}"), self.x.dtype);
        launch_for(self.x.device, kernel, config, &all)
    }

    fn sizes(&self) -> [Arg; 4] {
        [
            self.b.into(),
            self.positions.into(),
            self.c.into(),
            self.groups.into(),
        ]
    }

    /// Blocks of the passes that write a map: pixel blocks by images.
    fn cover(&self) -> LaunchConfig {
        let rows = (256 / (self.c / lanes(self.x.dtype)).clamp(1, 256)).max(1);
        let most = (8192 / self.b.max(1)).max(1);
        blocks(self.positions.div_ceil(rows * 8).clamp(1, most), self.b)
    }

    /// Elements of a map of all channels.
    fn len(&self) -> usize {
        self.b * self.c * self.positions
    }
}

/// `act(a (x - mean) / sqrt(variance + eps) + b)` with `ab` `[2, B, C]`, and the statistics.
///
/// # Errors
/// A device error.
pub fn norm_forward(
    norm: &Norm,
    eps: f64,
    input: NormInput<'_>,
    (ab, ab_layout): Input<'_>,
) -> Result<(CudaStorage, Shape, Statistics)> {
    let maps = Maps::of(norm, input)?;
    let ab = Part::contiguous("norm_act", ab, ab_layout)?;
    let (device, dtype) = (maps.x.device, maps.x.dtype);
    let partial = empty(device, DType::F32, maps.b * maps.chunks * maps.groups * 2)?;
    let statistics = empty(device, DType::F32, maps.b * maps.groups * 2)?;
    let y = empty(device, dtype, maps.len())?;
    let at = |storage| Ok::<_, candle_core::Error>(Arg::At(Part::of(storage, 0)?.at));
    let (partial_at, statistics_at, chunks) = (at(&partial)?, at(&statistics)?, maps.chunks.into());
    maps.launch(
        "norm_partial",
        blocks(maps.chunks, maps.b),
        &[partial_at],
        &[chunks],
    )?;
    maps.launch(
        "norm_finish",
        blocks(maps.b, 1),
        &[partial_at, statistics_at],
        &[chunks, Arg::Double(eps)],
    )?;
    maps.launch(
        "norm_apply",
        maps.cover(),
        &[Arg::At(ab.at), statistics_at, at(&y)?],
        &[Arg::Int(norm.silu.into())],
    )?;
    Ok((y, maps.shape, Statistics(Arc::new(statistics))))
}

/// The gradients of `a` and `b`, `[2, B, C]`, and the two means of each group that the gradient of `x` needs, `[B, G, 2]`, one after the
/// other in one flat tensor.
///
/// # Errors
/// A device error.
pub fn norm_sums(
    norm: &Norm,
    statistics: &Statistics,
    input: NormInput<'_>,
    (ab, ab_layout): Input<'_>,
    (dy, dy_layout): Input<'_>,
) -> Result<(CudaStorage, Shape)> {
    let maps = Maps::of(norm, input)?;
    let dy = Part::map("norm_act gradient", dy, dy_layout)?;
    let ab = Part::contiguous("norm_act gradient", ab, ab_layout)?;
    let device = maps.x.device;
    let channels = maps.b * maps.c;
    let partial = empty(device, DType::F32, channels * maps.chunks * 2)?;
    let n = 2 * channels + 2 * maps.b * maps.groups;
    let sums = empty(device, DType::F32, n)?;
    let (partial_at, to) = (Arg::At(Part::of(&partial, 0)?.at), Part::of(&sums, n)?);
    let statistics_at = Arg::At(Part::of(&statistics.0, 0)?.at);
    maps.launch(
        "norm_grad_partial",
        blocks(maps.chunks, maps.b),
        &[Arg::At(dy.at), Arg::At(ab.at), statistics_at, partial_at],
        &[maps.chunks.into(), Arg::Int(norm.silu.into())],
    )?;
    let mut args = vec![
        partial_at,
        Arg::At(ab.at),
        Arg::At(to.at),
        Arg::At(to.from(2 * channels)),
    ];
    args.extend(maps.sizes());
    args.push(maps.chunks.into());
    let kernel = (File::Norm, "norm_grad_finish");
    launch(device, kernel, blocks(maps.b, 1), &args)?;
    Ok((sums, n.into()))
}

/// The gradient of a map, and its shape in memory order.
type Gradient = (CudaStorage, Shape);

/// The gradients of `x` and of the other channels, from [`norm_sums`], plus the `earlier` ones, which have the shapes and the order of the
/// maps.
///
/// # Errors
/// A device error.
pub fn norm_gradient(
    norm: &Norm,
    statistics: &Statistics,
    input: NormInput<'_>,
    (ab, ab_layout): Input<'_>,
    (dy, dy_layout): Input<'_>,
    (sums, sums_layout): Input<'_>,
    earlier: [Option<Input<'_>>; 2],
) -> Result<(Gradient, Option<Gradient>)> {
    let maps = Maps::of(norm, input)?;
    let dy = Part::map("norm_act gradient", dy, dy_layout)?;
    let ab = Part::contiguous("norm_act gradient", ab, ab_layout)?;
    let sums = Part::contiguous("norm_act gradient", sums, sums_layout)?;
    let mut earlier_at = [Arg::At(0); 2];
    for (at, earlier) in earlier_at.iter_mut().zip(earlier) {
        if let Some((earlier, layout)) = earlier {
            *at = Arg::At(Part::map("norm_act gradient", earlier, layout)?.at);
        }
    }
    let make = |part: Part<'_>| empty(part.device, part.dtype, part.len);
    let (dx, dmore) = (make(maps.x)?, maps.more.map(make).transpose()?);
    let mut args = vec![
        Arg::At(dy.at),
        Arg::At(ab.at),
        Arg::At(Part::of(&statistics.0, 0)?.at),
        Arg::At(sums.from(2 * maps.b * maps.c)),
        earlier_at[0],
    ];
    args.extend(maps.more.map(|_| earlier_at[1]));
    args.push(Arg::At(Part::of(&dx, 0)?.at));
    if let Some(dmore) = &dmore {
        args.push(Arg::At(Part::of(dmore, 0)?.at));
    }
    maps.launch(
        "norm_grad_apply",
        maps.cover(),
        &args,
        &[Arg::Int(norm.silu.into())],
    )?;
    let more_shape = |dmore| Some((dmore, memory_shape(input.more?.1)));
    Ok(((dx, memory_shape(input.x.1)), dmore.and_then(more_shape)))
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
