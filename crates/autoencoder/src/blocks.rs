//! Encoder and decoder.

use crate::config::Net;
use crate::{ActFn, DownBlock, UpBlock};
use candle_core::{DType, Result, Tensor};
use sdft_kernels::Activation;
use sdft_nn::{
    AttentionBlock, AttentionConfig, Conv2d, ConvStart, Convention, GroupNorm, Layer, Nonlinearity,
    ResBlock, ResBlockConfig, Resize, Scope, Sequence,
};

/// Added to the variance by every norm.
const EPS: f64 = 1e-6;

/// A convolution, blocks, a norm with SiLU, and a convolution.
#[derive(Clone, Debug)]
pub(crate) struct Coder {
    conv_in: Conv2d,
    blocks: Sequence,
    norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl Coder {
    /// From images to `encoded_channels` at the lowest resolution.
    pub(crate) fn encoder(scope: &Scope<'_>, net: &Net<'_>) -> Result<Self> {
        let conv_in = conv(scope, "conv_in", net.in_channels, net.widths[0])?;
        let mut layers = Vec::new();
        let mut channels = net.widths[0];
        for (level, &width) in net.widths.iter().enumerate() {
            let scope = scope.pp("down_blocks").pp(level);
            let has_attention = net.down[level] == DownBlock::Attention;
            net.level(
                &scope,
                &mut layers,
                [channels, width],
                net.layers,
                has_attention,
            )?;
            channels = width;
            if level + 1 < net.widths.len() {
                // One row of zeros at the bottom and one column at the right.
                let scope = scope.pp("downsamplers.0.conv");
                let down = Resize::down_conv(&scope, width, width, [0, 0, 1, 1])?;
                layers.push(Layer::Resize(down));
            }
        }
        net.middle(&scope.pp("mid_block"), &mut layers)?;
        Self::ending(
            scope,
            conv_in,
            layers,
            [channels, net.encoded_channels],
            net,
        )
    }

    /// From `z_channels` at the lowest resolution to images.
    pub(crate) fn decoder(scope: &Scope<'_>, net: &Net<'_>) -> Result<Self> {
        let conv_in = conv(scope, "conv_in", net.z_channels, net.deepest())?;
        let mut channels = net.deepest();
        let mut ups = Vec::new();
        for (index, &width) in net.widths.iter().rev().enumerate() {
            let scope = scope.pp("up_blocks").pp(index);
            let has_attention = net.up[index] == UpBlock::Attention;
            let n = net.layers + 1;
            net.level(&scope, &mut ups, [channels, width], n, has_attention)?;
            channels = width;
            if index + 1 < net.widths.len() {
                let scope = scope.pp("upsamplers.0");
                ups.push(Layer::Resize(Resize::up(&scope, width, width, true)?));
            }
        }
        // In a state dict the middle comes after the levels.
        let mut layers = Vec::new();
        net.middle(&scope.pp("mid_block"), &mut layers)?;
        layers.extend(ups);
        Self::ending(scope, conv_in, layers, [channels, net.out_channels], net)
    }

    fn ending(
        scope: &Scope<'_>,
        conv_in: Conv2d,
        layers: Vec<Layer>,
        [channels, out]: [usize; 2],
        net: &Net<'_>,
    ) -> Result<Self> {
        let norm_out = GroupNorm::load(&scope.pp("conv_norm_out"), channels, net.groups)?;
        Ok(Self {
            conv_in,
            blocks: Sequence::new(layers),
            norm_out: norm_out.with_eps(EPS),
            conv_out: conv(scope, "conv_out", channels, out)?,
        })
    }

    /// The type of the parameters.
    pub(crate) fn dtype(&self) -> DType {
        self.conv_in.dtype()
    }

    /// With `recomputed`, blocks keep only their inputs for the backward pass.
    pub(crate) fn forward(&self, x: &Tensor, recomputed: bool) -> Result<Tensor> {
        let h = self.conv_in.forward(x)?;
        let h = self.blocks.forward(&h, None, recomputed)?;
        self.conv_out
            .forward(&self.norm_out.forward(&h, Activation::Silu)?)
    }
}

fn conv(scope: &Scope<'_>, name: &str, c_in: usize, c_out: usize) -> Result<Conv2d> {
    Conv2d::load(&scope.pp(name), c_in, c_out, 3, 1, ConvStart::FanIn)
}

impl Net<'_> {
    /// `n` residual blocks, each followed by attention if the level has it.
    fn level(
        &self,
        scope: &Scope<'_>,
        layers: &mut Vec<Layer>,
        [c_in, c_out]: [usize; 2],
        n: usize,
        has_attention: bool,
    ) -> Result<()> {
        for i in 0..n {
            let c_in = if i == 0 { c_in } else { c_out };
            layers.push(self.residual(&scope.pp("resnets").pp(i), c_in, c_out)?);
            if has_attention {
                layers.push(self.attention(&scope.pp("attentions").pp(i), c_out)?);
            }
        }
        Ok(())
    }

    fn middle(&self, scope: &Scope<'_>, layers: &mut Vec<Layer>) -> Result<()> {
        let width = self.deepest();
        layers.push(self.residual(&scope.pp("resnets.0"), width, width)?);
        if self.middle_attention {
            layers.push(self.attention(&scope.pp("attentions.0"), width)?);
        }
        layers.push(self.residual(&scope.pp("resnets.1"), width, width)?);
        Ok(())
    }

    fn residual(&self, scope: &Scope<'_>, c_in: usize, c_out: usize) -> Result<Layer> {
        let config = ResBlockConfig {
            groups: self.groups,
            eps: EPS,
            nonlinearity: match self.act {
                ActFn::Silu => Nonlinearity::Silu,
                ActFn::Relu => Nonlinearity::Relu,
            },
            convention: Convention::Diffusers,
            ..ResBlockConfig::new(c_in, c_out, 0)
        };
        ResBlock::load(scope, &config).map(Layer::Residual)
    }

    /// Attention with one head.
    fn attention(&self, scope: &Scope<'_>, width: usize) -> Result<Layer> {
        let config = AttentionConfig {
            channels: width,
            heads: 1,
            head_channels: width,
            groups: Some(self.groups),
            eps: EPS,
            output_scale: 1.0,
        };
        AttentionBlock::load_split(scope, &config).map(Layer::Attention)
    }
}
