//! Residual blocks.

use crate::ConvStart;
use crate::attention_block::divided;
use crate::dropout::{Dropout, OwnedKey};
use crate::emb_layer::EmbLayer;
use crate::layers::{Conv2d, GroupNorm, Linear, Nonlinearity};
use crate::params::Scope;
use candle_core::{Result, Tensor, bail};
use sdft_autograd::{add_per_channel, average_pool_2x, concat, recompute, upsample_nearest_2x};
use sdft_noise::DropoutKey;

/// Change of resolution inside a residual block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resample {
    /// Same size.
    None,
    /// Nearest-neighbour upsampling by two.
    Up,
    /// 2x2 average pooling.
    Down,
}

impl Resample {
    pub(crate) fn apply(self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::None => Ok(x.clone()),
            Self::Up => upsample_nearest_2x(x),
            Self::Down => average_pool_2x(x),
        }
    }
}

/// Whose parameter names and initial values a residual block has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Convention {
    /// Keys `in_layers.{0,2}`, `emb_layers.1`, `out_layers.{0,3}`, `skip_connection`; the last convolution starts at zero.
    GuidedDiffusion,
    /// Keys `norm1`, `conv1`, `time_emb_proj`, `norm2`, `conv2`, `conv_shortcut`.
    Diffusers,
}

/// The choices of one residual block.
#[derive(Clone, Copy, Debug)]
pub struct ResBlockConfig {
    /// Channels of the input.
    pub channels: usize,
    /// Channels of the output.
    pub out_channels: usize,
    /// Width of the time embedding; 0 for a block without one.
    pub emb_channels: usize,
    /// The embedding scales and shifts after the second norm if true, else it is added before it.
    pub scale_shift: bool,
    /// Change of resolution between the first activation and the first convolution.
    pub resample: Resample,
    /// Kernel of the skip connection where the channels change: 1, or 3, which is rare.
    pub skip_kernel: usize,
    /// Groups of the two norms.
    pub groups: usize,
    /// Probability of dropping a feature before the second convolution, in training only.
    pub dropout: f64,
    /// Added to the variance by the two norms.
    pub eps: f64,
    /// Follows each norm, and precedes the layer of the embedding.
    pub nonlinearity: Nonlinearity,
    /// The sum of both branches is divided by this.
    pub output_scale: f64,
    /// Names and initial values.
    pub convention: Convention,
}

impl ResBlockConfig {
    /// guided-diffusion's simplest block: the embedding is added, nothing is resampled or dropped, 32 groups.
    pub fn new(channels: usize, out_channels: usize, emb_channels: usize) -> Self {
        Self {
            channels,
            out_channels,
            emb_channels,
            scale_shift: false,
            resample: Resample::None,
            skip_kernel: 1,
            groups: 32,
            dropout: 0.0,
            eps: 1e-5,
            nonlinearity: Nonlinearity::Silu,
            output_scale: 1.0,
            convention: Convention::GuidedDiffusion,
        }
    }
}

