use super::{elements, for_float, same_float};
use crate::backward::keep;
use crate::kernels::{Real, linear as kernel};
use candle_core::{
    CpuStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor, bail,
};

/// `x w^T + bias`.
///
/// # Shapes
/// - `x`: `[B, I]` · `w`: `[O, I]` · `bias`: `[O]` · returns: `[B, O]`
///
/// # Errors
/// Shapes that do not fit, a type other than f32 or f64.
pub fn linear(x: &Tensor, w: &Tensor, bias: &Tensor) -> Result<Tensor> {
    same_float("linear", &[x, w, bias])?;
    let (_, n_in) = x.dims2()?;
    let (n_out, w_in) = w.dims2()?;
    if w_in != n_in || bias.dims() != [n_out] {
        bail!(
            "linear: input {:?}, weight {:?} and bias {:?} do not fit",
            x.shape(),
            w.shape(),
            bias.shape()
        );
    }
    x.contiguous()?
        .apply_op3(&w.contiguous()?, &bias.contiguous()?, Linear)
}

struct Linear;

impl CustomOp3 for Linear {
    fn name(&self) -> &'static str {
        "linear"
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
        let (rows, n_in) = x_layout.shape().dims2()?;
        let n_out = bias_layout.shape().elem_count();
        for_float!(self.name(), x, T => {
            let y = kernel::forward::<T>(
                elements(self.name(), x, x_layout)?,
                elements(self.name(), w, w_layout)?,
                elements(self.name(), bias, bias_layout)?,
                n_in,
            );
            Ok((T::storage(y), (rows, n_out).into()))
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
        let dx = x.track_op().then(|| dy.apply_op2_no_bwd(w, &InputGradient));
        let dw = if w.track_op() {
            keep(w, x.apply_op2_no_bwd(&dy, &WeightGradient)?)?
        } else {
            None
        };
        let db = if bias.track_op() {
            keep(bias, dy.apply_op1_no_bwd(&BiasGradient)?)?
        } else {
            None
        };
        Ok((dx.transpose()?, dw, db))
    }
}

struct InputGradient;

impl CustomOp2 for InputGradient {
    fn name(&self) -> &'static str {
        "linear input gradient"
    }

    fn cpu_fwd(
        &self,
        dy: &CpuStorage,
        dy_layout: &Layout,
        w: &CpuStorage,
        w_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (n_out, n_in) = w_layout.shape().dims2()?;
        let (rows, _) = dy_layout.shape().dims2()?;
        for_float!(self.name(), dy, T => {
            let dx = kernel::input_gradient::<T>(
                elements(self.name(), dy, dy_layout)?,
                elements(self.name(), w, w_layout)?,
                n_in,
                n_out,
            );
            Ok((T::storage(dx), (rows, n_in).into()))
        })
    }
}

struct WeightGradient;

impl CustomOp2 for WeightGradient {
    fn name(&self) -> &'static str {
        "linear weight gradient"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        dy: &CpuStorage,
        dy_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (_, n_in) = x_layout.shape().dims2()?;
        let (_, n_out) = dy_layout.shape().dims2()?;
        for_float!(self.name(), x, T => {
            let dw = kernel::weight_gradient::<T>(
                elements(self.name(), x, x_layout)?,
                elements(self.name(), dy, dy_layout)?,
                n_in,
                n_out,
            );
            Ok((T::storage(dw), (n_out, n_in).into()))
        })
    }
}

struct BiasGradient;

impl CustomOp1 for BiasGradient {
    fn name(&self) -> &'static str {
        "linear bias gradient"
    }

    fn cpu_fwd(&self, dy: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (_, n_out) = layout.shape().dims2()?;
        for_float!(self.name(), dy, T => {
            let db = kernel::bias_gradient::<T>(elements(self.name(), dy, layout)?, n_out);
            Ok((T::storage(db), n_out.into()))
        })
    }
}
