//! Convolutions and their gradients: by cuDNN, or as matrix products where the filters are 1x1.

use crate::cudnn::{self, Pass};
use crate::gemm::{Factor, Product};
use crate::launch::{Arg, File, blocks, launch_for, long, spread};
use crate::maps::{cast, transpose};
use crate::part::{Part, channels_last, empty};
use candle_core::{CudaStorage, DType, Layout, Result, Shape};
use std::sync::Arc;

type Input<'a> = (&'a CudaStorage, &'a Layout);

/// The sizes of one convolution; pairs are height and width.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Conv {
    /// Images.
    pub batch: usize,
    /// Channels of the input.
    pub c_in: usize,
    /// Height of the input.
    pub h: usize,
    /// Width of the input.
    pub w: usize,
    /// Channels of the output.
    pub c_out: usize,
    /// Size of the filters.
    pub k: [usize; 2],
    /// Distance between two filter positions.
    pub stride: usize,
    /// Rows and columns of zeros: top, left, bottom, right.
    pub pad: [usize; 4],
}

impl Conv {
    pub(crate) fn out_h(&self) -> usize {
        (self.h + self.pad[0] + self.pad[2] - self.k[0]) / self.stride + 1
    }

    pub(crate) fn out_w(&self) -> usize {
        (self.w + self.pad[1] + self.pad[3] - self.k[1]) / self.stride + 1
    }

    /// Weights between one input and one output channel.
    fn taps(&self) -> usize {
        self.k[0] * self.k[1]
    }

    /// Whether it is a dense layer at each position.
    fn is_dense(&self) -> bool {
        self.k == [1, 1] && self.stride == 1 && self.pad == [0; 4]
    }

    fn inputs(&self) -> usize {
        self.batch * self.c_in * self.h * self.w
    }

    fn outputs(&self) -> usize {
        self.batch * self.c_out * self.out_h() * self.out_w()
    }

    fn weights(&self) -> usize {
        self.c_out * self.c_in * self.taps()
    }

    /// Positions of all images.
    fn rows(&self) -> usize {
        self.batch * self.h * self.w
    }

    fn args(&self) -> [Arg; 12] {
        [
            self.batch.into(),
            self.h.into(),
            self.w.into(),
            self.c_in.into(),
            self.c_out.into(),
            self.k[0].into(),
            self.k[1].into(),
            self.stride.into(),
            self.pad[0].into(),
            self.pad[1].into(),
            self.out_h().into(),
            self.out_w().into(),
        ]
    }
}

/// `w * x` in the type of `x`, plus `bias`, plus with it `sum`, which has the shape and the order of the result; its shape in memory order, and the weights as they were used.
///
/// # Errors
/// A device error.
pub fn conv_forward(
    conv: &Conv,
    (x, layout): Input<'_>,
    (w, w_layout): Input<'_>,
    bias: Option<Input<'_>>,
    sum: Option<Input<'_>>,
) -> Result<(CudaStorage, Shape, Prepared)> {
    let x = Part::map("conv2d", x, layout)?;
    let w = Part::contiguous("conv2d", w, w_layout)?;
    let bias = bias
        .map(|(bias, layout)| Part::contiguous("conv2d", bias, layout))
        .transpose()?;
    let sum = sum
        .map(|(sum, layout)| Part::map("conv2d", sum, layout))
        .transpose()?;
    let n = conv.outputs();
    let y = empty(x.device, x.dtype, n)?;
    let y_at = Part::of(&y, n)?.at;
    let weights = Prepared::of(conv, w, x.dtype)?;
    if conv.is_dense() {
        let product = Product {
            m: conv.rows(),
            n: conv.c_out,
            k: conv.c_in,
            a: Factor::new(x.at, conv.c_in),
            b: Factor::transposed(weights.at(w)?, conv.c_in),
            out: (y_at, conv.c_out),
            dtype: x.dtype,
            out_dtype: x.dtype,
        };
        product.run(x.device)?;
    } else {
        let aligned = Aligned::of(x)?;
        let at = [aligned.at(x)?, weights.at(w)?, y_at];
        if !by_cudnn(Pass::Forward, conv, x, at)? {
            let mut args = vec![Arg::At(at[0]), Arg::At(at[1]), Arg::At(at[2])];
            args.extend(conv.args());
            launch_for(
                x.device,
                (File::Conv, "conv_direct", x.dtype),
                spread(n),
                &args,
            )?;
        }
    }
    if let Some(bias) = bias {
        let args = [
            Arg::At(y_at),
            Arg::At(bias.at),
            Arg::At(sum.map_or(0, |sum| sum.at)),
            long(n / conv.c_out.max(1)),
            conv.c_out.into(),
        ];
        launch_for(
            x.device,
            (File::Rows, "bias_add", x.dtype),
            spread(n / 4),
            &args,
        )?;
    }
    let shape = match layout.dims().len() {
        4 => channels_last(conv.batch, conv.c_out, conv.out_h(), conv.out_w()),
        3 => (conv.batch, conv.w, conv.c_out).into(),
        _ => (conv.batch, conv.c_out).into(),
    };
    Ok((y, shape, weights))
}

