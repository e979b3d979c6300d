//! Dense layers of one input, in one launch, and at most three for their gradients.

use crate::launch::{Arg, File, blocks, launch, launch_with};
use crate::part::{Part, empty};
use candle_core::cuda_backend::cudarc::driver::DeviceRepr;
use candle_core::{CudaStorage, DType, Layout, Result, bail};

/// The most layers of one call.
pub const MOST_LINEARS: usize = 64;

/// Rows of one block of threads, and columns of its tile (`kernels/linears.cu`).
const BLOCK_ROWS: usize = 32;
const BLOCK_COLUMNS: usize = 256;
/// Images that a block of threads takes at a time.
const BLOCK_IMAGES: usize = 8;

type Input<'a> = (&'a CudaStorage, &'a Layout);

/// `Layers` of `kernels/linears.cu`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Layers {
    w: [u64; MOST_LINEARS],
    bias: [u64; MOST_LINEARS],
    dy: [u64; MOST_LINEARS],
    dw: [u64; MOST_LINEARS],
    db: [u64; MOST_LINEARS],
    first: [i32; MOST_LINEARS + 1],
    n: i32,
}

// SAFETY: plain numbers in the order and of the sizes that the kernels declare.
unsafe impl DeviceRepr for Layers {}

impl Layers {
    const NONE: Self = Self {
        w: [0; MOST_LINEARS],
        bias: [0; MOST_LINEARS],
        dy: [0; MOST_LINEARS],
        dw: [0; MOST_LINEARS],
        db: [0; MOST_LINEARS],
        first: [0; MOST_LINEARS + 1],
        n: 0,
    };

    /// Layers with these numbers of outputs, and the sum of them.
    fn of(widths: impl IntoIterator<Item = usize>) -> Result<(Self, usize)> {
        let mut layers = Self::NONE;
        let (mut n, mut rows) = (0, 0);
        for width in widths {
            n += 1;
            rows += width;
            if n > MOST_LINEARS {
                bail!("linears: expected at most {MOST_LINEARS} layers");
            }
            layers.first[n] = i32::try_from(rows).map_err(candle_core::Error::wrap)?;
        }
        layers.n = i32::try_from(n).map_err(candle_core::Error::wrap)?;
        Ok((layers, rows))
    }
}

/// The address of a contiguous f32 tensor.
fn at((storage, layout): Input<'_>) -> Result<u64> {
    let part = Part::contiguous("linears", storage, layout)?;
    if part.dtype != DType::F32 {
        bail!("linears: expected f32, found {}", part.dtype.as_str());
    }
    Ok(part.at)
}

/// The address of a weight for this many inputs.
fn weight_at(w: Input<'_>, columns: usize) -> Result<u64> {
    match w.1.dims() {
        &[_, inputs] if inputs == columns => at(w),
        found => bail!("linears: expected a weight for {columns} inputs, found {found:?}"),
    }
}

/// Images and columns of the input.
fn sizes(layout: &Layout) -> Result<(usize, usize)> {
    layout.shape().dims2()
}

