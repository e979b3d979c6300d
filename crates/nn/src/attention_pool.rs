//! Attention pooling.

use crate::attention_block::ConvStart;
use crate::layers::Pointwise;
use crate::params::{Init, Scope};
use candle_core::{Result, Tensor, bail};
use sdft_autograd::attention;
use sdft_kernels::AttentionOrder;

/// Attention pooling: the mean over space is the query, and its result the output.
///
/// Source: guided-diffusion `AttentionPool2d` (always in the chunked order).
#[derive(Clone, Debug)]
pub struct AttentionPool {
    positional_embedding: Tensor,
    qkv_proj: Pointwise,
    c_proj: Pointwise,
    heads: usize,
}

impl AttentionPool {
    /// Keys `positional_embedding` `[C, side^2 + 1]`, `qkv_proj`, `c_proj`.
    ///
    /// # Errors
    /// Channels that `head_channels` does not divide, and those of [`crate::ParamSource::get`].
    pub fn load(
        scope: &Scope<'_>,
        side: usize,
        channels: usize,
        head_channels: usize,
        n_out: usize,
    ) -> Result<Self> {
        if head_channels == 0 || !channels.is_multiple_of(head_channels) {
            bail!(
                "{}: expected channels per head that divide {channels} channels, found {head_channels}",
                scope.prefix()
            );
        }
        let spread = Init::Normal(1.0 / (channels as f64).sqrt());
        Ok(Self {
            positional_embedding: scope.get(
                "positional_embedding",
                &[channels, side * side + 1],
                spread,
            )?,
            qkv_proj: Pointwise::load(
                &scope.pp("qkv_proj"),
                channels,
                3 * channels,
                ConvStart::FanIn,
            )?,
            c_proj: Pointwise::load(&scope.pp("c_proj"), channels, n_out, ConvStart::FanIn)?,
            heads: channels / head_channels,
        })
    }

    /// `[B, C, side, side]` to `[B, n_out]`.
    ///
    /// # Errors
    /// A size other than that of the positional embedding.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let flat = x.flatten_from(2)?;
        let places = self.positional_embedding.dim(1)?;
        if flat.dim(2)? + 1 != places {
            bail!(
                "attention pool: expected {} positions, found {}",
                places - 1,
                flat.dim(2)?
            );
        }
        let tokens = Tensor::cat(&[&flat.mean_keepdim(2)?, &flat], 2)?;
        let tokens = tokens.broadcast_add(&self.positional_embedding)?;
        let out = attention(
            &self.qkv_proj.forward(&tokens)?,
            self.heads,
            AttentionOrder::Chunked,
        )?;
        self.c_proj.forward(&out.narrow(2, 0, 1)?)?.squeeze(2)
    }
}
