use super::{elements, for_float, same_float};
use crate::kernels::Real;
use crate::kernels::attention::{self as kernel, AttentionOrder, AttentionShape};
use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor, bail};

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
/// `3 C` that does not split into 3 x `heads`, a type other than f32 or f64.
pub fn attention(qkv: &Tensor, heads: usize, order: AttentionOrder) -> Result<Tensor> {
    same_float("attention", &[qkv])?;
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
    qkv.contiguous()?.apply_op1(Attention(shape))
}

struct Attention(AttentionShape);

impl CustomOp1 for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(&self, qkv: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let s = &self.0;
        for_float!(self.name(), qkv, T => {
            let out = kernel::forward::<T>(s, elements(self.name(), qkv, layout)?);
            Ok((T::storage(out), (s.batch, s.channels, s.n).into()))
        })
    }

    fn bwd(&self, qkv: &Tensor, _out: &Tensor, dout: &Tensor) -> Result<Option<Tensor>> {
        qkv.apply_op2_no_bwd(&dout.contiguous()?, &Gradient(self.0))
            .map(Some)
    }
}

struct Gradient(AttentionShape);

impl CustomOp2 for Gradient {
    fn name(&self) -> &'static str {
        "attention gradient"
    }

    fn cpu_fwd(
        &self,
        qkv: &CpuStorage,
        qkv_layout: &Layout,
        dout: &CpuStorage,
        dout_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        for_float!(self.name(), qkv, T => {
            let dqkv = kernel::backward::<T>(
                &self.0,
                elements(self.name(), qkv, qkv_layout)?,
                elements(self.name(), dout, dout_layout)?,
            );
            Ok((T::storage(dqkv), qkv_layout.shape().clone()))
        })
    }
}
