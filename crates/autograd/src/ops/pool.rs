//! Pooling by square windows.

use super::dense::dense;
use super::op::{Op, apply, compute};
use super::{check_dtypes, elements, for_float};
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, Layout, Result, Shape, Tensor, WithDType, bail};
use sdft_kernels::{PoolKind, PoolShape};

/// Maximum or mean over `k x k` windows. Padding is ignored: a mean counts the elements inside the image only
/// (`count_include_pad=False`).
///
/// # Shapes
/// - `x`: `[B, C, H, W]` · returns: `[B, C, (H + 2 pad - k) / stride + 1, (W + 2 pad - k) / stride + 1]`
///
/// # Errors
/// Padding of more than half a window, an image smaller than a window, or a type that is not floating-point.
pub fn pool(x: &Tensor, kind: PoolKind, k: usize, stride: usize, pad: usize) -> Result<Tensor> {
    check_dtypes("pool", x, &[])?;
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
    apply(Pool(shape), [&dense(x)?])
}

#[cfg(feature = "cuda")]
fn on_gpu(shape: &PoolShape) -> sdft_cuda::Pool {
    sdft_cuda::Pool {
        k: shape.k,
        stride: shape.stride,
        pad: shape.pad,
        mean: shape.kind == PoolKind::Average,
    }
}

struct Pool(PoolShape);

impl Op<1> for Pool {
    fn name(&self) -> &'static str {
        "pool"
    }

    fn cpu(&self, [x]: [(&CpuStorage, &Layout); 1]) -> Result<(CpuStorage, Shape)> {
        let (b, c, _, _) = x.1.shape().dims4()?;
        for_float!(self.name(), x.0, T => {
            let y = sdft_kernels::pool::<T>(&self.0, elements(self.name(), x)?);
            Ok((T::to_cpu_storage_owned(y), (b, c, self.0.out_h(), self.0.out_w()).into()))
        })
    }

    #[cfg(feature = "cuda")]
    fn cuda(&self, [x]: [(&CudaStorage, &Layout); 1]) -> Result<(CudaStorage, Shape)> {
        sdft_cuda::pool_forward(&on_gpu(&self.0), x)
    }

    fn gradients(
        &self,
        [x]: [&Tensor; 1],
        dy: &Tensor,
        _: [bool; 1],
    ) -> Result<[Option<Tensor>; 1]> {
        Ok([Some(compute(&Gradient(self.0), [x, &dense(dy)?])?)])
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
            let dx = sdft_kernels::pool_gradient::<T>(
                &self.0,
                elements(self.name(), x)?,
                elements(self.name(), dy)?,
            );
            Ok((T::to_cpu_storage_owned(dx), shape))
        })
    }

    #[cfg(feature = "cuda")]
    fn cuda(&self, [x, dy]: [(&CudaStorage, &Layout); 2]) -> Result<(CudaStorage, Shape)> {
        sdft_cuda::pool_gradient(&on_gpu(&self.0), x, dy)
    }
}
