//! Residual blocks, and changes of resolution between them.

use crate::ConvStart;
use crate::dropout::Dropout;
use crate::layers::{Conv2d, GroupNorm, Linear};
use crate::params::Scope;
use candle_core::{Result, Tensor};
use sdft_autograd::{add, add_per_channel, average_pool_2x, silu, upsample_nearest_2x};
use sdft_kernels::Activation;
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
    fn apply(self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::None => Ok(x.clone()),
            Self::Up => upsample_nearest_2x(x),
            Self::Down => average_pool_2x(x),
        }
    }
}

/// The choices of one residual block.
#[derive(Clone, Copy, Debug)]
pub struct ResBlockConfig {
    /// Channels of the input.
    pub channels: usize,
    /// Channels of the output.
    pub out_channels: usize,
    /// Width of the time embedding.
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
}

/// ADM's residual block.
///
/// Source: guided-diffusion `ResBlock`.
#[derive(Clone, Debug)]
pub struct ResBlock {
    norm_in: GroupNorm,
    conv_in: Conv2d,
    emb: Linear,
    norm_out: GroupNorm,
    dropout: Dropout,
    conv_out: Conv2d,
    skip: Option<Conv2d>,
    resample: Resample,
    scale_shift: bool,
}

impl ResBlock {
    /// Keys `in_layers.{0,2}`, `emb_layers.1`, `out_layers.{0,3}`, `skip_connection`.
    ///
    /// # Errors
    /// Channels that the norm groups do not divide, and those of [`crate::ParamSource::get`].
    pub fn load(scope: &Scope<'_>, config: &ResBlockConfig) -> Result<Self> {
        let (c_in, c_out) = (config.channels, config.out_channels);
        let emb_out = if config.scale_shift { 2 * c_out } else { c_out };
        let fan_in = ConvStart::FanIn;
        Ok(Self {
            norm_in: GroupNorm::load(&scope.pp("in_layers.0"), c_in, config.groups)?,
            conv_in: Conv2d::load(&scope.pp("in_layers.2"), c_in, c_out, 3, 1, fan_in)?,
            emb: Linear::load(&scope.pp("emb_layers.1"), config.emb_channels, emb_out)?,
            norm_out: GroupNorm::load(&scope.pp("out_layers.0"), c_out, config.groups)?,
            dropout: Dropout::new(config.dropout, scope.prefix()),
            conv_out: Conv2d::load(
                &scope.pp("out_layers.3"),
                c_out,
                c_out,
                3,
                1,
                ConvStart::Zero,
            )?,
            skip: if c_in == c_out {
                None
            } else {
                Some(Conv2d::load(
                    &scope.pp("skip_connection"),
                    c_in,
                    c_out,
                    config.skip_kernel,
                    1,
                    fan_in,
                )?)
            },
            resample: config.resample,
            scale_shift: config.scale_shift,
        })
    }

    /// `x` `[B, C_in, H, W]` and `emb` `[B, E]` to `[B, C_out, H', W']`.
    ///
    /// # Errors
    /// Shapes that do not fit the weights.
    pub fn forward(
        &self,
        x: &Tensor,
        emb: &Tensor,
        key: Option<&DropoutKey<'_>>,
    ) -> Result<Tensor> {
        let h = self.norm_in.forward(x, Activation::Silu)?;
        let (h, x) = match self.resample {
            Resample::None => (h, x.clone()),
            resample => (resample.apply(&h)?, resample.apply(x)?),
        };
        let h = self.conv_in.forward(&h)?;
        let emb = self.emb.forward(&silu(emb)?)?;
        let h = if self.scale_shift {
            self.norm_out.modulated(&h, Some(&emb), Activation::Silu)?
        } else {
            let h = add_per_channel(&h, &emb)?;
            self.norm_out.forward(&h, Activation::Silu)?
        };
        let h = self.conv_out.forward(&self.dropout.forward(&h, key)?)?;
        match &self.skip {
            Some(skip) => add(&skip.forward(&x)?, &h),
            None => add(&x, &h),
        }
    }
}

/// A separate change of resolution, with or without a convolution.
///
/// Source: guided-diffusion `Downsample` (key `op`) and `Upsample` (key `conv`).
#[derive(Clone, Debug)]
pub struct Resize {
    direction: Resample,
    conv: Option<Conv2d>,
}

impl Resize {
    /// Halves the resolution by a strided convolution if `learned`, else by average pooling.
    ///
    /// # Errors
    /// Those of [`crate::ParamSource::get`].
    pub fn down(
        scope: &Scope<'_>,
        channels: usize,
        out_channels: usize,
        learned: bool,
    ) -> Result<Self> {
        let load = || {
            Conv2d::load(
                &scope.pp("op"),
                channels,
                out_channels,
                3,
                2,
                ConvStart::FanIn,
            )
        };
        Ok(Self {
            direction: Resample::Down,
            conv: learned.then(load).transpose()?,
        })
    }

    /// Doubles the resolution by nearest neighbours, followed by a convolution if `learned`.
    ///
    /// # Errors
    /// Those of [`crate::ParamSource::get`].
    pub fn up(
        scope: &Scope<'_>,
        channels: usize,
        out_channels: usize,
        learned: bool,
    ) -> Result<Self> {
        let load = || {
            Conv2d::load(
                &scope.pp("conv"),
                channels,
                out_channels,
                3,
                1,
                ConvStart::FanIn,
            )
        };
        Ok(Self {
            direction: Resample::Up,
            conv: learned.then(load).transpose()?,
        })
    }

    /// `[B, C, H, W]` to `[B, C', H', W']`.
    ///
    /// # Errors
    /// A shape that does not fit the weights.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match (&self.conv, self.direction) {
            (Some(conv), Resample::Down) => conv.forward(x),
            (Some(conv), direction) => conv.forward(&direction.apply(x)?),
            (None, direction) => direction.apply(x),
        }
    }
}
