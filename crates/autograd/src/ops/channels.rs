//! Concatenating channels, and adding one number per channel.

use super::dense::dense;
use super::op::{Op, apply, compute};
use super::{check_dtypes, elements, for_element};
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, Layout, Result, Shape, Tensor, WithDType, bail};

/// Concatenates the channels of `a` and `b`.
///
/// # Shapes
/// - `a`: `[B, C_a, H, W]` · `b`: `[B, C_b, H, W]` · returns: `[B, C_a + C_b, H, W]`
///
/// # Errors
/// Batches, sizes or types that differ.
pub fn concat(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    check_joined("concat", a, b)?;
    apply(Concat, [&dense(a)?, &dense(b)?])
}

/// The shape of the channels of `a` and `b` after one another.
pub(crate) fn check_joined(
    op: &'static str,
    a: &Tensor,
    b: &Tensor,
) -> Result<(usize, usize, usize, usize)> {
    check_dtypes(op, a, &[])?;
    let (left, right) = (a.dims4()?, b.dims4()?);
    if (left.0, left.2, left.3) != (right.0, right.2, right.3) || a.dtype() != b.dtype() {
        bail!(
            "{op}: {:?} {} and {:?} {} do not fit",
            a.shape(),
            a.dtype().as_str(),
            b.shape(),
            b.dtype().as_str()
        );
    }
    Ok((left.0, left.1 + right.1, left.2, left.3))
}

/// `x + e` with one number per image and channel.
///
/// # Shapes
/// - `x`: `[B, C, H, W]` · `e`: `[B, C]`, f32 where `x` is half precision · returns: the shape of `x`
///
/// # Errors
/// Shapes or types that do not fit.
pub fn add_per_channel(x: &Tensor, e: &Tensor) -> Result<Tensor> {
    check_dtypes("add_per_channel", x, &[e])?;
    let (b, c, _, _) = x.dims4()?;
    if e.dims() != [b, c] {
        bail!(
            "add_per_channel: {:?} does not fit {:?}",
            e.shape(),
            x.shape()
        );
    }
    apply(AddPerChannel, [&dense(x)?, &e.contiguous()?])
}

struct Concat;

impl Op<2> for Concat {
    fn name(&self) -> &'static str {
        "concat"
    }

    fn cpu(&self, [a, b]: [(&CpuStorage, &Layout); 2]) -> Result<(CpuStorage, Shape)> {
        let (batch, left, h, w) = a.1.shape().dims4()?;
        let right = b.1.dims()[1];
        for_element!(self.name(), a.0, E, _R => {
            let (a, b) = (elements::<E>(self.name(), a)?, elements::<E>(self.name(), b)?);
            let mut y = Vec::with_capacity(a.len() + b.len());
            let (left_len, right_len) = (left * h * w, right * h * w);
            for i in 0..batch {
                y.extend_from_slice(&a[i * left_len..(i + 1) * left_len]);
                y.extend_from_slice(&b[i * right_len..(i + 1) * right_len]);
            }
            Ok((E::to_cpu_storage_owned(y), (batch, left + right, h, w).into()))
        })
    }

    fn reads_bf16(&self) -> bool {
        true
    }

    #[cfg(feature = "cuda")]
    fn cuda(&self, [a, b]: [(&CudaStorage, &Layout); 2]) -> Result<(CudaStorage, Shape)> {
        sdft_cuda::concat(a, b)
    }

    fn gradients(
        &self,
        [a, b]: [&Tensor; 2],
        dy: &Tensor,
        [da, db]: [bool; 2],
    ) -> Result<[Option<Tensor>; 2]> {
        let dy = &dense(dy)?;
        let (left, right) = (a.dim(1)?, b.dim(1)?);
        let part = |first, n| compute(&Channels { first, n }, [dy]);
        Ok([
            da.then(|| part(0, left)).transpose()?,
            db.then(|| part(left, right)).transpose()?,
        ])
    }

    fn saved(&self, _: [bool; 2]) -> [bool; 2] {
        [false; 2]
    }
}

/// `n` channels from `first` on.
struct Channels {
    first: usize,
    n: usize,
}

impl Op<1> for Channels {
    fn name(&self) -> &'static str {
        "channels"
    }

    fn cpu(&self, [x]: [(&CpuStorage, &Layout); 1]) -> Result<(CpuStorage, Shape)> {
        let (batch, c, h, w) = x.1.shape().dims4()?;
        for_element!(self.name(), x.0, E, _R => {
            let x = elements::<E>(self.name(), x)?;
            let mut y = Vec::with_capacity(batch * self.n * h * w);
            for image in x.chunks_exact((c * h * w).max(1)) {
                y.extend_from_slice(&image[self.first * h * w..(self.first + self.n) * h * w]);
            }
            Ok((E::to_cpu_storage_owned(y), (batch, self.n, h, w).into()))
        })
    }

    fn reads_bf16(&self) -> bool {
        true
    }

    #[cfg(feature = "cuda")]
    fn cuda(&self, [x]: [(&CudaStorage, &Layout); 1]) -> Result<(CudaStorage, Shape)> {
        sdft_cuda::channels(x, self.first, self.n)
    }
}

struct AddPerChannel;

impl Op<2> for AddPerChannel {
    fn name(&self) -> &'static str {
        "add_per_channel"
    }

    fn cpu(&self, [x, e]: [(&CpuStorage, &Layout); 2]) -> Result<(CpuStorage, Shape)> {
        let shape = x.1.shape().clone();
        for_element!(self.name(), x.0, E, R => {
            let (x, e) = (elements::<E>(self.name(), x)?, elements::<R>(self.name(), e)?);
            Ok((E::to_cpu_storage_owned(sdft_kernels::add_per_plane(x, e)), shape))
        })
    }

    fn reads_bf16(&self) -> bool {
        true
    }

    #[cfg(feature = "cuda")]
    fn cuda(&self, [x, e]: [(&CudaStorage, &Layout); 2]) -> Result<(CudaStorage, Shape)> {
        sdft_cuda::add_per_channel(x, e)
    }

    fn gradients(
        &self,
        _: [&Tensor; 2],
        dy: &Tensor,
        [_, de]: [bool; 2],
    ) -> Result<[Option<Tensor>; 2]> {
        let de = de.then(|| compute(&PlaneSums, [&dense(dy)?])).transpose()?;
        Ok([Some(dy.clone()), de])
    }

    fn saved(&self, _: [bool; 2]) -> [bool; 2] {
        [false; 2]
    }
}

/// The sum of each plane, `[B, C]`.
struct PlaneSums;

impl Op<1> for PlaneSums {
    fn name(&self) -> &'static str {
        "plane sums"
    }

    fn cpu(&self, [x]: [(&CpuStorage, &Layout); 1]) -> Result<(CpuStorage, Shape)> {
        let (b, c, h, w) = x.1.shape().dims4()?;
        for_element!(self.name(), x.0, E, R => {
            let sums = sdft_kernels::plane_sums::<E>(elements(self.name(), x)?, h * w);
            Ok((R::to_cpu_storage_owned(sums), (b, c).into()))
        })
    }

    fn reads_bf16(&self) -> bool {
        true
    }

    #[cfg(feature = "cuda")]
    fn cuda(&self, [x]: [(&CudaStorage, &Layout); 1]) -> Result<(CudaStorage, Shape)> {
        sdft_cuda::plane_sums(x)
    }

    fn output_is_f32(&self) -> bool {
        true
    }
}
