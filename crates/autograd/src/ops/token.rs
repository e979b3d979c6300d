//! Layer norm over channels and gated sums, modulated by an embedding of each image.

use super::dense::dense;
use super::op::{Op, apply, compute};
use super::{check_dtypes, elements, for_float};
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, Layout, Result, Shape, Tensor, WithDType, bail};
use sdft_kernels::TokenShape;

/// Layer norm over the channels of each token, with a scale and shift of each image.
///
/// Source: DiT `modulate(norm(x), shift, scale)`.
/// ```text
/// y = (x - mean) / sqrt(variance + eps) (1 + scale) + shift        shift, scale = parts first, first + 1 of e
/// ```
/// # Shapes
/// - `x`: `[B, C, N]` · `e`: `[B, parts C]`, f32 where `x` is half precision · returns: the shape of `x`
///
/// # Errors
/// Shapes or types that do not fit.
pub fn token_norm(x: &Tensor, e: &Tensor, first: usize, eps: f64) -> Result<Tensor> {
    let shape = shape("token_norm", x, e, first, 2)?;
    apply(Norm { shape, eps }, [&dense(x)?, &e.contiguous()?])
}

/// `x + gate h` with a gate of each image and channel: the part `first` of `e`.
///
/// Source: DiT, adaLN-Zero.
///
/// # Shapes
/// - `x`, `h`: `[B, C, N]` · `e`: `[B, parts C]`, f32 where `x` is half precision · returns: the shape of `x`
///
/// # Errors
/// Shapes or types that do not fit.
pub fn add_gated(x: &Tensor, h: &Tensor, e: &Tensor, first: usize) -> Result<Tensor> {
    let shape = shape("add_gated", x, e, first, 1)?;
    super::check_same("add_gated", x, h)?;
    apply(Gated(shape), [&dense(x)?, &dense(h)?, &e.contiguous()?])
}

fn shape(
    op: &'static str,
    x: &Tensor,
    e: &Tensor,
    first: usize,
    read: usize,
) -> Result<TokenShape> {
    check_dtypes(op, x, &[e])?;
    let (batch, channels, n) = x.dims3()?;
    let (images, width) = e.dims2()?;
    let parts = width.checked_div(channels).unwrap_or(0);
    if images != batch || parts * channels != width || first + read > parts || n == 0 {
        bail!(
            "{op}: {:?} and {:?} with parts {first} to {} do not fit",
            x.shape(),
            e.shape(),
            first + read - 1
        );
    }
    Ok(TokenShape {
        channels,
        n,
        parts,
        first,
    })
}

#[cfg(feature = "cuda")]
fn on_gpu(shape: &TokenShape) -> sdft_cuda::Tokens {
    sdft_cuda::Tokens {
        channels: shape.channels,
        n: shape.n,
        parts: shape.parts,
        first: shape.first,
    }
}

/// Two gradients that lie one after the other in a flat tensor: that of `x`, and that of the embedding.
fn split(all: &Tensor, x: &Tensor, e: &Tensor) -> Result<[Tensor; 2]> {
    let n = x.elem_count();
    let dx = all.narrow(0, 0, n)?.to_dtype(x.dtype())?;
    let dx = match x.device().is_cuda() {
        // In the order of the memory.
        true => {
            let (b, c, n) = x.dims3()?;
            dx.reshape((b, n, c))?.permute((0, 2, 1))?
        }
        false => dx.reshape(x.shape())?,
    };
    let de = all.narrow(0, n, e.elem_count())?.reshape(e.shape())?;
    Ok([dx, de])
}

struct Norm {
    shape: TokenShape,
    eps: f64,
}

impl Op<2> for Norm {
    fn name(&self) -> &'static str {
        "token_norm"
    }

    fn cpu(&self, [x, e]: [(&CpuStorage, &Layout); 2]) -> Result<(CpuStorage, Shape)> {
        let shape = x.1.shape().clone();
        for_float!(self.name(), x.0, T => {
            let (x, e) = (elements::<T>(self.name(), x)?, elements(self.name(), e)?);
            Ok((T::to_cpu_storage_owned(sdft_kernels::token_norm(&self.shape, x, e, self.eps)), shape))
        })
    }

    #[cfg(feature = "cuda")]
    fn cuda(&self, [x, e]: [(&CudaStorage, &Layout); 2]) -> Result<(CudaStorage, Shape)> {
        sdft_cuda::token_norm(&on_gpu(&self.shape), self.eps, x, e)
    }

    fn gradients(
        &self,
        [x, e]: [&Tensor; 2],
        dy: &Tensor,
        _: [bool; 2],
    ) -> Result<[Option<Tensor>; 2]> {
        let op = NormGradient {
            shape: self.shape,
            eps: self.eps,
        };
        let all = compute(&op, [x, e, &dense(dy)?])?;
        Ok(split(&all, x, e)?.map(Some))
    }
}

