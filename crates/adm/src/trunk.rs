//! The blocks of encoder, middle and decoder.

use crate::AdmConfig;
use candle_core::{DType, Result, Tensor, bail};
use sdft_autograd::{add, embedding, silu, to_dtype};
use sdft_nn::{
    AttentionBlock, Conv2d, ConvStart, Layer, Linear, ResBlock, ResBlockConfig, Resample, Resize,
    Scope, Sequence, timestep_embedding,
};
use sdft_noise::DropoutKey;

/// Builds the blocks of one network.
pub(crate) struct Builder<'a> {
    pub(crate) config: &'a AdmConfig,
}

impl Builder<'_> {
    fn residual(
        &self,
        scope: &Scope<'_>,
        c_in: usize,
        c_out: usize,
        resample: Resample,
    ) -> Result<Layer> {
        let config = ResBlockConfig {
            scale_shift: self.config.use_scale_shift_norm,
            resample,
            groups: self.config.norm_groups,
            dropout: self.config.dropout,
            ..ResBlockConfig::new(c_in, c_out, self.config.emb_channels())
        };
        ResBlock::load(scope, &config).map(Layer::Residual)
    }

    fn attention(&self, scope: &Scope<'_>, channels: usize, heads: usize) -> Result<Layer> {
        let (groups, order) = (self.config.norm_groups, self.config.attention_order());
        let block = AttentionBlock::load(scope, channels, heads, groups, order)?;
        Ok(Layer::Attention(match self.config.time_adapter_rank {
            None => block,
            Some(rank) => block.with_time_adapter(scope, self.config.emb_channels(), rank)?,
        }))
    }

    fn has_attention(&self, level: usize) -> bool {
        self.config.attention_resolutions.contains(&(1 << level))
    }

    fn encoder_block(&self, scope: &Scope<'_>, c_in: usize, level: usize) -> Result<Sequence> {
        let c_out = self.config.width(level);
        let mut layers = vec![self.residual(&scope.pp(0), c_in, c_out, Resample::None)?];
        if self.has_attention(level) {
            layers.push(self.attention(&scope.pp(1), c_out, self.config.heads(c_out))?);
        }
        Ok(Sequence::new(layers))
    }

    fn down_block(&self, scope: &Scope<'_>, channels: usize) -> Result<Sequence> {
        let scope = scope.pp(0);
        Ok(Sequence::new(vec![if self.config.resblock_updown {
            self.residual(&scope, channels, channels, Resample::Down)?
        } else {
            Layer::Resize(Resize::down(
                &scope,
                channels,
                channels,
                self.config.conv_resample,
            )?)
        }]))
    }

    fn middle(&self, scope: &Scope<'_>, channels: usize) -> Result<Sequence> {
        Ok(Sequence::new(vec![
            self.residual(&scope.pp(0), channels, channels, Resample::None)?,
            self.attention(&scope.pp(1), channels, self.config.heads(channels))?,
            self.residual(&scope.pp(2), channels, channels, Resample::None)?,
        ]))
    }

    /// A block of the decoder; `last` blocks of a level also double the resolution.
    pub(crate) fn decoder_block(
        &self,
        scope: &Scope<'_>,
        c_in: usize,
        level: usize,
        last: bool,
    ) -> Result<Sequence> {
        let c_out = self.config.width(level);
        let mut layers = vec![self.residual(&scope.pp(0), c_in, c_out, Resample::None)?];
        if self.has_attention(level) {
            layers.push(self.attention(
                &scope.pp(layers.len()),
                c_out,
                self.config.decoder_heads(c_out),
            )?);
        }
        if last && level > 0 {
            let scope = scope.pp(layers.len());
            layers.push(if self.config.resblock_updown {
                self.residual(&scope, c_out, c_out, Resample::Up)?
            } else {
                Layer::Resize(Resize::up(&scope, c_out, c_out, self.config.conv_resample)?)
            });
        }
        Ok(Sequence::new(layers))
    }
}

/// Time embedding, encoder and middle, shared by the U-Net and the classifier.
#[derive(Clone, Debug)]
pub(crate) struct Trunk {
    time_embed: (Linear, Linear),
    label_emb: Option<Tensor>,
    input_blocks: Vec<Sequence>,
    middle_block: Sequence,
    /// Output channels of each input block.
    pub(crate) skip_channels: Vec<usize>,
    model_channels: usize,
    in_channels: usize,
    factor: usize,
    /// Whether the values inside residual and attention blocks are computed a second time in the backward pass instead of saved.
    pub(crate) recomputed: bool,
    /// The type of the feature maps.
    pub(crate) maps: DType,
}

