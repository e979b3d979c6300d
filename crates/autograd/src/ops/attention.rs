//! Multi-head self-attention.

use super::dense::dense;
use super::op::{Op, apply, compute};
use super::{check_dtypes, elements, for_element};
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, Layout, Result, Shape, Tensor, WithDType, bail};
use sdft_kernels::{AttentionOrder, AttentionShape};

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
    check_dtypes("attention", qkv, &[])?;
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
    apply(Attention(shape), [&dense(qkv)?])
}

#[cfg(feature = "cuda")]
fn on_gpu(shape: &AttentionShape) -> sdft_cuda::Attention {
    sdft_cuda::Attention {
        batch: shape.batch,
        channels: shape.channels,
        n: shape.n,
        heads: shape.heads,
        head_by_head: shape.order == AttentionOrder::Legacy,
    }
}

/// Multiplications and additions of one product of all heads with a row and a column for each position.
fn product(shape: &AttentionShape) -> f64 {
    2.0 * (shape.batch * shape.n * shape.n * shape.channels) as f64
}

struct Attention(AttentionShape);

impl Op<1> for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu(&self, [qkv]: [(&CpuStorage, &Layout); 1]) -> Result<(CpuStorage, Shape)> {
        let s = &self.0;
        for_element!(self.name(), qkv.0, E, _R => {
            let out = sdft_kernels::attention::<E>(s, elements(self.name(), qkv)?);
            Ok((E::to_cpu_storage_owned(out), (s.batch, s.channels, s.n).into()))
        })
    }

    fn reads_bf16(&self) -> bool {
        true
    }

    fn flops(&self) -> [f64; 2] {
        [2.0 * product(&self.0); 2]
    }

    #[cfg(feature = "cuda")]
    fn cuda(&self, [qkv]: [(&CudaStorage, &Layout); 1]) -> Result<(CudaStorage, Shape)> {
        sdft_cuda::attention_forward(&on_gpu(&self.0), qkv)
    }

    fn gradients(
        &self,
        [qkv]: [&Tensor; 1],
        dy: &Tensor,
        _: [bool; 1],
    ) -> Result<[Option<Tensor>; 1]> {
        Ok([Some(compute(&Gradient(self.0), [qkv, &dense(dy)?])?)])
    }
}

struct Gradient(AttentionShape);

impl Op<2> for Gradient {
    fn name(&self) -> &'static str {
        "attention gradient"
    }

    fn cpu(&self, [qkv, dout]: [(&CpuStorage, &Layout); 2]) -> Result<(CpuStorage, Shape)> {
        let shape = qkv.1.shape().clone();
        for_element!(self.name(), qkv.0, E, _R => {
            let dqkv = sdft_kernels::attention_gradient::<E>(
                &self.0,
                elements(self.name(), qkv)?,
                elements(self.name(), dout)?,
            );
            Ok((E::to_cpu_storage_owned(dqkv), shape))
        })
    }

    fn reads_bf16(&self) -> bool {
        true
    }

    fn flops(&self) -> [f64; 2] {
        // The scores again, and the gradients of weights, values, queries and keys.
        [5.0 * product(&self.0); 2]
    }

    #[cfg(feature = "cuda")]
    fn cuda(&self, [qkv, dout]: [(&CudaStorage, &Layout); 2]) -> Result<(CudaStorage, Shape)> {
        sdft_cuda::attention_backward(&on_gpu(&self.0), qkv, dout)
    }
}