/// `x w^T + bias` for each layer, one result after the other in one flat tensor.
///
/// # Shapes
/// - `x`: `[B, E]` · each layer: `w` `[C, E]`, `bias` `[C]` · returns: `[B, C]` for each layer, all f32
///
/// # Errors
/// Other types, more than [`MOST_LINEARS`] layers, or a device error.
pub fn linears(
    (x, layout): Input<'_>,
    parameters: &[[Input<'_>; 2]],
) -> Result<(CudaStorage, usize)> {
    let (images, columns) = sizes(layout)?;
    let (mut layers, rows) = Layers::of(parameters.iter().map(|[w, _]| w.1.dims()[0]))?;
    for (i, &[w, bias]) in parameters.iter().enumerate() {
        if bias.1.dims() != &w.1.dims()[..1] {
            bail!("linears: a bias does not fit its layer");
        }
        (layers.w[i], layers.bias[i]) = (weight_at(w, columns)?, at(bias)?);
    }
    let n = images * rows;
    let y = empty(&x.device, DType::F32, n)?;
    let args = [
        Arg::At(at((x, layout))?),
        Arg::At(Part::of(&y, n)?.at),
        images.into(),
        columns.into(),
        rows.into(),
    ];
    let grid = blocks(rows.div_ceil(BLOCK_ROWS), images.div_ceil(BLOCK_IMAGES));
    launch_with(
        &x.device,
        (File::Linears, "linears"),
        grid,
        Some(&layers),
        &args,
    )?;
    Ok((y, n))
}

/// Which gradients [`linears_gradients`] computes.
#[derive(Clone, Debug)]
pub struct WantedGradients {
    /// That of the input.
    pub x: bool,
    /// Those of the weight and the bias of each layer.
    pub parameters: Vec<[bool; 2]>,
}

/// Gradients of dense layers of one input.
#[derive(Debug)]
pub struct LinearGradients {
    /// Of the input, `[B, E]`.
    pub x: Option<CudaStorage>,
    /// Of the weight `[C, E]` and the bias `[C]` of each layer.
    pub parameters: Vec<[Option<CudaStorage>; 2]>,
}

/// The gradients of [`linears`], given the weight and the gradient of the result of each layer.
///
/// # Shapes
/// - `x`: `[B, E]` · for each layer: `w` `[C, E]`, `dy` `[B, C]`, and two entries of `wanted`
///
/// # Errors
/// As [`linears`].
pub fn linears_gradients(
    (x, layout): Input<'_>,
    weights_and_dy: &[[Input<'_>; 2]],
    wanted: &WantedGradients,
) -> Result<LinearGradients> {
    let (images, columns) = sizes(layout)?;
    let device = &x.device;
    let widths = weights_and_dy.iter().map(|[w, _]| w.1.dims()[0]);
    let (mut layers, rows) = Layers::of(widths.clone())?;
    let mut parameters = Vec::with_capacity(weights_and_dy.len());
    for (i, (&[w, dy], width)) in weights_and_dy.iter().zip(widths).enumerate() {
        (layers.w[i], layers.dy[i]) = (weight_at(w, columns)?, at(dy)?);
        let dy_layout = dy.1;
        if dy_layout.dims() != [images, width] || wanted.parameters.len() != weights_and_dy.len() {
            bail!("linears: the gradients do not fit the layers");
        }
        let [dw, db] = wanted.parameters[i];
        let make = |wanted: bool, len| wanted.then(|| empty(device, DType::F32, len)).transpose();
        let made = [make(dw, width * columns)?, make(db, width)?];
        let address = |made: &Option<CudaStorage>| match made {
            Some(made) => Ok(Part::of(made, 0)?.at),
            None => Ok::<_, candle_core::Error>(0),
        };
        (layers.dw[i], layers.db[i]) = (address(&made[0])?, address(&made[1])?);
        parameters.push(made);
    }
    let sizes: [Arg; 3] = [images.into(), columns.into(), rows.into()];
    if parameters.iter().flatten().any(Option::is_some) {
        let [b, e, rows_arg] = sizes;
        launch_with(
            device,
            (File::Linears, "linears_weight_grad"),
            blocks(rows.div_ceil(BLOCK_ROWS), columns.div_ceil(BLOCK_COLUMNS)),
            Some(&layers),
            &[Arg::At(at((x, layout))?), b, e, rows_arg],
        )?;
    }
    let x = match wanted.x {
        true => Some(input_gradient(x, &layers, [images, columns, rows])?),
        false => None,
    };
    Ok(LinearGradients { x, parameters })
}

/// Sums over chunks of rows, and the sum of these.
fn input_gradient(
    x: &CudaStorage,
    layers: &Layers,
    [images, columns, rows]: [usize; 3],
) -> Result<CudaStorage> {
    // Short chunks where there would be too few to fill a GPU.
    let chunk = if rows > 4096 { 128 } else { 32 };
    let (chunks, n) = (rows.div_ceil(chunk), images * columns);
    let partial = empty(&x.device, DType::F32, chunks * n)?;
    let dx = empty(&x.device, DType::F32, n)?;
    let at = Part::of(&partial, 0)?.at;
    launch_with(
        &x.device,
        (File::Linears, "linears_input_grad_partial"),
        blocks(chunks, columns.div_ceil(BLOCK_COLUMNS)),
        Some(layers),
        &[
            Arg::At(at),
            images.into(),
            columns.into(),
            rows.into(),
            chunk.into(),
        ],
    )?;
    launch(
        &x.device,
        (File::Rows, "column_sum_finish"),
        blocks(n.div_ceil(32), 1),
        &[
            Arg::At(at),
            Arg::At(Part::of(&dx, 0)?.at),
            n.into(),
            chunks.into(),
        ],
    )?;
    Ok(dx)
}
