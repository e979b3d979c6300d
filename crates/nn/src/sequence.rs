//! Layers in sequence.

use crate::attention_block::AttentionBlock;
use crate::emb_layer::EmbLayer;
use crate::layers::Conv2d;
use crate::res_block::{BlockInput, ResBlock};
use crate::resize::Resize;
use candle_core::{Result, Tensor};
use sdft_autograd::concat;
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
        let layers = sequences
            .iter()
            .map(|sequence| sequence.0.iter().filter_map(Layer::emb_layer).collect());
        let modulations = EmbLayer::forward_each(&layers.collect::<Vec<_>>(), emb)?;
        let embedded = sequences.into_iter().zip(modulations);
        let embedded = embedded.map(|(sequence, modulations)| Embedded {
            sequence,
            modulations,
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
        run(&self.0, BlockInput::Map(x), &[], key, recomputed)
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
        self.run(BlockInput::Map(x), key, recomputed)
    }

    /// [`Self::forward`] of the channels of `x` and, after them, those of `skip`. A GPU does not join large maps for that, if the first
    /// layer is a residual block with a skip convolution that keeps the resolution.
    ///
    /// # Errors
    /// Shapes that do not fit the weights or each other.
    pub fn forward_joined(
        &self,
        x: &Tensor,
        skip: &Tensor,
        key: Option<&DropoutKey<'_>>,
        recomputed: bool,
    ) -> Result<Tensor> {
        let elements = x.elem_count() + skip.elem_count();
        if x.device().is_cuda() && elements >= LEAST_APART {
            return self.run(BlockInput::Joined([x, skip]), key, recomputed);
        }
        self.forward(&concat(x, skip)?, key, recomputed)
    }

    fn run(
        &self,
        input: BlockInput<'_>,
        key: Option<&DropoutKey<'_>>,
        recomputed: bool,
    ) -> Result<Tensor> {
        run(&self.sequence.0, input, &self.modulations, key, recomputed)
    }
}

/// Two maps are read apart from this many elements. For fewer, some ten additional launches take longer than joining them (by arithmetic).
const LEAST_APART: usize = 1 << 24;

/// The output of the last layer.
fn run(
    layers: &[Layer],
    input: BlockInput<'_>,
    modulations: &[Tensor],
    key: Option<&DropoutKey<'_>>,
    recomputed: bool,
) -> Result<Tensor> {
    let mut modulations = modulations.iter();
    let mut last: Option<Tensor> = None;
    for layer in layers {
        let modulation = layer.emb_layer().and_then(|_| modulations.next());
        let input = last.as_ref().map_or(input, BlockInput::Map);
        last = Some(match layer {
            Layer::Conv(conv) => conv.forward(&input.joined()?)?,
            Layer::Residual(block) if recomputed => block.recomputed(input, modulation, key)?,
            Layer::Residual(block) => block.forward_modulated(input, modulation, key)?,
            Layer::Attention(block) if recomputed => {
                block.recomputed(&input.joined()?, modulation)?
            }
            Layer::Attention(block) => block.forward_modulated(&input.joined()?, modulation)?,
            Layer::Resize(resize) => resize.forward(&input.joined()?)?,
        });
    }
    last.map_or_else(|| input.joined(), Ok)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention_block::ConvStart;
    use crate::params::{Params, Scope, specs_of};
    use crate::res_block::ResBlockConfig;
    use candle_core::{Device, Var};
    use sdft_autograd::{backward, taped};
    use sdft_kernels::AttentionOrder;

    fn wave(shape: &[usize], frequency: f64) -> Tensor {
        let n = shape.iter().product::<usize>();
        let values = (0..n).map(|i| (frequency * i as f64).sin()).collect();
        Tensor::from_vec::<_, f64>(values, shape, &Device::Cpu).unwrap()
    }

    fn load(scope: &Scope<'_>) -> Result<[Sequence; 2]> {
        let residual = |at: &str, channels| {
            let config = ResBlockConfig {
                groups: 2,
                ..ResBlockConfig::new(channels, 6, 5)
            };
            ResBlock::load(&scope.pp(at), &config).map(Layer::Residual)
        };
        let attention = AttentionBlock::load(&scope.pp("1"), 6, 2, 2, AttentionOrder::Legacy)?;
        let attention = attention.with_time_adapter(&scope.pp("1"), 5, 2)?;
        let conv = Conv2d::load(&scope.pp("3"), 8, 6, 3, 1, ConvStart::FanIn)?;
        Ok([
            Sequence::new(vec![
                residual("0", 8)?,
                Layer::Attention(attention),
                residual("2", 6)?,
            ]),
            Sequence::new(vec![Layer::Conv(conv)]),
        ])
    }

    #[test]
    fn two_maps_give_what_the_joined_map_gives_also_where_blocks_are_recomputed() {
        let specs = specs_of(load).unwrap();
        let filled = specs.iter().enumerate().map(|(i, spec)| {
            let values = wave(&spec.shape, 0.3 + 0.1 * i as f64);
            (spec.name.clone(), values)
        });
        let (params, vars) = Params::new(filled.collect()).trainable().unwrap();
        let sequences = load(&Scope::root(&params)).unwrap();
        // The border between the maps is inside a group.
        let [a, b] = [(5, 0.2), (3, 0.7)]
            .map(|(c, frequency)| Var::from_tensor(&wave(&[2, c, 4, 3], frequency)).unwrap());
        let emb = Var::from_tensor(&wave(&[2, 5], 0.4)).unwrap();
        let run = |at: usize, are_joined: bool, recomputed: bool| {
            let y = taped(&a, |a| {
                let embedded = &Sequence::embedded(&sequences, &emb)?[at];
                match are_joined {
                    true => embedded.forward_joined(a, &b, None, recomputed),
                    false => embedded.run(BlockInput::Joined([a, &b]), None, recomputed),
                }
            });
            let y = y.unwrap();
            let loss = y.mul(&wave(y.dims(), 0.9)).unwrap().sum_all().unwrap();
            (y.detach(), backward(&loss).unwrap())
        };
        let apart = |a: &Tensor, b: &Tensor| {
            let apart = (a - b).unwrap().abs().unwrap().max_all().unwrap();
            apart.to_scalar::<f64>().unwrap()
        };
        let of_parameters: usize = vars.len();
        let mut compared = 0;
        for (at, recomputed) in [(0, false), (0, true), (1, false)] {
            let ((expected, gradients), (found, found_gradients)) =
                (run(at, true, recomputed), run(at, false, recomputed));
            assert!(apart(&found, &expected) < 1e-12);
            let names = vars.iter().map(|(name, var)| (name.as_str(), var));
            for (name, var) in names.chain([("a", &a), ("b", &b), ("emb", &emb)]) {
                let (expected, found) = (gradients.get(var), found_gradients.get(var));
                assert_eq!(expected.is_some(), found.is_some(), "{name}");
                if let (Some(expected), Some(found)) = (expected, found) {
                    assert!(apart(found, expected) < 1e-11, "{name}");
                    compared += 1;
                }
            }
        }
        // The convolution has two parameters, and no embedding.
        assert_eq!(compared, 2 * (of_parameters - 2 + 3) + 2 + 2);
    }
}
