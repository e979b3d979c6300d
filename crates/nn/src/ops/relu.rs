use super::{elements, for_float, same_float};
use crate::kernels::{Real, elementwise};
use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor};

/// `max(x, 0)`, on all threads; its gradient at 0 is 0.
///
/// # Shapes
/// - returns the shape of `x`
///
/// # Errors
/// A type other than f32 or f64.
pub fn relu(x: &Tensor) -> Result<Tensor> {
    same_float("relu", &[x])?;
    x.contiguous()?.apply_op1(Relu)
}

struct Relu;

impl CustomOp1 for Relu {
    fn name(&self) -> &'static str {
        "relu"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        for_float!(self.name(), x, T => {
            let y = elementwise::relu::<T>(elements(self.name(), x, layout)?);
            Ok((T::storage(y), layout.shape().clone()))
        })
    }

    fn bwd(&self, _x: &Tensor, y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        y.apply_op2_no_bwd(&dy.contiguous()?, &Gradient).map(Some)
    }
}

struct Gradient;

impl CustomOp2 for Gradient {
    fn name(&self) -> &'static str {
        "relu gradient"
    }

    fn cpu_fwd(
        &self,
        y: &CpuStorage,
        y_layout: &Layout,
        dy: &CpuStorage,
        dy_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        for_float!(self.name(), y, T => {
            let dx = elementwise::relu_gradient::<T>(
                elements(self.name(), y, y_layout)?,
                elements(self.name(), dy, dy_layout)?,
            );
            Ok((T::storage(dx), y_layout.shape().clone()))
        })
    }
}
