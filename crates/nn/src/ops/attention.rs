use super::dense::dense;
use super::op::{Op, eval, run};
use super::{check_types, elements, for_float};
use crate::kernels::Real;
use crate::kernels::attention::{self as kernel, AttentionOrder, AttentionShape};
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, Layout, Result, Shape, Tensor, bail};

/// Multi-head self-attention on a joint projection of queries, keys and values.
///
/// Source: guided-diffusion `QKVAttentionLegacy` and `QKVAttention`.
/// ```text
/// out_i = sum_j softmax_j( q_i · k_j / sqrt(C / heads) ) v_j        per head
/// ```
/// # Shapes
/// - `qkv`: `[B, 3 C, N]` · returns: `[B, C, N]`
///
/// # Errors
/// `3 C` that does not split into 3 x `heads`, a type that is not floating.
pub fn attention(qkv: &Tensor, heads: usize, order: AttentionOrder) -> Result<Tensor> {
    check_types("attention", qkv, &[])?;
    let (batch, rows, n) = qkv.dims3()?;
    if heads == 0 || rows % (3 * heads) != 0 || rows == 0 || n == 0 {
        bail!(
            "attention: input {:?} does not split into 3 x {heads} heads",
            qkv.shape()
        );
    }
    let shape = AttentionShape {
        batch,
        channels: rows / 3,
        n,
        heads,
        order,
    };
    run(Attention(shape), [&dense(qkv)?])
}

struct Attention(AttentionShape);

impl Op<1> for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu(&self, [qkv]: [(&CpuStorage, &Layout); 1]) -> Result<(CpuStorage, Shape)> {
        let s = &self.0;
        for_float!(self.name(), qkv.0, T => {
            let out = kernel::forward::<T>(s, elements(self.name(), qkv)?);
            Ok((T::storage(out), (s.batch, s.channels, s.n).into()))
        })
    }

    #[cfg(feature = "cuda")]
    fn cuda(&self, [qkv]: [(&CudaStorage, &Layout); 1]) -> Result<(CudaStorage, Shape)> {
        sdft_cuda::attention_forward(&self.0.on_gpu(), qkv)
    }

    fn gradients(
        &self,
        [qkv]: [&Tensor; 1],
        dy: &Tensor,
        _: [bool; 1],
    ) -> Result<[Option<Tensor>; 1]> {
        Ok([Some(eval(&Gradient(self.0), [qkv, &dense(dy)?])?)])
    }
}

struct Gradient(AttentionShape);

impl Op<2> for Gradient {
    fn name(&self) -> &'static str {
        "attention gradient"
    }

    fn cpu(&self, [qkv, dout]: [(&CpuStorage, &Layout); 2]) -> Result<(CpuStorage, Shape)> {
        let shape = qkv.1.shape().clone();
        for_float!(self.name(), qkv.0, T => {
            let dqkv = kernel::backward::<T>(
                &self.0,
                elements(self.name(), qkv)?,
                elements(self.name(), dout)?,
            );
            Ok((T::storage(dqkv), shape))
        })
    }

    #[cfg(feature = "cuda")]
    fn cuda(&self, [qkv, dout]: [(&CudaStorage, &Layout); 2]) -> Result<(CudaStorage, Shape)> {
        sdft_cuda::attention_backward(&self.0.on_gpu(), qkv, dout)
    }
}
