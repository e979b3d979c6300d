//! Layers in sequence.

use crate::attention_block::AttentionBlock;
use crate::emb_layer::EmbLayer;
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
    /// A self-attention block, which takes the embedding if it has an adapter.
    Attention(AttentionBlock),
    /// A change of resolution.
    Resize(Resize),
}

impl Layer {
    fn emb_layer(&self) -> Option<EmbLayer<'_>> {
        match self {
            Self::Residual(block) => block.emb_layer(),
            Self::Attention(block) => block.emb_layer(),
            Self::Conv(_) | Self::Resize(_) => None,
        }
    }
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

    /// These sequences with the embedding `[B, E]`, which goes through the layers of all of them at once; a sequence without such layers
    /// ignores it.
    ///
    /// # Errors
    /// Shapes that do not fit the weights.
    pub fn embedded<'a>(
        sequences: impl IntoIterator<Item = &'a Self>,
        emb: &Tensor,
    ) -> Result<Vec<Embedded<'a>>> {
        let sequences: Vec<_> = sequences.into_iter().collect();
        let layers = sequences.iter().flat_map(|sequence| &sequence.0);
        let emb_layers: Vec<_> = layers.filter_map(Layer::emb_layer).collect();
        let mut all = EmbLayer::forward_all(&emb_layers, emb)?.into_iter();
        let embedded = sequences.into_iter().map(|sequence| {
            let has_layer = |layer: &&Layer| layer.emb_layer().is_some();
            let n = sequence.0.iter().filter(has_layer).count();
            let modulations = all.by_ref().take(n).collect();
            Embedded {
                sequence,
                modulations,
            }
        });
        Ok(embedded.collect())
    }

    /// The output of the last layer, without an embedding; with `recomputed`, residual and attention blocks keep only their inputs for
    /// the backward pass.
    ///
    /// # Errors
    /// Shapes that do not fit the weights, or a layer that needs the embedding.
    pub fn forward(
        &self,
        x: &Tensor,
        key: Option<&DropoutKey<'_>>,
        recomputed: bool,
    ) -> Result<Tensor> {
        self.forward_modulated(x, &[], key, recomputed)
    }

    fn forward_modulated(
        &self,
        x: &Tensor,
        modulations: &[Tensor],
        key: Option<&DropoutKey<'_>>,
        recomputed: bool,
    ) -> Result<Tensor> {
        let mut modulations = modulations.iter();
        self.0.iter().try_fold(x.clone(), |x, layer| {
            let modulation = layer.emb_layer().and_then(|_| modulations.next());
            match layer {
                Layer::Residual(block) if recomputed => block.recomputed(&x, modulation, key),
                Layer::Attention(block) if recomputed => block.recomputed(&x, modulation),
                Layer::Conv(conv) => conv.forward(&x),
                Layer::Residual(block) => block.forward_modulated(&x, modulation, key),
                Layer::Attention(block) => block.forward_modulated(&x, modulation),
                Layer::Resize(resize) => resize.forward(&x),
            }
        })
    }
}

/// A [`Sequence`] with the embedding of one batch.
#[derive(Debug)]
pub struct Embedded<'a> {
    sequence: &'a Sequence,
    /// What each layer with an [`EmbLayer`] got from it.
    modulations: Vec<Tensor>,
}

impl Embedded<'_> {
    /// [`Sequence::forward`] with the embedding.
    ///
    /// # Errors
    /// Shapes that do not fit the weights.
    pub fn forward(
        &self,
        x: &Tensor,
        key: Option<&DropoutKey<'_>>,
        recomputed: bool,
    ) -> Result<Tensor> {
        let modulations = &self.modulations;
        self.sequence
            .forward_modulated(x, modulations, key, recomputed)
    }
}
