use super::{elements, for_float, same_float};
use crate::kernels::Real;
use crate::kernels::pool::{self as kernel, PoolKind, PoolShape};
use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor, bail};

/// Maximum or mean over `k x k` windows. Padding takes no part: a mean is that of the elements inside the image
/// (`count_include_pad=False`).
///
/// # Shapes
/// - `x`: `[B, C, H, W]` · returns: `[B, C, (H + 2 pad - k) / stride + 1, (W + 2 pad - k) / stride + 1]`
///
/// # Errors
/// Padding of more than half a window, an image smaller than a window, a type other than f32 or f64.
pub fn pool(x: &Tensor, kind: PoolKind, k: usize, stride: usize, pad: usize) -> Result<Tensor> {
    same_float("pool", &[x])?;
    let (_, _, h, w) = x.dims4()?;
    if k == 0 || stride == 0 || 2 * pad > k || h.min(w) + 2 * pad < k {
        bail!("pool: windows {k}x{k} (stride {stride}, padding {pad}) do not fit an image {h}x{w}");
    }
    let shape = PoolShape {
        kind,
        h,
        w,
        k,
        stride,
        pad,
    };
    x.contiguous()?.apply_op1(Pool(shape))
}

struct Pool(PoolShape);

impl CustomOp1 for Pool {
    fn name(&self) -> &'static str {
        "pool"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (b, c, _, _) = layout.shape().dims4()?;
        for_float!(self.name(), x, T => {
            let y = kernel::forward::<T>(&self.0, elements(self.name(), x, layout)?);
            Ok((T::storage(y), (b, c, self.0.out_h(), self.0.out_w()).into()))
        })
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        x.apply_op2_no_bwd(&dy.contiguous()?, &Gradient(self.0))
            .map(Some)
    }
}

struct Gradient(PoolShape);

impl CustomOp2 for Gradient {
    fn name(&self) -> &'static str {
        "pool gradient"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        dy: &CpuStorage,
        dy_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        for_float!(self.name(), x, T => {
            let dx = kernel::gradient::<T>(
                &self.0,
                elements(self.name(), x, x_layout)?,
                elements(self.name(), dy, dy_layout)?,
            );
            Ok((T::storage(dx), x_layout.shape().clone()))
        })
    }
}
