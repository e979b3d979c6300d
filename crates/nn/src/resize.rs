//! Changes of resolution between residual blocks.

use crate::ConvStart;
use crate::layers::Conv2d;
use crate::params::Scope;
use crate::res_block::Resample;
use candle_core::{Result, Tensor};

/// A separate change of resolution, with or without a convolution.
///
/// Source: guided-diffusion `Downsample` (key `op`) and `Upsample` (key `conv`), diffusers `Downsample2D` and `Upsample2D` (key `conv`).
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
        if learned {
            return Self::down_conv(&scope.pp("op"), channels, out_channels, [1; 4]);
        }
        Ok(Self {
            direction: Resample::Down,
            conv: None,
        })
    }

    /// Halves the resolution by a strided convolution with this many rows and columns of zeros at the top, the left, the bottom and the
    /// right. Keys `weight`, `bias`.
    ///
    /// # Errors
    /// Those of [`crate::ParamSource::get`].
    pub fn down_conv(
        scope: &Scope<'_>,
        channels: usize,
        out_channels: usize,
        pad: [usize; 4],
    ) -> Result<Self> {
        let conv = Conv2d::load(scope, channels, out_channels, 3, 2, ConvStart::FanIn)?;
        Ok(Self {
            direction: Resample::Down,
            conv: Some(conv.with_padding(pad)),
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
