//! The affine map of a norm, modulated by an embedding.

use super::op::{Op, apply, compute};
use super::{check_dtypes, elements, for_float};
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, Layout, Result, Shape, Tensor, WithDType, bail};

/// Scale and shift of a norm for each image, `[2, B, C]`: the learned ones, modulated by those of an embedding.
///
/// ```text
/// a = w (1 + scale)        b = bias (1 + scale) + shift        scale, shift = halves of e
/// ```
/// # Shapes
/// - `w`, `bias`: `[C]` · `e`: `[B, 2 C]`, zeros if `None`
///
/// # Errors
/// Shapes or types that do not fit.
pub(super) fn modulate(
    w: &Tensor,
    bias: &Tensor,
    e: Option<&Tensor>,
    batch: usize,
) -> Result<Tensor> {
    check_dtypes("modulate", w, &[bias])?;
    let c = w.elem_count();
    let (w, bias) = (w.contiguous()?, bias.contiguous()?);
    match e {
        None => apply(Spread(batch), [&w, &bias]),
        Some(e) if e.dims() == [batch, 2 * c] && e.dtype() == w.dtype() => {
            apply(Modulate, [&w, &bias, &e.contiguous()?])
        }
        Some(e) => bail!(
            "modulate: {:?} does not hold scale and shift of {c} channels for a batch of {batch}",
            e.shape()
        ),
    }
}

struct Modulate;

impl Op<3> for Modulate {
    fn name(&self) -> &'static str {
        "modulate"
    }

    fn cpu(&self, [w, bias, e]: [(&CpuStorage, &Layout); 3]) -> Result<(CpuStorage, Shape)> {
        let batch = e.1.dims()[0];
        for_float!(self.name(), w.0, T => {
            let [w, bias, e] = [w, bias, e].map(|x| elements::<T>(self.name(), x));
            let (w, bias, e) = (w?, bias?, e?);
            let shape = (2, batch, w.len()).into();
            Ok((T::to_cpu_storage_owned(sdft_kernels::modulate(w, bias, Some(e), batch)), shape))
        })
    }

    #[cfg(feature = "cuda")]
    fn cuda(&self, [w, bias, e]: [(&CudaStorage, &Layout); 3]) -> Result<(CudaStorage, Shape)> {
        sdft_cuda::modulate(w, bias, Some(e), e.1.dims()[0])
    }

    fn gradients(
        &self,
        [w, bias, e]: [&Tensor; 3],
        dy: &Tensor,
        _: [bool; 3],
    ) -> Result<[Option<Tensor>; 3]> {
        let all = compute(&Gradient, [&dy.contiguous()?, w, bias, e])?;
        let (c, n) = (w.elem_count(), e.elem_count());
        Ok([
            Some(all.narrow(0, 0, c)?),
            Some(all.narrow(0, c, c)?),
            Some(all.narrow(0, 2 * c, n)?.reshape(e.shape())?),
        ])
    }

    fn is_feature_map(&self) -> bool {
        false
    }
}

/// The same without an embedding, for a batch of this size.
struct Spread(usize);

impl Op<2> for Spread {
    fn name(&self) -> &'static str {
        "modulate"
    }

    fn cpu(&self, [w, bias]: [(&CpuStorage, &Layout); 2]) -> Result<(CpuStorage, Shape)> {
        for_float!(self.name(), w.0, T => {
            let (w, bias) = (elements::<T>(self.name(), w)?, elements::<T>(self.name(), bias)?);
            let shape = (2, self.0, w.len()).into();
            Ok((T::to_cpu_storage_owned(sdft_kernels::modulate(w, bias, None, self.0)), shape))
        })
    }

    #[cfg(feature = "cuda")]
    fn cuda(&self, [w, bias]: [(&CudaStorage, &Layout); 2]) -> Result<(CudaStorage, Shape)> {
        sdft_cuda::modulate(w, bias, None, self.0)
    }

    fn gradients(
        &self,
        [w, bias]: [&Tensor; 2],
        dy: &Tensor,
        _: [bool; 2],
    ) -> Result<[Option<Tensor>; 2]> {
        // Sums over the batch.
        let zeros = Tensor::zeros((self.0, 2 * w.elem_count()), w.dtype(), w.device())?;
        let all = compute(&Gradient, [&dy.contiguous()?, w, bias, &zeros])?;
        let c = w.elem_count();
        Ok([Some(all.narrow(0, 0, c)?), Some(all.narrow(0, c, c)?)])
    }

    fn is_feature_map(&self) -> bool {
        false
    }
}

/// Gradients of `w`, `bias` and `e`, one after the other in one flat tensor.
struct Gradient;

impl Op<4> for Gradient {
    fn name(&self) -> &'static str {
        "modulate gradient"
    }

    fn cpu(&self, [dab, w, bias, e]: [(&CpuStorage, &Layout); 4]) -> Result<(CpuStorage, Shape)> {
        for_float!(self.name(), w.0, T => {
            let [dab, w, bias, e] = [dab, w, bias, e].map(|x| elements::<T>(self.name(), x));
            let all = sdft_kernels::modulate_gradient::<T>(dab?, w?, bias?, e?);
            let len = all.len();
            Ok((T::to_cpu_storage_owned(all), len.into()))
        })
    }

    #[cfg(feature = "cuda")]
    fn cuda(
        &self,
        [dab, w, bias, e]: [(&CudaStorage, &Layout); 4],
    ) -> Result<(CudaStorage, Shape)> {
        sdft_cuda::modulate_gradient(dab, w, bias, e)
    }
}
