//! Convolutions and dense layers.

use super::channels::check_joined;
use super::conv2d_gradients::{BiasGradient, InputGradient, WeightGradient};
use super::dense::{dense, split_inputs};
use super::op::{Op, apply, apply_off_graph, both, compute};
use super::{add, check_dtypes, concat, elements, for_element};
use crate::tape::GradMode;
use candle_core::{CpuStorage, Layout, Result, Shape, Tensor, WithDType, bail};
#[cfg(feature = "cuda")]
use candle_core::{CudaStorage, DType, backend::BackendStorage};
use sdft_kernels::{Added, ConvShape};
#[cfg(feature = "cuda")]
use std::sync::OnceLock;

/// Two-dimensional convolution with a bias. `pad` is the zero padding of height and width, on both sides.
///
/// # Shapes
/// - `x`: `[B, C_in, H, W]` · `w`: `[C_out, C_in, K, L]` · `bias`: `[C_out]`
/// - returns: `[B, C_out, (H + 2 pad[0] - K) / stride + 1, (W + 2 pad[1] - L) / stride + 1]`
///
/// # Errors
/// Shapes or types that do not fit, or a kernel larger than the padded image.
pub fn conv2d(
    x: &Tensor,
    w: &Tensor,
    bias: &Tensor,
    stride: usize,
    pad: [usize; 2],
) -> Result<Tensor> {
    conv2d_padded(x, w, bias, stride, [pad[0], pad[1], pad[0], pad[1]])
}

/// [`conv2d`] with zero padding that differs between sides: `pad` is top, left, bottom, right.
///
/// # Shapes
/// - `x`: `[B, C_in, H, W]` · `w`: `[C_out, C_in, K, L]` · `bias`: `[C_out]`
/// - returns: `[B, C_out, (H + top + bottom - K) / stride + 1, (W + left + right - L) / stride + 1]`
///
/// # Errors
/// As [`conv2d`].
pub fn conv2d_padded(
    x: &Tensor,
    w: &Tensor,
    bias: &Tensor,
    stride: usize,
    pad: [usize; 4],
) -> Result<Tensor> {
    convolution(shape_of(x, w, Some(bias), stride, pad)?, [x, w, bias])
}

/// [`conv2d_padded`] without a bias.
///
/// # Shapes
/// - as [`conv2d_padded`]
///
/// # Errors
/// As [`conv2d`].
pub fn conv2d_unbiased(x: &Tensor, w: &Tensor, stride: usize, pad: [usize; 4]) -> Result<Tensor> {
    check_dtypes("conv2d", x, &[w])?;
    let op = Conv2d::new(shape_of(x, w, None, stride, pad)?);
    apply(Unbiased(op), [&dense(x)?, &w.contiguous()?])
}

/// `sum` + [`conv2d_padded`], without a pass over the maps for the sum.
///
/// # Shapes
/// - `sum`: the shape of the result
///
/// # Errors
/// As [`conv2d`].
pub fn conv2d_onto(
    sum: &Tensor,
    x: &Tensor,
    w: &Tensor,
    bias: &Tensor,
    stride: usize,
    pad: [usize; 4],
) -> Result<Tensor> {
    convolution_onto(sum, shape_of(x, w, Some(bias), stride, pad)?, [x, w, bias])
}

fn shape_of(
    x: &Tensor,
    w: &Tensor,
    bias: Option<&Tensor>,
    stride: usize,
    pad: [usize; 4],
) -> Result<ConvShape> {
    let (batch, c_in, h, width) = x.dims4()?;
    let (c_out, w_in, k_h, k_w) = w.dims4()?;
    let fits = bias.is_none_or(|bias| bias.dims() == [c_out]);
    if w_in != c_in || !fits || stride == 0 || k_h * k_w == 0 {
        bail!(
            "conv2d: input {:?}, weight {:?} and bias {:?} do not fit (stride {stride})",
            x.shape(),
            w.shape(),
            bias.map(Tensor::shape)
        );
    }
    if h + pad[0] + pad[2] < k_h || width + pad[1] + pad[3] < k_w {
        bail!(
            "conv2d: image {h}x{width} with padding {pad:?} is smaller than the kernel {k_h}x{k_w}"
        );
    }
    Ok(ConvShape {
        batch,
        c_in,
        h,
        w: width,
        c_out,
        k: [k_h, k_w],
        stride,
        pad,
    })
}