impl Trunk {
    pub(crate) fn load(scope: &Scope<'_>, config: &AdmConfig) -> Result<Self> {
        let builder = Builder { config };
        let emb = config.emb_channels();
        let time = scope.pp("time_embed");
        let time_embed = (
            Linear::load(&time.pp(0), config.model_channels, emb)?,
            Linear::load(&time.pp(2), emb, emb)?,
        );
        let label_emb = match config.num_classes {
            0 => None,
            n => Some(scope.pp("label_emb").get(
                "weight",
                &[n, emb],
                sdft_nn::Init::Normal(1.0),
            )?),
        };
        let input = scope.pp("input_blocks");
        let mut channels = config.width(0);
        let first = Conv2d::load(
            &input.pp("0.0"),
            config.in_channels,
            channels,
            3,
            1,
            ConvStart::FanIn,
        )?;
        let mut input_blocks = vec![Sequence::new(vec![Layer::Conv(first)])];
        let mut skip_channels = vec![channels];
        for level in 0..config.levels() {
            for _ in 0..config.num_res_blocks {
                input_blocks.push(builder.encoder_block(
                    &input.pp(input_blocks.len()),
                    channels,
                    level,
                )?);
                channels = config.width(level);
                skip_channels.push(channels);
            }
            if level + 1 < config.levels() {
                input_blocks.push(builder.down_block(&input.pp(input_blocks.len()), channels)?);
                skip_channels.push(channels);
            }
        }
        Ok(Self {
            maps: time_embed.0.dtype(),
            time_embed,
            label_emb,
            input_blocks,
            middle_block: builder.middle(&scope.pp("middle_block"), channels)?,
            skip_channels,
            model_channels: config.model_channels,
            in_channels: config.in_channels,
            factor: config.factor(),
            recomputed: false,
        })
    }

    /// The time (and class) embedding, `[B, 4 model_channels]`.
    pub(crate) fn embed(&self, x: &Tensor, t: &[f32], labels: Option<&[u32]>) -> Result<Tensor> {
        let (batch, channels, h, w) = x.dims4()?;
        if t.len() != batch {
            bail!(
                "expected a timestep for each of {batch} images, found {}",
                t.len()
            );
        }
        if channels != self.in_channels {
            bail!(
                "expected images of {} channels, found {channels}",
                self.in_channels
            );
        }
        if !h.is_multiple_of(self.factor) || !w.is_multiple_of(self.factor) || h == 0 || w == 0 {
            bail!(
                "expected an image whose sides are multiples of {}, found {h}x{w}",
                self.factor
            );
        }
        let (first, second) = &self.time_embed;
        let emb = timestep_embedding(t, self.model_channels, 10_000.0, x.device())?
            .to_dtype(first.dtype())?;
        let emb = second.forward(&silu(&first.forward(&emb)?)?)?;
        match (&self.label_emb, labels) {
            (None, None) => Ok(emb),
            (Some(table), Some(labels)) => {
                let n = table.dim(0)?;
                if labels.len() != batch || labels.iter().any(|&y| y as usize >= n) {
                    bail!("expected {batch} class labels below {n}, found {labels:?}");
                }
                add(&emb, &embedding(table, labels)?)
            }
            (Some(table), None) => bail!(
                "expected a label for each image: the network is class-conditional, with {} classes",
                table.dim(0)?
            ),
            (None, Some(_)) => bail!("expected no class labels: the network is unconditional"),
        }
    }

    /// The deepest features, and the output of every input block from first to last.
    pub(crate) fn forward(
        &self,
        x: &Tensor,
        emb: &Tensor,
        key: Option<&DropoutKey<'_>>,
    ) -> Result<(Tensor, Vec<Tensor>)> {
        let x = to_dtype(x, self.maps)?;
        let mut skips: Vec<Tensor> = Vec::with_capacity(self.input_blocks.len());
        let blocks = self.input_blocks.iter().chain([&self.middle_block]);
        for block in Sequence::embedded(blocks, emb)? {
            skips.push(block.forward(skips.last().unwrap_or(&x), key, self.recomputed)?);
        }
        // The middle block is there, and last.
        let h = skips.pop().unwrap_or(x);
        Ok((h, skips))
    }

    pub(crate) fn dtype(&self) -> DType {
        self.time_embed.0.dtype()
    }
}
