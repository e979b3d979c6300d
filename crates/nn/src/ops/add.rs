use super::{elements, for_float, same_float};
use crate::kernels::{Real, elementwise};
use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};

/// `a + b` for tensors of the same shape.
///
/// Its work runs where that of the other operations runs; candle's elementwise kernels bring threads of
/// their own, which wait by spinning.
///
/// # Errors
/// Different shapes, a type other than f32 or f64.
pub(crate) fn add(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    same_float("add", &[a, b])?;
    if a.shape() != b.shape() {
        bail!(
            "add: {:?} and {:?} have different shapes",
            a.shape(),
            b.shape()
        );
    }
    a.contiguous()?.apply_op2(&b.contiguous()?, Add)
}

struct Add;

impl CustomOp2 for Add {
    fn name(&self) -> &'static str {
        "add"
    }

    fn cpu_fwd(
        &self,
        a: &CpuStorage,
        a_layout: &Layout,
        b: &CpuStorage,
        b_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        for_float!(self.name(), a, T => {
            let sum = elementwise::add::<T>(elements(self.name(), a, a_layout)?, elements(self.name(), b, b_layout)?);
            Ok((T::storage(sum), a_layout.shape().clone()))
        })
    }

    fn bwd(
        &self,
        _a: &Tensor,
        _b: &Tensor,
        _sum: &Tensor,
        dsum: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        Ok((Some(dsum.clone()), Some(dsum.clone())))
    }
}