/// The input of a residual block.
#[derive(Clone, Copy)]
pub(crate) enum BlockInput<'a> {
    /// `[B, C_in, H, W]`.
    Map(&'a Tensor),
    /// The channels of two maps, one after the other.
    Joined([&'a Tensor; 2]),
}

impl BlockInput<'_> {
    /// As one map.
    pub(crate) fn joined(self) -> Result<Tensor> {
        match self {
            Self::Map(x) => Ok(x.clone()),
            Self::Joined([a, b]) => concat(a, b),
        }
    }
}

/// A residual block.
///
/// Source: guided-diffusion `ResBlock`, diffusers `ResnetBlock2D`.
#[derive(Clone, Debug)]
pub struct ResBlock {
    norm_in: GroupNorm,
    conv_in: Conv2d,
    emb: Option<Linear>,
    norm_out: GroupNorm,
    dropout: Dropout,
    conv_out: Conv2d,
    skip: Option<Conv2d>,
    resample: Resample,
    scale_shift: bool,
    nonlinearity: Nonlinearity,
    output_scale: f64,
}

impl ResBlock {
    /// The block with the keys of its [`Convention`].
    ///
    /// # Errors
    /// Channels that the norm groups do not divide, and those of [`crate::ParamSource::get`].
    pub fn load(scope: &Scope<'_>, config: &ResBlockConfig) -> Result<Self> {
        let (c_in, c_out) = (config.channels, config.out_channels);
        let emb_out = if config.scale_shift { 2 * c_out } else { c_out };
        let fan_in = ConvStart::FanIn;
        let ([norm_in, conv_in, emb, norm_out, conv_out, skip], last) = match config.convention {
            Convention::GuidedDiffusion => (
                [
                    "in_layers.0",
                    "in_layers.2",
                    "emb_layers.1",
                    "out_layers.0",
                    "out_layers.3",
                    "skip_connection",
                ],
                ConvStart::Zero,
            ),
            Convention::Diffusers => (
                [
                    "norm1",
                    "conv1",
                    "time_emb_proj",
                    "norm2",
                    "conv2",
                    "conv_shortcut",
                ],
                fan_in,
            ),
        };
        let load_emb = || Linear::load(&scope.pp(emb), config.emb_channels, emb_out);
        let skip = || Conv2d::load(&scope.pp(skip), c_in, c_out, config.skip_kernel, 1, fan_in);
        Ok(Self {
            norm_in: GroupNorm::load(&scope.pp(norm_in), c_in, config.groups)?.with_eps(config.eps),
            conv_in: Conv2d::load(&scope.pp(conv_in), c_in, c_out, 3, 1, fan_in)?,
            emb: (config.emb_channels > 0).then(load_emb).transpose()?,
            norm_out: GroupNorm::load(&scope.pp(norm_out), c_out, config.groups)?
                .with_eps(config.eps),
            dropout: Dropout::new(config.dropout, scope.prefix()),
            conv_out: Conv2d::load(&scope.pp(conv_out), c_out, c_out, 3, 1, last)?,
            skip: (c_in != c_out).then(skip).transpose()?,
            resample: config.resample,
            scale_shift: config.scale_shift,
            nonlinearity: config.nonlinearity,
            output_scale: config.output_scale,
        })
    }

    /// `x` `[B, C_in, H, W]` and `emb` `[B, E]` to `[B, C_out, H', W']`. A block without an embedding ignores `emb`.
    ///
    /// # Errors
    /// A missing embedding, or shapes that do not fit the weights.
    pub fn forward(
        &self,
        x: &Tensor,
        emb: Option<&Tensor>,
        key: Option<&DropoutKey<'_>>,
    ) -> Result<Tensor> {
        let modulation = EmbLayer::modulation(self.emb_layer(), emb)?;
        self.forward_modulated(BlockInput::Map(x), modulation.as_ref(), key)
    }

    /// The layer that the embedding goes through.
    pub(crate) fn emb_layer(&self) -> Option<EmbLayer<'_>> {
        let layer = self.emb.as_ref()?;
        Some(EmbLayer::new(self.nonlinearity, layer))
    }

    /// [`Self::forward`] of the channels of two maps, one after the other. A GPU does not join them for that if the block has a skip
    /// convolution and keeps the resolution.
    ///
    /// # Errors
    /// As [`Self::forward`], or maps that do not fit each other.
    pub fn forward_joined(
        &self,
        maps: [&Tensor; 2],
        emb: Option<&Tensor>,
        key: Option<&DropoutKey<'_>>,
    ) -> Result<Tensor> {
        let modulation = EmbLayer::modulation(self.emb_layer(), emb)?;
        self.forward_modulated(BlockInput::Joined(maps), modulation.as_ref(), key)
    }

    /// [`Self::forward`] with the result of [`Self::emb_layer`], `[B, C_out]` or `[B, 2 C_out]`.
    pub(crate) fn forward_modulated(
        &self,
        input: BlockInput<'_>,
        modulation: Option<&Tensor>,
        key: Option<&DropoutKey<'_>>,
    ) -> Result<Tensor> {
        match (input, &self.skip) {
            (BlockInput::Joined(maps), Some(skip)) if self.resample == Resample::None => {
                let (h, h_bias) = {
                    let h = self.nonlinearity.of_joined_norm(&self.norm_in, maps)?;
                    self.first(&h)?
                };
                let h = self.modulated(h, h_bias, modulation)?;
                self.last(&h, || skip.forward_joined(maps), key)
            }
            _ => self.forward_map(&input.joined()?, modulation, key),
        }
    }

    fn forward_map(
        &self,
        x: &Tensor,
        modulation: Option<&Tensor>,
        key: Option<&DropoutKey<'_>>,
    ) -> Result<Tensor> {
        // Values are dropped as soon as they have been used: maps of large images take hundreds of megabytes.
        let ((h, h_bias), x) = {
            let nonlinearity = self.nonlinearity;
            let h = nonlinearity.of_norm(&self.norm_in, (x, None), None)?;
            match self.resample {
                Resample::None => (self.first(&h)?, x.clone()),
                resample => (self.first(&resample.apply(&h)?)?, resample.apply(x)?),
            }
        };
        let h = self.modulated(h, h_bias, modulation)?;
        let skip = || match &self.skip {
            Some(skip) => skip.forward(&x),
            None => Ok(x),
        };
        self.last(&h, skip, key)
    }

    /// The last convolution and the sum with the other branch.
    fn last(
        &self,
        h: &Tensor,
        skip: impl FnOnce() -> Result<Tensor>,
        key: Option<&DropoutKey<'_>>,
    ) -> Result<Tensor> {
        let h = self.dropout.forward(h, key)?;
        let sum = self.conv_out.forward_onto(&skip()?, &h)?;
        divided(sum, self.output_scale)
    }

    /// The first convolution. On a GPU the norm adds its bias, unless the embedding is added in between.
    fn first(&self, h: &Tensor) -> Result<(Tensor, Option<&Tensor>)> {
        if h.device().is_cuda() && (self.scale_shift || self.emb.is_none()) {
            let (h, bias) = self.conv_in.forward_unbiased(h)?;
            return Ok((h, Some(bias)));
        }
        Ok((self.conv_in.forward(h)?, None))
    }

    /// The second norm, with the modulation added before it or as its scale and shift.
    fn modulated(
        &self,
        h: Tensor,
        h_bias: Option<&Tensor>,
        modulation: Option<&Tensor>,
    ) -> Result<Tensor> {
        let nonlinearity = self.nonlinearity;
        if self.emb.is_none() {
            return nonlinearity.of_norm(&self.norm_out, (&h, h_bias), None);
        }
        let Some(modulation) = modulation else {
            bail!("expected a time embedding for the residual block, found none");
        };
        if self.scale_shift {
            return nonlinearity.of_norm(&self.norm_out, (&h, h_bias), Some(modulation));
        }
        let h = add_per_channel(&h, modulation)?;
        nonlinearity.of_norm(&self.norm_out, (&h, None), None)
    }

    /// [`Self::forward_modulated`], which keeps only its inputs for the backward pass.
    pub(crate) fn recomputed(
        &self,
        input: BlockInput<'_>,
        modulation: Option<&Tensor>,
        key: Option<&DropoutKey<'_>>,
    ) -> Result<Tensor> {
        let (block, key) = (self.clone(), key.map(OwnedKey::new));
        let (maps, is_joined) = match input {
            BlockInput::Map(x) => (vec![x], false),
            BlockInput::Joined(maps) => (maps.to_vec(), true),
        };
        let inputs: Vec<_> = maps.into_iter().chain(modulation).collect();
        recompute(&inputs, move |inputs| {
            let (input, modulation) = match inputs {
                [a, b, rest @ ..] if is_joined => (BlockInput::Joined([a, b]), rest.first()),
                [x, rest @ ..] => (BlockInput::Map(x), rest.first()),
                [] => bail!("expected the input of a block, found none"),
            };
            let key = key.as_ref().map(OwnedKey::lend);
            block.forward_modulated(input, modulation, key.as_ref())
        })
    }
}
