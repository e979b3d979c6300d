use super::{elements, for_float, same_float};
use crate::kernels::{Real, resample as kernel};
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

/// Nearest-neighbour enlargement by two in both directions.
///
/// # Shapes
/// - `x`: `[B, C, H, W]` · returns: `[B, C, 2H, 2W]`
///
/// # Errors
/// A rank other than four, a type other than f32 or f64.
pub fn upsample_nearest_2x(x: &Tensor) -> Result<Tensor> {
    same_float("upsample_nearest_2x", &[x])?;
    x.dims4()?;
    x.contiguous()?.apply_op1(Resample::Up)
}

/// Mean of each 2x2 square; an odd last row or column is left out, as in PyTorch's `AvgPool2d(2, 2)`.
///
/// # Shapes
/// - `x`: `[B, C, H, W]` · returns: `[B, C, H/2, W/2]`
///
/// # Errors
/// A rank other than four, fewer than two rows or columns, a type other than f32 or f64.
pub fn average_pool_2x(x: &Tensor) -> Result<Tensor> {
    same_float("average_pool_2x", &[x])?;
    let (_, _, h, w) = x.dims4()?;
    if h < 2 || w < 2 {
        candle_core::bail!("average_pool_2x: image {h}x{w} is smaller than 2x2");
    }
    x.contiguous()?.apply_op1(Resample::Down)
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

impl CustomOp1 for Resample {
    fn name(&self) -> &'static str {
        "resample"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (b, c, h, w) = layout.shape().dims4()?;
        for_float!(self.name(), x, T => {
            let x = elements::<T>(self.name(), x, layout)?;
            let (y, h, w) = match *self {
                Self::Up => (kernel::up(x, h, w), 2 * h, 2 * w),
                Self::UpGradient => (kernel::down(x, h, w, 1.0), h / 2, w / 2),
                Self::Down => (kernel::down(x, h, w, 0.25), h / 2, w / 2),
                Self::DownGradient(h, w) => (kernel::down_gradient(x, h, w, 0.25), h, w),
            };
            Ok((T::storage(y), (b, c, h, w).into()))
        })
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let (_, _, h, w) = x.dims4()?;
        let gradient = match self {
            Self::Up => Self::UpGradient,
            Self::Down => Self::DownGradient(h, w),
            Self::UpGradient | Self::DownGradient(..) => {
                candle_core::bail!("resample: second derivatives are not built")
            }
        };
        dy.contiguous()?.apply_op1_no_bwd(&gradient).map(Some)
    }
}
