//! Resampling by two with a separable filter.

use super::dense::dense;
use super::op::{Op, apply, compute};
use super::{check_dtypes, elements, for_float};
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, Layout, Result, Shape, Tensor, WithDType, bail};
use sdft_kernels::FilterShape;

/// Downsampling by two: each channel convolved with `filter x filter` at stride 2, padded by `pad` zeros on each side. A filter whose
/// elements sum to 1 keeps the mean, such as `[1, 3, 3, 1] / 8` with a padding of 1.
///
/// # Shapes
/// - `x`: `[B, C, H, W]` · `filter`: `[K]`, a constant, f32 if `x` is half precision
/// - returns: `[B, C, (H + 2 pad - K) / 2 + 1, (W + 2 pad - K) / 2 + 1]`
///
/// # Errors
/// Shapes or types that do not fit, or a filter longer than the padded image. The gradient of a filter is an error, too.
pub fn resample_filter_down(x: &Tensor, filter: &Tensor, pad: usize) -> Result<Tensor> {
    check_dtypes("resample_filter_down", x, &[filter])?;
    let ((_, _, h, w), k) = (x.dims4()?, filter.dims1()?);
    let shape = FilterShape { h, w, k, pad };
    if k == 0 || h.min(w) + 2 * pad < k {
        bail!(
            "resample_filter_down: a filter of {k} elements does not fit an image {h}x{w} with padding {pad}"
        );
    }
    let down = Filter {
        shape,
        up: false,
        factor: 1.0,
    };
    apply(down, [&dense(x)?, &filter.contiguous()?])
}

/// Upsampling by two: the adjoint of [`resample_filter_down`] times 4, a transposed convolution of each channel with
/// `4 filter x filter`. A filter whose elements sum to 1 keeps the mean.
///
/// # Shapes
/// - `x`: `[B, C, H, W]` · `filter`: `[K]`, a constant, f32 if `x` is half precision
/// - returns: `[B, C, 2 (H - 1) + K - 2 pad, 2 (W - 1) + K - 2 pad]`
///
/// # Errors
/// Shapes or types that do not fit, or padding that leaves nothing of the image. The gradient of a filter is an error, too.
pub fn resample_filter_up(x: &Tensor, filter: &Tensor, pad: usize) -> Result<Tensor> {
    check_dtypes("resample_filter_up", x, &[filter])?;
    let ((_, _, h, w), k) = (x.dims4()?, filter.dims1()?);
    if k == 0 || h == 0 || w == 0 || 2 * (h.min(w) - 1) + k <= 2 * pad {
        bail!(
            "resample_filter_up: a filter of {k} elements with padding {pad} leaves nothing of an image {h}x{w}"
        );
    }
    let large = |side: usize| 2 * (side - 1) + k - 2 * pad;
    let shape = FilterShape {
        h: large(h),
        w: large(w),
        k,
        pad,
    };
    let up = Filter {
        shape,
        up: true,
        factor: 4.0,
    };
    apply(up, [&dense(x)?, &filter.contiguous()?])
}

/// One direction of a resampling; the other is its gradient.
struct Filter {
    shape: FilterShape,
    up: bool,
    factor: f64,
}

impl Op<2> for Filter {
    fn name(&self) -> &'static str {
        if self.up {
            "resample_filter_up"
        } else {
            "resample_filter_down"
        }
    }

    fn cpu(&self, [x, filter]: [(&CpuStorage, &Layout); 2]) -> Result<(CpuStorage, Shape)> {
        let (b, c, _, _) = x.1.shape().dims4()?;
        let s = &self.shape;
        for_float!(self.name(), x.0, T => {
            let (x, filter) = (elements::<T>(self.name(), x)?, elements::<T>(self.name(), filter)?);
            let (y, h, w) = match self.up {
                true => (sdft_kernels::filter_up(s, x, filter, self.factor), s.h, s.w),
                false => {
                    let y = sdft_kernels::filter_down(s, x, filter, self.factor);
                    (y, s.small_h(), s.small_w())
                }
            };
            Ok((T::to_cpu_storage_owned(y), (b, c, h, w).into()))
        })
    }

    #[cfg(feature = "cuda")]
    fn cuda(&self, [x, filter]: [(&CudaStorage, &Layout); 2]) -> Result<(CudaStorage, Shape)> {
        let s = &self.shape;
        let (large, small) = ([s.h, s.w], [s.small_h(), s.small_w()]);
        let to = if self.up { large } else { small };
        #[expect(clippy::cast_possible_truncation, reason = "1 or 4")]
        let factor = self.factor as f32;
        sdft_cuda::filter(self.up, x, filter, s.pad, to, factor)
    }

    fn gradients(
        &self,
        [_, filter]: [&Tensor; 2],
        dy: &Tensor,
        [_, of_filter]: [bool; 2],
    ) -> Result<[Option<Tensor>; 2]> {
        if of_filter {
            bail!("{}: the filter must be a constant", self.name());
        }
        let adjoint = Self {
            up: !self.up,
            ..*self
        };
        Ok([Some(compute(&adjoint, [&dense(dy)?, filter])?), None])
    }

    fn saved(&self, _: [bool; 2]) -> [bool; 2] {
        [false, true]
    }
}