/// A convolution with stride 1 of the channels of `a` and, after them, those of `b`. On a GPU it is the sum of two, without joining them.
///
/// # Shapes
/// - `a`: `[B, C_a, H, W]` · `b`: `[B, C_b, H, W]` · `w`: `[C_out, C_a + C_b, K_h, K_w]` · `bias`: `[C_out]` · returns: `[B, C_out, H', W']`
///
/// # Errors
/// As [`conv2d_padded`] and [`concat`](crate::concat).
pub fn conv2d_joined(
    [a, b]: [&Tensor; 2],
    w: &Tensor,
    bias: &Tensor,
    pad: [usize; 4],
) -> Result<Tensor> {
    let (_, c, ..) = check_joined("conv2d", a, b)?;
    // candle's graph has no operations with several results, such as the two parts of the filters.
    let is_in_graph = || {
        let is_tracked = [a, b, w, bias].into_iter().any(Tensor::track_op);
        GradMode::current() == GradMode::Graph && is_tracked
    };
    if !a.device().is_cuda() || w.dim(1)? != c || is_in_graph() {
        return conv2d_padded(&concat(a, b)?, w, bias, 1, pad);
    }
    let [w_a, w_b] = split_inputs(w, a.dim(1)?)?;
    let sum = conv2d_unbiased(a, &w_a, 1, pad)?;
    conv2d_onto(&sum, b, &w_b, bias, 1, pad)
}

/// A one-dimensional convolution of width one: a dense layer at each of N positions.
///
/// # Shapes
/// - `x`: `[B, C_in, N]` · `w`: `[C_out, C_in, 1]` or `[C_out, C_in]` · `bias`: `[C_out]` · returns: `[B, C_out, N]`
///
/// # Errors
/// As [`conv2d`].
pub fn pointwise(x: &Tensor, w: &Tensor, bias: &Tensor) -> Result<Tensor> {
    convolution(pointwise_shape(x, w, bias)?, [x, w, bias])
}

/// `sum` + [`pointwise`], in one operation.
///
/// # Shapes
/// - `sum`: the shape of the result
///
/// # Errors
/// As [`conv2d`].
pub fn pointwise_onto(sum: &Tensor, x: &Tensor, w: &Tensor, bias: &Tensor) -> Result<Tensor> {
    convolution_onto(sum, pointwise_shape(x, w, bias)?, [x, w, bias])
}

fn pointwise_shape(x: &Tensor, w: &Tensor, bias: &Tensor) -> Result<ConvShape> {
    let (batch, c_in, n) = x.dims3()?;
    let (c_out, w_in) = match *w.dims() {
        [c_out, w_in] | [c_out, w_in, 1] => (c_out, w_in),
        _ => (0, 0),
    };
    if w_in != c_in || c_out == 0 || bias.dims() != [c_out] || n == 0 {
        bail!(
            "pointwise: input {:?}, weight {:?} and bias {:?} do not fit",
            x.shape(),
            w.shape(),
            bias.shape()
        );
    }
    Ok(ConvShape::dense(batch, c_in, n, c_out))
}

/// A dense layer: `x w^T + bias`.
///
/// # Shapes
/// - `x`: `[B, I]` · `w`: `[O, I]` · `bias`: `[O]` · returns: `[B, O]`
///
/// # Errors
/// Shapes or types that do not fit.
pub fn linear(x: &Tensor, w: &Tensor, bias: &Tensor) -> Result<Tensor> {
    let (batch, c_in) = x.dims2()?;
    let (c_out, w_in) = w.dims2()?;
    if w_in != c_in || bias.dims() != [c_out] {
        bail!(
            "linear: input {:?}, weight {:?} and bias {:?} do not fit",
            x.shape(),
            w.shape(),
            bias.shape()
        );
    }
    convolution(ConvShape::dense(batch, c_in, 1, c_out), [x, w, bias])
}

fn convolution(shape: ConvShape, [x, w, bias]: [&Tensor; 3]) -> Result<Tensor> {
    check_dtypes("conv2d", x, &[w, bias])?;
    let inputs = [&dense(x)?, &w.contiguous()?, &bias.contiguous()?];
    apply(Conv2d::new(shape), inputs)
}

