//! The blocks of encoder, middle and decoder.

use crate::Unet2dConfig;
use crate::config::{ActFn, DownBlock, ResampleType, TimeScaleShift, UpBlock};
use candle_core::Result;
use sdft_nn::{
    AttentionBlock, AttentionConfig, Convention, Layer, Nonlinearity, ResBlock, ResBlockConfig,
    Resample, Resize, Scope, Sequence,
};

/// The attention of a block.
#[derive(Clone, Copy)]
struct Attention {
    /// Groups of its norm.
    groups: Option<usize>,
    /// Divides the sums of the block.
    output_scale: f64,
}

/// Builds the blocks of one network.
pub(crate) struct Builder<'a> {
    pub(crate) config: &'a Unet2dConfig,
}

impl Builder<'_> {
    fn residual(
        &self,
        scope: &Scope<'_>,
        [c_in, c_out]: [usize; 2],
        resample: Resample,
        output_scale: f64,
    ) -> Result<Layer> {
        let c = self.config;
        let config = ResBlockConfig {
            scale_shift: c.resnet_time_scale_shift == TimeScaleShift::ScaleShift,
            resample,
            groups: c.norm_num_groups,
            dropout: c.dropout,
            eps: c.norm_eps,
            nonlinearity: match c.act_fn {
                ActFn::Silu => Nonlinearity::Silu,
                ActFn::Relu => Nonlinearity::Relu,
            },
            output_scale,
            convention: Convention::Diffusers,
            ..ResBlockConfig::new(c_in, c_out, c.emb_channels())
        };
        ResBlock::load(scope, &config).map(Layer::Residual)
    }

    fn attention(&self, scope: &Scope<'_>, width: usize, attention: Attention) -> Result<Layer> {
        let [heads, head_channels] = self.config.heads(width);
        let config = AttentionConfig {
            channels: width,
            heads,
            head_channels,
            groups: attention.groups,
            eps: self.config.norm_eps,
            output_scale: attention.output_scale,
        };
        let block = AttentionBlock::load_split(scope, &config)?;
        Ok(Layer::Attention(match self.config.time_adapter_rank {
            None => block,
            Some(rank) => block.with_time_adapter(scope, self.config.emb_channels(), rank)?,
        }))
    }

    /// The attention blocks of a level, which come before its residual blocks in a state dict; none for a level without attention.
    fn attentions(
        &self,
        scope: &Scope<'_>,
        width: usize,
        n: usize,
        attention: Option<Attention>,
    ) -> Result<Vec<Option<Layer>>> {
        let scope = scope.pp("attentions");
        let load = |i| {
            let load = |attention| self.attention(&scope.pp(i), width, attention);
            attention.map(load).transpose()
        };
        (0..n).map(load).collect()
    }

    /// A level without a special scale.
    fn usual(&self, has_attention: bool) -> Option<Attention> {
        has_attention.then_some(Attention {
            groups: Some(self.config.norm_num_groups),
            output_scale: 1.0,
        })
    }

    /// Each output of the returned blocks is a skip connection; `channels` are those of the input.
    pub(crate) fn down(
        &self,
        scope: &Scope<'_>,
        level: usize,
        channels: usize,
    ) -> Result<Vec<Sequence>> {
        let c = self.config;
        let width = c.block_out_channels[level];
        let attention = self.usual(c.down_block_types[level] == DownBlock::Attention);
        let attentions = self.attentions(scope, width, c.layers_per_block, attention)?;
        let mut blocks = Vec::with_capacity(c.layers_per_block + 1);
        for (i, attention) in attentions.into_iter().enumerate() {
            let c_in = if i == 0 { channels } else { width };
            let scope = scope.pp("resnets").pp(i);
            let mut layers = vec![self.residual(&scope, [c_in, width], Resample::None, 1.0)?];
            layers.extend(attention);
            blocks.push(Sequence::new(layers));
        }
        let scope = scope.pp("downsamplers.0");
        // 0 is a border at the bottom and the right only.
        let pad = match c.downsample_padding {
            0 => [0, 0, 1, 1],
            pad => [pad; 4],
        };
        let last = match c.downsample(level) {
            None => return Ok(blocks),
            Some(ResampleType::Conv) => {
                Layer::Resize(Resize::down_conv(&scope.pp("conv"), width, width, pad)?)
            }
            Some(ResampleType::Resnet) => self.residual(&scope, [width; 2], Resample::Down, 1.0)?,
        };
        blocks.push(Sequence::new(vec![last]));
        Ok(blocks)
    }

    /// Each of the returned blocks takes the output of the previous one joined with the last of `skips`; `channels` are those of the
    /// output before the first.
    pub(crate) fn up(
        &self,
        scope: &Scope<'_>,
        index: usize,
        channels: usize,
        skips: &mut Vec<usize>,
    ) -> Result<Vec<Sequence>> {
        let c = self.config;
        let width = c.block_out_channels[c.levels() - 1 - index];
        let attention = self.usual(c.up_block_types[index] == UpBlock::Attention);
        let attentions = self.attentions(scope, width, c.layers_per_block + 1, attention)?;
        let mut blocks = Vec::with_capacity(attentions.len());
        for (i, attention) in attentions.into_iter().enumerate() {
            let before = if i == 0 { channels } else { width };
            let c_in = before + skips.pop().unwrap_or(0);
            let scope = scope.pp("resnets").pp(i);
            let mut layers = vec![self.residual(&scope, [c_in, width], Resample::None, 1.0)?];
            layers.extend(attention);
            blocks.push(layers);
        }
        let scope = scope.pp("upsamplers.0");
        let last = match c.upsample(index) {
            None => None,
            Some(ResampleType::Conv) => {
                Some(Layer::Resize(Resize::up(&scope, width, width, true)?))
            }
            Some(ResampleType::Resnet) => {
                Some(self.residual(&scope, [width; 2], Resample::Up, 1.0)?)
            }
        };
        if let Some(block) = blocks.last_mut() {
            block.extend(last);
        }
        Ok(blocks.into_iter().map(Sequence::new).collect())
    }

    /// The middle; without layers if there is none.
    pub(crate) fn middle(&self, scope: &Scope<'_>) -> Result<Sequence> {
        let c = self.config;
        if c.mid_block_type.is_none() {
            return Ok(Sequence::new(Vec::new()));
        }
        let (width, output_scale) = (c.deepest_width(), c.mid_block_scale_factor);
        let attention = c.add_attention.then(|| Attention {
            groups: c.mid_attention_groups(),
            output_scale,
        });
        let attention = self.attentions(scope, width, 1, attention)?;
        let residual = |i| {
            let scope = scope.pp("resnets").pp(i);
            self.residual(&scope, [width; 2], Resample::None, output_scale)
        };
        let mut layers = vec![residual(0)?];
        layers.extend(attention.into_iter().flatten());
        layers.push(residual(1)?);
        Ok(Sequence::new(layers))
    }
}
