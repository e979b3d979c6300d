//! The time-aware adapter of an attention block.

use crate::attention_block::ConvStart;
use crate::emb_layer::EmbLayer;
use crate::layers::{GroupNorm, Linear, Nonlinearity, Pointwise};
use crate::params::Scope;
use candle_core::{Result, Tensor};
use sdft_autograd::add;
use sdft_kernels::Activation;
use std::collections::BTreeMap;

/// A bottleneck between attention and the projection that follows it, whose channels are scaled and shifted by the time embedding.
///
/// Source: Moon et al. 2022 (A3FT), which has no public code; docs/EQUATIONS.md says how it is read here.
/// ```text
/// y = x + up( silu( norm(down(x)) (1 + scale) + shift ) )      scale, shift = halves of time(emb)
/// ```
/// `up` starts at zero, so that a new adapter returns its input.
#[derive(Clone, Debug)]
pub struct TimeAdapter {
    down: Pointwise,
    norm: GroupNorm,
    time: Linear,
    up: Pointwise,
}

impl TimeAdapter {
    /// The name of an adapter in its attention block.
    pub const NAME: &'static str = "adapter";

    /// Keys `down`, `norm`, `time`, `up`. `rank` is the width of the bottleneck, 0 for an eighth of `channels`.
    ///
    /// # Errors
    /// Those of [`crate::ParamSource::get`].
    pub fn load(
        scope: &Scope<'_>,
        channels: usize,
        emb_channels: usize,
        rank: usize,
    ) -> Result<Self> {
        let rank = Self::width(channels, rank);
        Ok(Self {
            // No bias: with rank 1 the norm would remove it, and its gradient would be zero.
            down: Pointwise::load_unbiased(&scope.pp("down"), channels, rank)?,
            norm: GroupNorm::load(&scope.pp("norm"), rank, 1)?,
            time: Linear::load(&scope.pp("time"), emb_channels, 2 * rank)?,
            up: Pointwise::load(&scope.pp("up"), rank, channels, ConvStart::Zero)?,
        })
    }

    /// The width of the bottleneck: `rank`, or an eighth of `channels` and at least 1 if it is 0.
    pub fn width(channels: usize, rank: usize) -> usize {
        match rank {
            0 => (channels / 8).max(1),
            rank => rank,
        }
    }

    /// The rank of the adapters in a file of these names and shapes, 0 for an eighth of the channels; `None` if there are no adapters.
    pub fn rank_in(shapes: &BTreeMap<String, Vec<usize>>) -> Option<usize> {
        let end = format!(".{}.down.weight", Self::NAME);
        let mut widths = shapes
            .iter()
            .filter(|(name, _)| name.ends_with(&end))
            .filter_map(|(_, shape)| Some((*shape.first()?, *shape.get(1)?)));
        let (first, channels) = widths.next()?;
        let is_usual = |(rank, channels)| rank == Self::width(channels, 0);
        match is_usual((first, channels)) && widths.all(is_usual) {
            true => Some(0),
            false => Some(first),
        }
    }

    /// Whether a parameter of this name belongs to the last layer of an adapter, in which its result is linear.
    pub fn is_last(name: &str) -> bool {
        let layer = name.rsplit_once('.').map_or("", |(layer, _)| layer);
        let adapter = layer.strip_suffix(".up");
        adapter.is_some_and(|adapter| adapter.ends_with(Self::NAME))
    }

    /// The layer that the embedding goes through.
    pub fn emb_layer(&self) -> EmbLayer<'_> {
        EmbLayer::new(Nonlinearity::Silu, &self.time)
    }

    /// `x` `[B, C, N]` and the result of [`Self::emb_layer`], `[B, 2 rank]`, to the shape of `x`.
    ///
    /// # Errors
    /// Shapes that do not fit the weights.
    pub fn forward_modulated(&self, x: &Tensor, modulation: &Tensor) -> Result<Tensor> {
        let h = self.down.forward(x)?;
        let h = self
            .norm
            .modulated(&h, Some(modulation), Activation::Silu)?;
        add(x, &self.up.forward(&h)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params::specs_of;

    #[test]
    fn the_rank_is_found_in_shapes_and_an_eighth_is_recognised() {
        let shapes = |widths: &[(usize, usize)]| -> BTreeMap<String, Vec<usize>> {
            let adapter = |(i, &(channels, rank)): (usize, &(usize, usize))| {
                let build = |scope: &Scope<'_>| {
                    let scope = scope.pp(i).pp(TimeAdapter::NAME);
                    TimeAdapter::load(&scope, channels, 16, rank)
                };
                specs_of(build).unwrap()
            };
            let all = widths.iter().enumerate().flat_map(adapter);
            all.map(|spec| (spec.name, spec.shape)).collect()
        };
        assert_eq!(TimeAdapter::rank_in(&shapes(&[])), None);
        let usual = shapes(&[(64, 0), (4, 0), (16, 0)]);
        assert_eq!(usual["0.adapter.down.weight"], [8, 64, 1]);
        assert_eq!(usual["1.adapter.down.weight"], [1, 4, 1]);
        assert_eq!(TimeAdapter::rank_in(&usual), Some(0));
        assert_eq!(TimeAdapter::rank_in(&shapes(&[(64, 8), (16, 8)])), Some(8));
        assert_eq!(TimeAdapter::rank_in(&shapes(&[(16, 3), (64, 3)])), Some(3));
    }
}