fn convolution_onto(sum: &Tensor, shape: ConvShape, inputs: [&Tensor; 3]) -> Result<Tensor> {
    if GradMode::current() == GradMode::Graph {
        return add(sum, &convolution(shape, inputs)?);
    }
    let [x, w, bias] = inputs;
    check_dtypes("conv2d", x, &[w, bias])?;
    let op = Conv2d::new(shape);
    if sum.shape() != &op.y(x.rank()) || sum.dtype() != x.dtype() {
        bail!(
            "conv2d: a sum {:?} {} does not fit",
            sum.shape(),
            sum.dtype().as_str()
        );
    }
    let (x, w, bias) = (&dense(x)?, &w.contiguous()?, &bias.contiguous()?);
    apply_off_graph(Box::new(Onto(op)), [&dense(sum)?, x, w, bias])
}

/// Multiplications and additions of a convolution or one of its two large gradients.
pub(crate) fn flops(shape: &ConvShape) -> [f64; 2] {
    [shape.flops(), shape.flops_of_products()]
}

/// Computes on `[B, C, H, W]`; inputs of two and three dimensions are convolutions with a height, or a height and width, of one.
struct Conv2d {
    shape: ConvShape,
    /// The weights as the GPU converted them to half precision, for the backward pass.
    #[cfg(feature = "cuda")]
    prepared: OnceLock<sdft_cuda::Prepared>,
}

impl Conv2d {
    fn new(shape: ConvShape) -> Self {
        Self {
            shape,
            #[cfg(feature = "cuda")]
            prepared: OnceLock::new(),
        }
    }

    fn on_cpu(
        &self,
        [x, w]: [(&CpuStorage, &Layout); 2],
        bias: Option<(&CpuStorage, &Layout)>,
        sum: Option<(&CpuStorage, &Layout)>,
    ) -> Result<(CpuStorage, Shape)> {
        for_element!("conv2d", x.0, E, R => {
            let added = Added {
                bias: bias.map(|bias| elements::<R>("conv2d", bias)).transpose()?,
                map: sum.map(|sum| elements::<E>("conv2d", sum)).transpose()?,
            };
            let (input, w) = (elements("conv2d", x)?, elements::<R>("conv2d", w)?);
            let y = sdft_kernels::conv2d::<E>(&self.shape, input, w, added);
            Ok((E::to_cpu_storage_owned(y), self.y(x.1.dims().len())))
        })
    }

    /// The gradients of the input and the weights.
    fn input_and_weight(
        &self,
        [x, w]: [&Tensor; 2],
        dy: &Tensor,
        [dx, dw]: [bool; 2],
    ) -> Result<[Option<Tensor>; 2]> {
        let input = InputGradient {
            shape: self.shape,
            x: x.shape().clone(),
            #[cfg(feature = "cuda")]
            prepared: self.prepared.get().cloned(),
        };
        let weight = || compute(&WeightGradient(self.shape, w.shape().clone()), [x, dy]);
        let (dx, dw) = both(
            dy,
            || dx.then(|| compute(&input, [dy, w])).transpose(),
            || dw.then(weight).transpose(),
        );
        Ok([dx?, dw?])
    }

    /// The result on a GPU, with a bias, and added to `sum`, if there is one.
    #[cfg(feature = "cuda")]
    fn cuda_onto(
        &self,
        [x, w]: [(&CudaStorage, &Layout); 2],
        bias: Option<(&CudaStorage, &Layout)>,
        sum: Option<(&CudaStorage, &Layout)>,
    ) -> Result<(CudaStorage, Shape)> {
        let is_half = x.0.dtype() != DType::F32;
        let (y, shape, prepared) = sdft_cuda::conv_forward(&on_gpu(&self.shape), x, w, bias, sum)?;
        if is_half {
            // The operation is made for one call, so this is empty.
            let _ = self.prepared.set(prepared);
        }
        Ok((y, shape))
    }

    /// The shape of the result, with as many dimensions as the input.
    fn y(&self, rank: usize) -> Shape {
        let s = &self.shape;
        match rank {
            2 => (s.batch, s.c_out).into(),
            3 => (s.batch, s.c_out, s.w).into(),
            _ => (s.batch, s.c_out, s.out_h(), s.out_w()).into(),
        }
    }
}

