//! Upsampling and downsampling by two.

use super::dense::dense;
use super::op::{Op, apply, compute};
use super::{check_dtypes, elements, for_element};
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, Layout, Result, Shape, Tensor, WithDType};

/// Nearest-neighbour upsampling by two.
///
/// # Shapes
/// - `x`: `[B, C, H, W]` · returns: `[B, C, 2H, 2W]`
///
/// # Errors
/// A rank other than four, or a type that is not floating-point.
pub fn upsample_nearest_2x(x: &Tensor) -> Result<Tensor> {
    check_dtypes("upsample_nearest_2x", x, &[])?;
    x.dims4()?;
    apply(Resample::Up, [&dense(x)?])
}

/// Mean of each 2x2 square; an odd last row or column is ignored, as in PyTorch's `AvgPool2d(2, 2)`.
///
/// # Shapes
/// - `x`: `[B, C, H, W]` · returns: `[B, C, H/2, W/2]`
///
/// # Errors
/// A rank other than four, fewer than two rows or columns, or a type that is not floating-point.
pub fn average_pool_2x(x: &Tensor) -> Result<Tensor> {
    check_dtypes("average_pool_2x", x, &[])?;
    let (_, _, h, w) = x.dims4()?;
    if h < 2 || w < 2 {
        candle_core::bail!("average_pool_2x: image {h}x{w} is smaller than 2x2");
    }
    apply(Resample::Down, [&dense(x)?])
}

#[derive(Clone, Copy)]
enum Resample {
    Up,
    /// The adjoint of `Up`: sums of 2x2 squares.
    UpGradient,
    Down,
    /// The adjoint of `Down` for images of this height and width.
    DownGradient(usize, usize),
}

impl Op<1> for Resample {
    fn name(&self) -> &'static str {
        "resample"
    }

    fn cpu(&self, [x]: [(&CpuStorage, &Layout); 1]) -> Result<(CpuStorage, Shape)> {
        let (b, c, h, w) = x.1.shape().dims4()?;
        for_element!(self.name(), x.0, E, _R => {
            let x = elements::<E>(self.name(), x)?;
            let (y, h, w) = match *self {
                Self::Up => (sdft_kernels::upsample_2x(x, h, w), 2 * h, 2 * w),
                Self::UpGradient => (sdft_kernels::pool_2x(x, h, w, 1.0), h / 2, w / 2),
                Self::Down => (sdft_kernels::pool_2x(x, h, w, 0.25), h / 2, w / 2),
                Self::DownGradient(h, w) => (sdft_kernels::pool_2x_gradient(x, h, w, 0.25), h, w),
            };
            Ok((E::to_cpu_storage_owned(y), (b, c, h, w).into()))
        })
    }

    fn reads_bf16(&self) -> bool {
        true
    }

    #[cfg(feature = "cuda")]
    fn cuda(&self, [x]: [(&CudaStorage, &Layout); 1]) -> Result<(CudaStorage, Shape)> {
        match *self {
            Self::Up => sdft_cuda::upsample(x),
            Self::UpGradient => sdft_cuda::pool2(x, 1.0),
            Self::Down => sdft_cuda::pool2(x, 0.25),
            Self::DownGradient(h, w) => sdft_cuda::pool2_gradient(x, h, w, 0.25),
        }
    }

    fn gradients(
        &self,
        [x]: [&Tensor; 1],
        dy: &Tensor,
        _: [bool; 1],
    ) -> Result<[Option<Tensor>; 1]> {
        let (_, _, h, w) = x.dims4()?;
        let gradient = match self {
            Self::Up => Self::UpGradient,
            Self::Down => Self::DownGradient(h, w),
            Self::UpGradient | Self::DownGradient(..) => {
                candle_core::bail!("resample: second derivatives are not built")
            }
        };
        Ok([Some(compute(&gradient, [&dense(dy)?])?)])
    }

    fn saved(&self, _: [bool; 1]) -> [bool; 1] {
        [false]
    }
}
