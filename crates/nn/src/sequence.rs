//! Layers in sequence.

use crate::attention_block::AttentionBlock;
use crate::layers::Conv2d;
use crate::res_block::ResBlock;
use crate::resize::Resize;
use candle_core::{Result, Tensor};
use sdft_noise::DropoutKey;

/// One layer of a [`Sequence`].
#[derive(Clone, Debug)]
pub enum Layer {
    /// A convolution.
    Conv(Conv2d),
    /// A residual block, which takes the embedding if it has a layer for one.
    Residual(ResBlock),
    /// A self-attention block.
    Attention(AttentionBlock),
    /// A change of resolution.
    Resize(Resize),
}

/// Layers in sequence, one block of a U-Net.
///
/// Source: guided-diffusion `TimestepEmbedSequential`.
#[derive(Clone, Debug)]
pub struct Sequence(Vec<Layer>);

impl Sequence {
    /// The first layer takes the input.
    pub fn new(layers: Vec<Layer>) -> Self {
        Self(layers)
    }

    /// The output of the last layer; with `recomputed`, residual and attention blocks keep only their inputs for the backward pass.
    ///
    /// # Errors
    /// Shapes that do not fit the weights.
    pub fn forward(
        &self,
        x: &Tensor,
        emb: Option<&Tensor>,
        key: Option<&DropoutKey<'_>>,
        recomputed: bool,
    ) -> Result<Tensor> {
        self.0.iter().try_fold(x.clone(), |x, layer| match layer {
            Layer::Residual(block) if recomputed => block.recomputed(&x, emb, key),
            Layer::Attention(block) if recomputed => block.recomputed(&x, emb),
            Layer::Conv(conv) => conv.forward(&x),
            Layer::Residual(block) => block.forward(&x, emb, key),
            Layer::Attention(block) => block.forward(&x, emb),
            Layer::Resize(resize) => resize.forward(&x),
        })
    }
}
