use super::Input::{self, Shared};
use super::{elements, for_float, same_float};
use crate::backward::{done_with, keep};
use crate::kernels::Real;
use crate::kernels::conv::{self, ConvShape};
use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor, bail};

/// Two-dimensional convolution with zero padding and a bias; `pad` is that above and below, and that left and right.
///
/// # Shapes
/// - `x`: `[B, C_in, H, W]` · `w`: `[C_out, C_in, K, L]` · `bias`: `[C_out]`
/// - returns: `[B, C_out, (H + 2 pad[0] - K) / stride + 1, (W + 2 pad[1] - L) / stride + 1]`
///
/// # Errors
/// Shapes that do not fit, a kernel larger than the padded image, a type other than f32 or f64.
pub fn conv2d(
    x: &Tensor,
    w: &Tensor,
    bias: &Tensor,
    stride: usize,
    pad: [usize; 2],
) -> Result<Tensor> {
    conv2d_of(Shared(x), w, bias, stride, pad)
}

/// As [`conv2d`], with a say on whose the input is.
pub(crate) fn conv2d_of(
    input: Input<'_>,
    w: &Tensor,
    bias: &Tensor,
    stride: usize,
    pad: [usize; 2],
) -> Result<Tensor> {
    let x = input.tensor();
    same_float("conv2d", &[x, w, bias])?;
    let (batch, c_in, h, width) = x.dims4()?;
    let (c_out, w_in, k_h, k_w) = w.dims4()?;
    if w_in != c_in || bias.dims() != [c_out] || stride == 0 || k_h * k_w == 0 {
        bail!(
            "conv2d: input {:?}, weight {:?} and bias {:?} do not fit (stride {stride})",
            x.shape(),
            w.shape(),
            bias.shape()
        );
    }
    if h + 2 * pad[0] < k_h || width + 2 * pad[1] < k_w {
        bail!(
            "conv2d: image {h}x{width} with padding {pad:?} is smaller than the kernel {k_h}x{k_w}"
        );
    }
    let shape = ConvShape {
        batch,
        c_in,
        h,
        w: width,
        c_out,
        k: [k_h, k_w],
        stride,
        pad,
    };
    let y = Shape::from((batch, c_out, shape.out_h(), shape.out_w()));
    let only_here = input.is_only_here();
    let op = Conv2d {
        shape,
        y,
        only_here,
    };
    x.contiguous()?
        .apply_op3(&w.contiguous()?, &bias.contiguous()?, op)
}

/// A convolution of width one over `[B, C_in, N]`; `w` is `[C_out, C_in, 1]`.
///
/// # Errors
/// As [`conv2d`].
pub(crate) fn pointwise(input: Input<'_>, w: &Tensor, bias: &Tensor) -> Result<Tensor> {
    let x = input.tensor();
    same_float("pointwise", &[x, w, bias])?;
    let (batch, c_in, n) = x.dims3()?;
    let (c_out, w_in, one) = w.dims3()?;
    if w_in != c_in || one != 1 || bias.dims() != [c_out] || n == 0 {
        bail!(
            "pointwise: input {:?}, weight {:?} and bias {:?} do not fit",
            x.shape(),
            w.shape(),
            bias.shape()
        );
    }
    let shape = ConvShape {
        batch,
        c_in,
        h: 1,
        w: n,
        c_out,
        k: [1, 1],
        stride: 1,
        pad: [0, 0],
    };
    let y = Shape::from((batch, c_out, n));
    let only_here = input.is_only_here();
    let op = Conv2d {
        shape,
        y,
        only_here,
    };
    x.contiguous()?
        .apply_op3(&w.contiguous()?, &bias.contiguous()?, op)
}

/// `x w^T + bias`: a convolution of images of one pixel.
///
/// # Shapes
/// - `x`: `[B, I]` · `w`: `[O, I]` · `bias`: `[O]` · returns: `[B, O]`
///
/// # Errors
/// Shapes that do not fit, a type other than f32 or f64.
pub fn linear(x: &Tensor, w: &Tensor, bias: &Tensor) -> Result<Tensor> {
    same_float("linear", &[x, w, bias])?;
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
    let op = Conv2d {
        shape: ConvShape {
            batch,
            c_in,
            h: 1,
            w: 1,
            c_out,
            k: [1, 1],
            stride: 1,
            pad: [0, 0],
        },
        y: Shape::from((batch, c_out)),
        only_here: false,
    };
    x.contiguous()?
        .apply_op3(&w.contiguous()?, &bias.contiguous()?, op)
}

/// Tensors of more or fewer dimensions hold the same elements.
struct Conv2d {
    shape: ConvShape,
    /// The shape of the result.
    y: Shape,
    /// No other operation reads the input.
    only_here: bool,
}

impl CustomOp3 for Conv2d {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        w: &CpuStorage,
        w_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        for_float!(self.name(), x, T => {
            let y = conv::forward::<T>(
                &self.shape,
                elements(self.name(), x, x_layout)?,
                elements(self.name(), w, w_layout)?,
                Some(elements(self.name(), bias, bias_layout)?),
            );
            Ok((T::storage(y), self.y.clone()))
        })
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        bias: &Tensor,
        _y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let dy = dy.contiguous()?;
        let dx = x
            .track_op()
            .then(|| dy.apply_op2_no_bwd(w, &InputGradient(self.shape, x.shape())));
        let dw = if w.track_op() {
            let op = WeightGradient(self.shape, w.shape());
            keep(w, x.apply_op2_no_bwd(&dy, &op)?)?
        } else {
            None
        };
        let db = if bias.track_op() {
            keep(bias, dy.apply_op1_no_bwd(&BiasGradient)?)?
        } else {
            None
        };
        if self.only_here {
            done_with(x)?;
        }
        Ok((dx.transpose()?, dw, db))
    }
}

struct InputGradient<'a>(ConvShape, &'a Shape);

impl CustomOp2 for InputGradient<'_> {
    fn name(&self) -> &'static str {
        "conv2d input gradient"
    }

    fn cpu_fwd(
        &self,
        dy: &CpuStorage,
        dy_layout: &Layout,
        w: &CpuStorage,
        w_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let s = &self.0;
        for_float!(self.name(), dy, T => {
            let dx = conv::input_gradient::<T>(
                s,
                elements(self.name(), dy, dy_layout)?,
                elements(self.name(), w, w_layout)?,
            );
            Ok((T::storage(dx), self.1.clone()))
        })
    }
}

struct WeightGradient<'a>(ConvShape, &'a Shape);

impl CustomOp2 for WeightGradient<'_> {
    fn name(&self) -> &'static str {
        "conv2d weight gradient"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        dy: &CpuStorage,
        dy_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let s = &self.0;
        for_float!(self.name(), x, T => {
            let dw = conv::weight_gradient::<T>(
                s,
                elements(self.name(), x, x_layout)?,
                elements(self.name(), dy, dy_layout)?,
            );
            Ok((T::storage(dw), self.1.clone()))
        })
    }
}

struct BiasGradient;

impl candle_core::CustomOp1 for BiasGradient {
    fn name(&self) -> &'static str {
        "conv2d bias gradient"
    }

    fn cpu_fwd(&self, dy: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (batch, channels) = (layout.dims()[0], layout.dims()[1]);
        for_float!(self.name(), dy, T => {
            let db = conv::bias_gradient::<T>(elements(self.name(), dy, layout)?, batch, channels);
            Ok((T::storage(db), channels.into()))
        })
    }
}
