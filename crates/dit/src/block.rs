//! The transformer block.

use crate::DitConfig;
use candle_core::{Result, Tensor};
use sdft_autograd::{add_gated, attention, gelu, recompute, silu, token_norm};
use sdft_kernels::AttentionOrder;
use sdft_nn::{Dropout, Init, Linear, OwnedKey, Pointwise, Qkv, Scope};
use sdft_noise::DropoutKey;

/// Where shift, scale and gate of attention and of the dense layers are among the parts of the modulation.
const ATTENTION: usize = 0;
const DENSE: usize = 3;
/// The gate after the shift.
const GATE: usize = 2;

/// Attention and two dense layers on tokens `[B, C, N]`, each with a norm before it and a gate after it that the embedding modulates
/// (adaLN-Zero).
///
/// Source: diffusers `BasicTransformerBlock` with `ada_norm_zero`; the official code's `DiTBlock`.
/// ```text
/// x <- x + gate_1 attention( norm(x) (1 + scale_1) + shift_1 )
/// x <- x + gate_2 dense( norm(x) (1 + scale_2) + shift_2 )        all six are layers of silu(embedding)
/// ```
#[derive(Clone, Debug)]
pub(crate) struct Block {
    modulation: Linear,
    qkv: Qkv,
    to_out: Pointwise,
    dense: [Pointwise; 2],
    heads: usize,
    norm_eps: f64,
    dropout_attention: Dropout,
    dropout_dense: Dropout,
}

impl Block {
    pub(crate) fn load(scope: &Scope<'_>, config: &DitConfig) -> Result<Self> {
        let width = config.width();
        let zero = Init::Constant(0.0);
        let modulation = Linear::load_with(&scope.pp("norm1.linear"), width, 6 * width, zero)?;
        let attention = scope.pp("attn1");
        // The official code initialises the three as one layer.
        let init = Init::xavier(width, 3 * width);
        let projection = |name: &str| match config.attention_bias {
            true => Linear::load_with(&attention.pp(name), width, width, init),
            false => Linear::load_unbiased(&attention.pp(name), width, width, init),
        };
        let qkv = Qkv::new([
            projection("to_q")?,
            projection("to_k")?,
            projection("to_v")?,
        ]);
        let layer = |name: &str, n_in, n_out| {
            let init = Init::xavier(n_in, n_out);
            Linear::load_with(&scope.pp(name), n_in, n_out, init).map(Pointwise::from)
        };
        let dropout = |name: &str| Dropout::new(config.dropout, scope.pp(name).prefix());
        Ok(Self {
            modulation,
            qkv,
            to_out: layer("attn1.to_out.0", width, width)?,
            dense: [
                layer("ff.net.0.proj", width, 4 * width)?,
                layer("ff.net.2", 4 * width, width)?,
            ],
            heads: config.num_attention_heads,
            norm_eps: config.norm_eps,
            dropout_attention: dropout("attn1.to_out.1"),
            dropout_dense: dropout("ff.net.1"),
        })
    }

    /// `x` `[B, C, N]` and the embedding `[B, C]` to the shape of `x`.
    pub(crate) fn forward(
        &self,
        x: &Tensor,
        emb: &Tensor,
        key: Option<&DropoutKey<'_>>,
    ) -> Result<Tensor> {
        let e = self.modulation.forward(&silu(emb)?)?;
        let h = self
            .qkv
            .forward(&token_norm(x, &e, ATTENTION, DitConfig::EPS)?)?;
        let h = self
            .to_out
            .forward(&attention(&h, self.heads, AttentionOrder::Chunked)?)?;
        let h = self.dropout_attention.forward(&h, key)?;
        let x = add_gated(x, &h, &e, ATTENTION + GATE)?;
        let [first, second] = &self.dense;
        let h = gelu(&first.forward(&token_norm(&x, &e, DENSE, self.norm_eps)?)?)?;
        let h = second.forward(&self.dropout_dense.forward(&h, key)?)?;
        add_gated(&x, &h, &e, DENSE + GATE)
    }

    /// [`Self::forward`], which keeps only its inputs for the backward pass.
    pub(crate) fn recomputed(
        &self,
        x: &Tensor,
        emb: &Tensor,
        key: Option<&DropoutKey<'_>>,
    ) -> Result<Tensor> {
        let (block, key) = (self.clone(), key.map(OwnedKey::new));
        recompute(&[x, emb], move |inputs| {
            block.forward(
                &inputs[0],
                &inputs[1],
                key.as_ref().map(OwnedKey::lend).as_ref(),
            )
        })
    }
}
