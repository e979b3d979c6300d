use super::dense::dense;
use super::op::{Op, eval, run};
use super::{check_types, elements, for_float};
use crate::kernels::Real;
use crate::kernels::pool::{self as kernel, PoolKind, PoolShape};
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, Layout, Result, Shape, Tensor, bail};

/// Maximum or mean over `k x k` windows. Padding takes no part: a mean is that of the elements inside the image
/// (`count_include_pad=False`).
///
/// # Shapes
/// - `x`: `[B, C, H, W]` · returns: `[B, C, (H + 2 pad - k) / stride + 1, (W + 2 pad - k) / stride + 1]`
///
/// # Errors
/// Padding of more than half a window, an image smaller than a window, a type that is not floating.
pub fn pool(x: &Tensor, kind: PoolKind, k: usize, stride: usize, pad: usize) -> Result<Tensor> {
    check_types("pool", x, &[])?;
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
    run(Pool(shape), [&dense(x)?])
}

struct Pool(PoolShape);

impl Op<1> for Pool {
    fn name(&self) -> &'static str {
        "pool"
    }

    fn cpu(&self, [x]: [(&CpuStorage, &Layout); 1]) -> Result<(CpuStorage, Shape)> {
        let (b, c, _, _) = x.1.shape().dims4()?;
        for_float!(self.name(), x.0, T => {
            let y = kernel::forward::<T>(&self.0, elements(self.name(), x)?);
            Ok((T::storage(y), (b, c, self.0.out_h(), self.0.out_w()).into()))
        })
    }

    #[cfg(feature = "cuda")]
    fn cuda(&self, [x]: [(&CudaStorage, &Layout); 1]) -> Result<(CudaStorage, Shape)> {
        sdft_cuda::pool_forward(&self.0.on_gpu(), x)
    }

    fn gradients(
        &self,
        [x]: [&Tensor; 1],
        dy: &Tensor,
        _: [bool; 1],
    ) -> Result<[Option<Tensor>; 1]> {
        Ok([Some(eval(&Gradient(self.0), [x, &dense(dy)?])?)])
    }
}

struct Gradient(PoolShape);

impl Op<2> for Gradient {
    fn name(&self) -> &'static str {
        "pool gradient"
    }

    fn cpu(&self, [x, dy]: [(&CpuStorage, &Layout); 2]) -> Result<(CpuStorage, Shape)> {
        let shape = x.1.shape().clone();
        for_float!(self.name(), x.0, T => {
            let dx = kernel::gradient::<T>(
                &self.0,
                elements(self.name(), x)?,
                elements(self.name(), dy)?,
            );
            Ok((T::storage(dx), shape))
        })
    }

    #[cfg(feature = "cuda")]
    fn cuda(&self, [x, dy]: [(&CudaStorage, &Layout); 2]) -> Result<(CudaStorage, Shape)> {
        sdft_cuda::pool_gradient(&self.0.on_gpu(), x, dy)
    }
}
