//! Changes of resolution by two with a filter.

use super::dense::dense;
use super::op::{Op, apply, compute};
use super::{check_dtypes, elements, for_float};
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, Layout, Result, Shape, Tensor, WithDType, bail};
use sdft_kernels::FilterShape;

/// The longest filter; a GPU gets its taps as arguments of the kernel.
const MOST_TAPS: usize = 16;

/// Filters each channel along both axes and keeps every second pixel: a depthwise convolution of stride two.
///
/// ```text
/// y_i = sum_k taps_k x_(2i + k - pad)       along each axis, zeros outside
/// ```
/// # Shapes
/// - `x`: `[B, C, H, W]` · returns: `[B, C, (H + 2 pad - n) / 2 + 1, (W + 2 pad - n) / 2 + 1]` for n taps
///
/// # Errors
/// No taps or more than 16, an image smaller than the filter, a rank other than four, or a type that is not floating-point.
pub fn resample_filter_down(x: &Tensor, taps: &[f64], pad: usize) -> Result<Tensor> {
    let (_, _, h, w) = check(x, taps)?;
    if h + 2 * pad < taps.len() || w + 2 * pad < taps.len() {
        bail!(
            "resample_filter: image {h}x{w} with padding {pad} is smaller than the filter of {} taps",
            taps.len()
        );
    }
    let side = |n: usize| (n + 2 * pad - taps.len()) / 2 + 1;
    Filter::new(taps, pad, false, [h, w], [side(h), side(w)]).apply(x)
}

/// Spreads each pixel with the filter over an image of twice the size: a depthwise transposed convolution of stride two.
///
/// ```text
/// y_j = sum_(2i + k - pad = j) taps_k x_i   along each axis
/// ```
/// # Shapes
/// - `x`: `[B, C, H, W]` · returns: `[B, C, 2 (H - 1) + n - 2 pad, 2 (W - 1) + n - 2 pad]` for n taps
///
/// # Errors
/// No taps or more than 16, a result without pixels, a rank other than four, or a type that is not floating-point.
pub fn resample_filter_up(x: &Tensor, taps: &[f64], pad: usize) -> Result<Tensor> {
    let (_, _, h, w) = check(x, taps)?;
    let side = |n: usize| (2 * (n - 1) + taps.len()).saturating_sub(2 * pad);
    if side(h) == 0 || side(w) == 0 {
        bail!(
            "resample_filter: padding {pad} leaves nothing of an image {h}x{w} and a filter of {} taps",
            taps.len()
        );
    }
    Filter::new(taps, pad, true, [h, w], [side(h), side(w)]).apply(x)
}

fn check(x: &Tensor, taps: &[f64]) -> Result<(usize, usize, usize, usize)> {
    check_dtypes("resample_filter", x, &[])?;
    if !(1..=MOST_TAPS).contains(&taps.len()) {
        bail!(
            "resample_filter: expected 1 to {MOST_TAPS} taps, found {}",
            taps.len()
        );
    }
    let dims = x.dims4()?;
    if dims.2 == 0 || dims.3 == 0 {
        bail!("resample_filter: the image {:?} has no pixels", x.shape());
    }
    Ok(dims)
}

struct Filter {
    shape: FilterShape,
    up: bool,
}

impl Filter {
    fn new(taps: &[f64], pad: usize, up: bool, from: [usize; 2], to: [usize; 2]) -> Self {
        let taps = taps.to_vec();
        Self {
            shape: FilterShape {
                taps,
                pad,
                from,
                to,
            },
            up,
        }
    }

    fn apply(self, x: &Tensor) -> Result<Tensor> {
        apply(self, [&dense(x)?])
    }
}

impl Op<1> for Filter {
    fn name(&self) -> &'static str {
        "resample_filter"
    }

    fn cpu(&self, [x]: [(&CpuStorage, &Layout); 1]) -> Result<(CpuStorage, Shape)> {
        let (b, c, ..) = x.1.shape().dims4()?;
        let [h, w] = self.shape.to;
        for_float!(self.name(), x.0, T => {
            let x = elements::<T>(self.name(), x)?;
            let y = match self.up {
                true => sdft_kernels::filter_up(&self.shape, x),
                false => sdft_kernels::filter_down(&self.shape, x),
            };
            Ok((T::to_cpu_storage_owned(y), (b, c, h, w).into()))
        })
    }

    #[cfg(feature = "cuda")]
    fn cuda(&self, [x]: [(&CudaStorage, &Layout); 1]) -> Result<(CudaStorage, Shape)> {
        let FilterShape { taps, pad, to, .. } = &self.shape;
        sdft_cuda::filter(x, taps, *pad, self.up, *to)
    }

    fn gradients(&self, _: [&Tensor; 1], dy: &Tensor, _: [bool; 1]) -> Result<[Option<Tensor>; 1]> {
        let FilterShape {
            taps,
            pad,
            from,
            to,
        } = &self.shape;
        // Each direction is the adjoint of the other.
        let adjoint = Self::new(taps, *pad, !self.up, *to, *from);
        Ok([Some(compute(&adjoint, [&dense(dy)?])?)])
    }

    fn saved(&self, _: [bool; 1]) -> [bool; 1] {
        [false]
    }
}