/// Gradients of `x` and `e`, one after the other in one flat tensor.
struct NormGradient {
    shape: TokenShape,
    eps: f64,
}

impl Op<3> for NormGradient {
    fn name(&self) -> &'static str {
        "token_norm gradient"
    }

    fn cpu(&self, [x, e, dy]: [(&CpuStorage, &Layout); 3]) -> Result<(CpuStorage, Shape)> {
        for_float!(self.name(), x.0, T => {
            let [x, e, dy] = [x, e, dy].map(|x| elements::<T>(self.name(), x));
            let all = sdft_kernels::token_norm_gradient(&self.shape, x?, e?, self.eps, dy?);
            let len = all.len();
            Ok((T::to_cpu_storage_owned(all), len.into()))
        })
    }

    #[cfg(feature = "cuda")]
    fn cuda(&self, [x, e, dy]: [(&CudaStorage, &Layout); 3]) -> Result<(CudaStorage, Shape)> {
        sdft_cuda::token_norm_gradient(&on_gpu(&self.shape), self.eps, x, e, dy)
    }

    fn output_is_f32(&self) -> bool {
        true
    }
}

struct Gated(TokenShape);

impl Op<3> for Gated {
    fn name(&self) -> &'static str {
        "add_gated"
    }

    fn cpu(&self, [x, h, e]: [(&CpuStorage, &Layout); 3]) -> Result<(CpuStorage, Shape)> {
        let shape = x.1.shape().clone();
        for_float!(self.name(), x.0, T => {
            let [x, h, e] = [x, h, e].map(|x| elements::<T>(self.name(), x));
            Ok((T::to_cpu_storage_owned(sdft_kernels::add_gated(&self.0, x?, h?, e?)), shape))
        })
    }

    #[cfg(feature = "cuda")]
    fn cuda(&self, [x, h, e]: [(&CudaStorage, &Layout); 3]) -> Result<(CudaStorage, Shape)> {
        sdft_cuda::add_gated(&on_gpu(&self.0), x, h, e)
    }

    fn gradients(
        &self,
        [_, h, e]: [&Tensor; 3],
        dy: &Tensor,
        [_, dh, de]: [bool; 3],
    ) -> Result<[Option<Tensor>; 3]> {
        let [dh, de] = match dh || de {
            true => {
                let all = compute(&GatedGradient(self.0), [h, e, &dense(dy)?])?;
                split(&all, h, e)?.map(Some)
            }
            false => [None, None],
        };
        Ok([Some(dy.clone()), dh, de])
    }

    fn saved(&self, [_, dh, de]: [bool; 3]) -> [bool; 3] {
        [false, dh || de, dh || de]
    }
}

/// Gradients of `h` and `e`, one after the other in one flat tensor.
struct GatedGradient(TokenShape);

impl Op<3> for GatedGradient {
    fn name(&self) -> &'static str {
        "add_gated gradient"
    }

    fn cpu(&self, [h, e, dy]: [(&CpuStorage, &Layout); 3]) -> Result<(CpuStorage, Shape)> {
        for_float!(self.name(), h.0, T => {
            let [h, e, dy] = [h, e, dy].map(|x| elements::<T>(self.name(), x));
            let all = sdft_kernels::add_gated_gradient(&self.0, h?, e?, dy?);
            let len = all.len();
            Ok((T::to_cpu_storage_owned(all), len.into()))
        })
    }

    #[cfg(feature = "cuda")]
    fn cuda(&self, [h, e, dy]: [(&CudaStorage, &Layout); 3]) -> Result<(CudaStorage, Shape)> {
        sdft_cuda::add_gated_gradient(&on_gpu(&self.0), h, e, dy)
    }

    fn output_is_f32(&self) -> bool {
        true
    }
}