#[cfg(feature = "cuda")]
pub(crate) fn on_gpu(shape: &ConvShape) -> sdft_cuda::Conv {
    sdft_cuda::Conv {
        batch: shape.batch,
        c_in: shape.c_in,
        h: shape.h,
        w: shape.w,
        c_out: shape.c_out,
        k: shape.k,
        stride: shape.stride,
        pad: shape.pad,
    }
}

impl Op<3> for Conv2d {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn cpu(&self, [x, w, bias]: [(&CpuStorage, &Layout); 3]) -> Result<(CpuStorage, Shape)> {
        self.on_cpu([x, w], Some(bias), None)
    }

    fn reads_bf16(&self) -> bool {
        true
    }

    fn flops(&self) -> [f64; 2] {
        flops(&self.shape)
    }

    #[cfg(feature = "cuda")]
    fn cuda(&self, [x, w, bias]: [(&CudaStorage, &Layout); 3]) -> Result<(CudaStorage, Shape)> {
        self.cuda_onto([x, w], Some(bias), None)
    }

    fn gradients(
        &self,
        [x, w, bias]: [&Tensor; 3],
        dy: &Tensor,
        [dx, dw, db]: [bool; 3],
    ) -> Result<[Option<Tensor>; 3]> {
        let dy = &dense(dy)?;
        let [x, w] = self.input_and_weight([x, w], dy, [dx, dw])?;
        let of_bias = || compute(&BiasGradient(bias.elem_count()), [dy]);
        Ok([x, w, db.then(of_bias).transpose()?])
    }

    fn saved(&self, [dx, dw, _]: [bool; 3]) -> [bool; 3] {
        [dw, dx, false]
    }
}

/// A convolution without a bias.
struct Unbiased(Conv2d);

impl Op<2> for Unbiased {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn cpu(&self, inputs: [(&CpuStorage, &Layout); 2]) -> Result<(CpuStorage, Shape)> {
        self.0.on_cpu(inputs, None, None)
    }

    fn reads_bf16(&self) -> bool {
        true
    }

    fn flops(&self) -> [f64; 2] {
        flops(&self.0.shape)
    }

    #[cfg(feature = "cuda")]
    fn cuda(&self, inputs: [(&CudaStorage, &Layout); 2]) -> Result<(CudaStorage, Shape)> {
        self.0.cuda_onto(inputs, None, None)
    }

    fn gradients(
        &self,
        inputs: [&Tensor; 2],
        dy: &Tensor,
        wanted: [bool; 2],
    ) -> Result<[Option<Tensor>; 2]> {
        self.0.input_and_weight(inputs, &dense(dy)?, wanted)
    }

    fn saved(&self, [dx, dw]: [bool; 2]) -> [bool; 2] {
        [dw, dx]
    }
}

/// A convolution that is added to the first input.
struct Onto(Conv2d);

impl Op<4> for Onto {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn cpu(&self, [sum, x, w, bias]: [(&CpuStorage, &Layout); 4]) -> Result<(CpuStorage, Shape)> {
        self.0.on_cpu([x, w], Some(bias), Some(sum))
    }

    fn reads_bf16(&self) -> bool {
        true
    }

    fn flops(&self) -> [f64; 2] {
        flops(&self.0.shape)
    }

    #[cfg(feature = "cuda")]
    fn cuda(
        &self,
        [sum, x, w, bias]: [(&CudaStorage, &Layout); 4],
    ) -> Result<(CudaStorage, Shape)> {
        self.0.cuda_onto([x, w], Some(bias), Some(sum))
    }

    fn gradients(
        &self,
        [_, x, w, bias]: [&Tensor; 4],
        dy: &Tensor,
        [of_sum, dx, dw, db]: [bool; 4],
    ) -> Result<[Option<Tensor>; 4]> {
        let [x, w, bias] = self.0.gradients([x, w, bias], dy, [dx, dw, db])?;
        Ok([of_sum.then(|| dy.clone()), x, w, bias])
    }

    fn saved(&self, [_, dx, dw, db]: [bool; 4]) -> [bool; 4] {
        let [x, w, bias] = self.0.saved([dx, dw, db]);
        [false, x, w, bias]
    }
}
