use super::{elements, for_float, same_float};
use crate::kernels::Real;
use crate::kernels::conv::{self, ConvShape};
use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor, bail};

/// Two-dimensional convolution with square kernels, zero padding and a bias.
///
/// # Shapes
/// - `x`: `[B, C_in, H, W]` · `w`: `[C_out, C_in, K, K]` · `bias`: `[C_out]`
/// - returns: `[B, C_out, (H + 2 pad - K) / stride + 1, (W + 2 pad - K) / stride + 1]`
///
/// # Errors
/// Shapes that do not fit, a kernel larger than the padded image, a type other than f32 or f64.
pub fn conv2d(x: &Tensor, w: &Tensor, bias: &Tensor, stride: usize, pad: usize) -> Result<Tensor> {
    same_float("conv2d", &[x, w, bias])?;
    let (batch, c_in, h, width) = x.dims4()?;
    let (c_out, w_in, k, k2) = w.dims4()?;
    if w_in != c_in || k != k2 || bias.dims() != [c_out] || stride == 0 || k == 0 {
        bail!(
            "conv2d: input {:?}, weight {:?} and bias {:?} do not fit (stride {stride})",
            x.shape(),
            w.shape(),
            bias.shape()
        );
    }
    if h + 2 * pad < k || width + 2 * pad < k {
        bail!("conv2d: image {h}x{width} with padding {pad} is smaller than the kernel {k}x{k}");
    }
    let shape = ConvShape {
        batch,
        c_in,
        h,
        w: width,
        c_out,
        k,
        stride,
        pad,
    };
    x.contiguous()?
        .apply_op3(&w.contiguous()?, &bias.contiguous()?, Conv2d(shape))
}

struct Conv2d(ConvShape);

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
        let shape = &self.0;
        let out = (shape.batch, shape.c_out, shape.out_h(), shape.out_w());
        for_float!(self.name(), x, T => {
            let y = conv::forward::<T>(
                shape,
                elements(self.name(), x, x_layout)?,
                elements(self.name(), w, w_layout)?,
                Some(elements(self.name(), bias, bias_layout)?),
            );
            Ok((T::storage(y), out.into()))
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
            .then(|| dy.apply_op2_no_bwd(w, &InputGradient(self.0)));
        let dw = w
            .track_op()
            .then(|| x.apply_op2_no_bwd(&dy, &WeightGradient(self.0)));
        let db = bias.track_op().then(|| dy.apply_op1_no_bwd(&BiasGradient));
        Ok((dx.transpose()?, dw.transpose()?, db.transpose()?))
    }
}

struct InputGradient(ConvShape);

impl CustomOp2 for InputGradient {
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
            Ok((T::storage(dx), (s.batch, s.c_in, s.h, s.w).into()))
        })
    }
}

struct WeightGradient(ConvShape);

impl CustomOp2 for WeightGradient {
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
            Ok((T::storage(dw), (s.c_out, s.c_in, s.k, s.k).into()))
        })
    }
}

struct BiasGradient;

impl candle_core::CustomOp1 for BiasGradient {
    fn name(&self) -> &'static str {
        "conv2d bias gradient"
    }

    fn cpu_fwd(&self, dy: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (batch, channels, _, _) = layout.shape().dims4()?;
        for_float!(self.name(), dy, T => {
            let db = conv::bias_gradient::<T>(elements(self.name(), dy, layout)?, batch, channels);
            Ok((T::storage(db), channels.into()))
        })
    }
}