/// The gradient of the input, which has `rank` dimensions, in the type of `dy`, and its shape in memory order. `prepared` is that of the
/// forward pass, if the weights are still the same.
///
/// # Errors
/// A device error.
pub fn conv_input_gradient(
    conv: &Conv,
    rank: usize,
    (dy, layout): Input<'_>,
    (w, w_layout): Input<'_>,
    prepared: Option<&Prepared>,
) -> Result<(CudaStorage, Shape)> {
    let dy = Part::map("conv2d input gradient", dy, layout)?;
    let w = Part::contiguous("conv2d input gradient", w, w_layout)?;
    let n = conv.inputs();
    let dx = empty(dy.device, dy.dtype, n)?;
    let dx_at = Part::of(&dx, n)?.at;
    let weights = match prepared {
        Some(prepared) => prepared.clone(),
        None => Prepared::of(conv, w, dy.dtype)?,
    };
    if conv.is_dense() {
        let product = Product {
            m: conv.rows(),
            n: conv.c_in,
            k: conv.c_out,
            a: Factor::new(dy.at, conv.c_out),
            b: Factor::new(weights.at(w)?, conv.c_in),
            out: (dx_at, conv.c_in),
            dtype: dy.dtype,
            out_dtype: dy.dtype,
        };
        product.run(dy.device)?;
    } else {
        let aligned = Aligned::of(dy)?;
        let at = [dx_at, weights.at(w)?, aligned.at(dy)?];
        if !by_cudnn(Pass::InputGradient, conv, dy, at)? {
            let mut args = vec![Arg::At(at[2]), Arg::At(at[1]), Arg::At(at[0])];
            args.extend(conv.args());
            let name = "conv_direct_input_grad";
            launch_for(dy.device, (File::Conv, name, dy.dtype), spread(n), &args)?;
        }
    }
    let shape = match rank {
        4 => channels_last(conv.batch, conv.c_in, conv.h, conv.w),
        3 => (conv.batch, conv.w, conv.c_in).into(),
        _ => (conv.batch, conv.c_in).into(),
    };
    Ok((dx, shape))
}

/// The gradient of the weight, f32 in PyTorch's order.
///
/// # Errors
/// A device error.
pub fn conv_weight_gradient(
    conv: &Conv,
    (x, layout): Input<'_>,
    (dy, dy_layout): Input<'_>,
) -> Result<CudaStorage> {
    let x = Part::map("conv2d weight gradient", x, layout)?;
    let dy = Part::map("conv2d weight gradient", dy, dy_layout)?;
    let n = conv.weights();
    let dw = empty(x.device, DType::F32, n)?;
    if conv.is_dense() {
        let product = Product {
            m: conv.c_out,
            n: conv.c_in,
            k: conv.rows(),
            a: Factor::transposed(dy.at, conv.c_out),
            b: Factor::new(x.at, conv.c_in),
            out: (Part::of(&dw, n)?.at, conv.c_in),
            dtype: x.dtype,
            out_dtype: DType::F32,
        };
        product.run(x.device)?;
        return Ok(dw);
    }
    // Weights have their channels last in cuDNN, too.
    let to_pytorch = |from: Part<'_>| {
        let sides = (conv.c_out, conv.taps(), conv.c_in);
        transpose(from, &dw, DType::F32, sides)
    };
    let last = empty(x.device, x.dtype, n)?;
    let (aligned_x, aligned_dy) = (Aligned::of(x)?, Aligned::of(dy)?);
    let at = [aligned_x.at(x)?, Part::of(&last, n)?.at, aligned_dy.at(dy)?];
    if by_cudnn(Pass::WeightGradient, conv, x, at)? {
        to_pytorch(Part::of(&last, n)?)?;
    } else {
        let last = empty(x.device, DType::F32, n)?;
        let to = Part::of(&last, n)?;
        let mut args = vec![Arg::At(at[0]), Arg::At(at[2]), Arg::At(to.at)];
        args.extend(conv.args());
        let grid = blocks(conv.c_out * conv.taps(), 1);
        let name = "conv_direct_weight_grad";
        launch_for(x.device, (File::Conv, name, x.dtype), grid, &args)?;
        to_pytorch(to)?;
    }
    Ok(dw)
}

/// Computes by cuDNN; `false` if it has no engine.
fn by_cudnn(pass: Pass, conv: &Conv, x: Part<'_>, at: [u64; 3]) -> Result<bool> {
    let forced_direct = std::env::var_os("SDFT_CUDA_CONV").is_some_and(|wanted| wanted == "direct");
    Ok(!forced_direct && cudnn::run(x.device, pass, conv, x.dtype, at)?)
}

/// A copy of the weights in the type and order in which they are used; none where that is the same.
#[derive(Clone)]
pub struct Prepared(Option<Arc<CudaStorage>>);

impl Prepared {
    fn of(conv: &Conv, w: Part<'_>, dtype: DType) -> Result<Self> {
        let reorders = conv.taps() > 1 && conv.c_in > 1;
        if !reorders && dtype == DType::F32 && w.at.is_multiple_of(16) {
            return Ok(Self(None));
        }
        let to = empty(w.device, dtype, w.len)?;
        if reorders {
            transpose(w, &to, dtype, (conv.c_out, conv.c_in, conv.taps()))?;
        } else {
            cast(w, &to, dtype)?;
        }
        Ok(Self(Some(Arc::new(to))))
    }

    /// The address of the copy, or of `w` if there is none.
    fn at(&self, w: Part<'_>) -> Result<u64> {
        self.0
            .as_ref()
            .map_or(Ok(w.at), |storage| Ok(Part::of(storage, 0)?.at))
    }
}

/// A copy of a tensor whose address is not a multiple of 16 bytes, as cuDNN requires.
struct Aligned(Option<CudaStorage>);

impl Aligned {
    fn of(x: Part<'_>) -> Result<Self> {
        if x.at.is_multiple_of(16) {
            return Ok(Self(None));
        }
        let to = empty(x.device, x.dtype, x.len)?;
        cast(x, &to, x.dtype)?;
        Ok(Self(Some(to)))
    }

    fn at(&self, x: Part<'_>) -> Result<u64> {
        self.0
            .as_ref()
            .map_or(Ok(x.at), |storage| Ok(Part::of(storage, 0)?.at))
    }
}
