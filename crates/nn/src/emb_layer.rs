//! The layers of a network that take its embedding.

use crate::layers::{Linear, Nonlinearity};
use candle_core::{Result, Tensor};
use sdft_autograd::{linear, linears};

/// A dense layer of the embedding of time and class, whose result modulates a block: a summand, or scales and shifts.
#[derive(Clone, Copy, Debug)]
pub struct EmbLayer<'a> {
    /// Precedes the layer; `None` for an embedding that is activated already.
    nonlinearity: Option<Nonlinearity>,
    weight: &'a Tensor,
    bias: &'a Tensor,
}

impl<'a> EmbLayer<'a> {
    /// `linear`, behind a nonlinearity.
    pub(crate) fn new(nonlinearity: Nonlinearity, linear: &'a Linear) -> Self {
        let [weight, bias] = linear.parameters();
        Self {
            nonlinearity: Some(nonlinearity),
            weight,
            bias,
        }
    }

    /// `weight` `[n_out, E]` and `bias` `[n_out]`, for an activated embedding.
    pub fn of_activated(weight: &'a Tensor, bias: &'a Tensor) -> Self {
        Self {
            nonlinearity: None,
            weight,
            bias,
        }
    }

    /// The same layer for an activated embedding.
    #[must_use]
    pub fn without_nonlinearity(mut self) -> Self {
        self.nonlinearity = None;
        self
    }

    /// `[B, E]` to `[B, n_out]`.
    ///
    /// # Errors
    /// Shapes that do not fit the weights.
    pub(crate) fn forward(&self, emb: &Tensor) -> Result<Tensor> {
        linear(&activated(self.nonlinearity, emb)?, self.weight, self.bias)
    }

    /// The result of a layer, if there are a layer and an embedding.
    pub(crate) fn modulation(layer: Option<Self>, emb: Option<&Tensor>) -> Result<Option<Tensor>> {
        match (layer, emb) {
            (Some(layer), Some(emb)) => layer.forward(emb).map(Some),
            _ => Ok(None),
        }
    }

    /// The results `[B, n_out]` of the layers of several blocks, computed at once.
    ///
    /// # Errors
    /// Shapes that do not fit the weights.
    pub fn forward_each(blocks: &[Vec<Self>], emb: &Tensor) -> Result<Vec<Vec<Tensor>>> {
        let layers: Vec<_> = blocks.iter().flatten().copied().collect();
        let mut results = Self::forward_all(&layers, emb)?.into_iter();
        let of_block = |layers: &Vec<Self>| results.by_ref().take(layers.len()).collect();
        Ok(blocks.iter().map(of_block).collect())
    }

    /// The results of several layers. On a GPU they are one operation, if one nonlinearity precedes all of them.
    fn forward_all(layers: &[Self], emb: &Tensor) -> Result<Vec<Tensor>> {
        let Some(first) = layers.first().map(|layer| layer.nonlinearity) else {
            return Ok(Vec::new());
        };
        if layers.iter().any(|layer| layer.nonlinearity != first) {
            return layers.iter().map(|layer| layer.forward(emb)).collect();
        }
        let parameters: Vec<_> = layers
            .iter()
            .map(|layer| [layer.weight, layer.bias])
            .collect();
        linears(&activated(first, emb)?, &parameters)
    }
}

fn activated(nonlinearity: Option<Nonlinearity>, emb: &Tensor) -> Result<Tensor> {
    match nonlinearity {
        Some(nonlinearity) => nonlinearity.apply(emb),
        None => Ok(emb.clone()),
    }
}
