use super::{elements, for_float, same_float};
use crate::kernels::{Real, elementwise};
use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};

/// `x * factors` for constant factors of the same shape, which get no gradient.
///
/// # Errors
/// Different shapes, a type other than f32 or f64.
pub(crate) fn mask(x: &Tensor, factors: &Tensor) -> Result<Tensor> {
    same_float("mask", &[x, factors])?;
    if x.shape() != factors.shape() {
        bail!(
            "mask: {:?} and {:?} have different shapes",
            x.shape(),
            factors.shape()
        );
    }
    x.contiguous()?.apply_op2(&factors.contiguous()?, Mask)
}

struct Mask;

impl CustomOp2 for Mask {
    fn name(&self) -> &'static str {
        "mask"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        factors: &CpuStorage,
        factors_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        for_float!(self.name(), x, T => {
            let x = elements::<T>(self.name(), x, x_layout)?;
            let factors = elements::<T>(self.name(), factors, factors_layout)?;
            Ok((T::storage(elementwise::mul(x, factors)), x_layout.shape().clone()))
        })
    }

    fn bwd(
        &self,
        _x: &Tensor,
        factors: &Tensor,
        _y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        Ok((
            Some(dy.contiguous()?.apply_op2_no_bwd(factors, &Self)?),
            None,
        ))
    }
}
