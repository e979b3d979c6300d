use super::dense::dense;
use super::op::{Op, eval, run};
use super::{check_types, elements, for_float};
use crate::kernels::{Real, resample as kernel};
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, Layout, Result, Shape, Tensor};

/// Nearest-neighbour enlargement by two in both directions.
///
/// # Shapes
/// - `x`: `[B, C, H, W]` · returns: `[B, C, 2H, 2W]`
///
/// # Errors
/// A rank other than four, a type that is not floating.
pub fn upsample_nearest_2x(x: &Tensor) -> Result<Tensor> {
    check_types("upsample_nearest_2x", x, &[])?;
    x.dims4()?;
    run(Resample::Up, [&dense(x)?])
}

/// Mean of each 2x2 square; an odd last row or column is left out, as in PyTorch's `AvgPool2d(2, 2)`.
///
/// # Shapes
/// - `x`: `[B, C, H, W]` · returns: `[B, C, H/2, W/2]`
///
/// # Errors
/// A rank other than four, fewer than two rows or columns, a type that is not floating.
pub fn average_pool_2x(x: &Tensor) -> Result<Tensor> {
    check_types("average_pool_2x", x, &[])?;
    let (_, _, h, w) = x.dims4()?;
    if h < 2 || w < 2 {
        candle_core::bail!("average_pool_2x: image {h}x{w} is smaller than 2x2");
    }
    run(Resample::Down, [&dense(x)?])
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
        for_float!(self.name(), x.0, T => {
            let x = elements::<T>(self.name(), x)?;
            let (y, h, w) = match *self {
                Self::Up => (kernel::up(x, h, w), 2 * h, 2 * w),
                Self::UpGradient => (kernel::down(x, h, w, 1.0), h / 2, w / 2),
                Self::Down => (kernel::down(x, h, w, 0.25), h / 2, w / 2),
                Self::DownGradient(h, w) => (kernel::down_gradient(x, h, w, 0.25), h, w),
            };
            Ok((T::storage(y), (b, c, h, w).into()))
        })
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
        Ok([Some(eval(&gradient, [&dense(dy)?])?)])
    }

    fn reads(&self, _: [bool; 1]) -> [bool; 1] {
        [false]
    }
}
