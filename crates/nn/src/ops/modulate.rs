use super::op::{Op, eval, run};
use super::{check_types, elements, for_float};
use crate::kernels::Real;
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, Layout, Result, Shape, Tensor, bail};

/// Scale and shift of a norm for each image, `[2, B, C]`: those learned, and on top of them those of the embedding.
///
/// ```text
/// a = w (1 + scale)        b = bias (1 + scale) + shift        scale, shift = halves of e
/// ```
/// # Shapes
/// - `w`, `bias`: `[C]` · `e`: `[B, 2 C]`; none stands for zeros
///
/// # Errors
/// Shapes or types that do not fit.
pub(crate) fn modulate(
    w: &Tensor,
    bias: &Tensor,
    e: Option<&Tensor>,
    batch: usize,
) -> Result<Tensor> {
    check_types("modulate", w, &[bias])?;
    let c = w.elem_count();
    let (w, bias) = (w.contiguous()?, bias.contiguous()?);
    match e {
        None => run(Spread(batch), [&w, &bias]),
        Some(e) if e.dims() == [batch, 2 * c] && e.dtype() == w.dtype() => {
            run(Modulate, [&w, &bias, &e.contiguous()?])
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
            Ok(scale_and_shift::<T>(w?, bias?, Some(e?), batch))
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
        let all = eval(&Gradient, [&dy.contiguous()?, w, bias, e])?;
        let (c, n) = (w.elem_count(), e.elem_count());
        Ok([
            Some(all.narrow(0, 0, c)?),
            Some(all.narrow(0, c, c)?),
            Some(all.narrow(0, 2 * c, n)?.reshape(e.shape())?),
        ])
    }

    fn is_map(&self) -> bool {
        false
    }
}

/// The same without an embedding, for a batch of this many.
struct Spread(usize);

impl Op<2> for Spread {
    fn name(&self) -> &'static str {
        "modulate"
    }

    fn cpu(&self, [w, bias]: [(&CpuStorage, &Layout); 2]) -> Result<(CpuStorage, Shape)> {
        for_float!(self.name(), w.0, T => {
            let (w, bias) = (elements::<T>(self.name(), w)?, elements::<T>(self.name(), bias)?);
            Ok(scale_and_shift::<T>(w, bias, None, self.0))
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
        let all = eval(&Gradient, [&dy.contiguous()?, w, bias, &zeros])?;
        let c = w.elem_count();
        Ok([Some(all.narrow(0, 0, c)?), Some(all.narrow(0, c, c)?)])
    }

    fn is_map(&self) -> bool {
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
            let all = gradients::<T>(dab?, w?, bias?, e?);
            let len = all.len();
            Ok((T::storage(all), len.into()))
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

fn scale_and_shift<T: Real>(
    w: &[T],
    bias: &[T],
    e: Option<&[T]>,
    batch: usize,
) -> (CpuStorage, Shape) {
    let c = w.len();
    let one = T::of(1.0);
    let mut ab = vec![T::default(); 2 * batch * c];
    let (a, b) = ab.split_at_mut(batch * c);
    for (i, (a, b)) in a.chunks_exact_mut(c).zip(b.chunks_exact_mut(c)).enumerate() {
        match e.map(|e| e[2 * i * c..2 * (i + 1) * c].split_at(c)) {
            None => {
                a.copy_from_slice(w);
                b.copy_from_slice(bias);
            }
            Some((scale, shift)) => {
                for j in 0..c {
                    let factor = one + scale[j];
                    a[j] = w[j] * factor;
                    b[j] = bias[j] * factor + shift[j];
                }
            }
        }
    }
    (T::storage(ab), (2, batch, c).into())
}

fn gradients<T: Real>(dab: &[T], w: &[T], bias: &[T], e: &[T]) -> Vec<T> {
    let c = w.len();
    let one = T::of(1.0);
    let mut all = vec![T::default(); 2 * c + e.len()];
    let (dw, rest) = all.split_at_mut(c);
    let (dbias, de) = rest.split_at_mut(c);
    let (da, db) = dab.split_at(dab.len() / 2);
    let images = da.chunks_exact(c).zip(db.chunks_exact(c));
    let embeddings = e.chunks_exact(2 * c).zip(de.chunks_exact_mut(2 * c));
    for ((da, db), (e, de)) in images.zip(embeddings) {
        let (dscale, dshift) = de.split_at_mut(c);
        for j in 0..c {
            let factor = one + e[j];
            dw[j] += da[j] * factor;
            dbias[j] += db[j] * factor;
            dscale[j] = da[j] * w[j] + db[j] * bias[j];
            dshift[j] = db[j];
        }
    }
    all
}
