//! Convolution, dense layer and group norm with their parameters.

use crate::attention_block::ConvStart;
use crate::params::{Init, Scope};
use candle_core::{DType, Result, Tensor};
use sdft_autograd::{conv2d, group_norm, linear, pointwise};
use sdft_kernels::Activation;

/// A convolution with square filters and a bias.
#[derive(Clone, Debug)]
pub struct Conv2d {
    weight: Tensor,
    bias: Tensor,
    stride: usize,
    pad: usize,
}

impl Conv2d {
    /// `weight` `[c_out, c_in, k, k]` and `bias` `[c_out]`, padded so that stride 1 keeps the size.
    ///
    /// # Errors
    /// Those of [`crate::ParamSource::get`].
    pub fn load(
        scope: &Scope<'_>,
        c_in: usize,
        c_out: usize,
        k: usize,
        stride: usize,
        start: ConvStart,
    ) -> Result<Self> {
        let init = start.init(c_in * k * k);
        Ok(Self {
            weight: scope.get("weight", &[c_out, c_in, k, k], init)?,
            bias: scope.get("bias", &[c_out], init)?,
            stride,
            pad: k / 2,
        })
    }

    /// `[B, C_in, H, W]` to `[B, C_out, H', W']`.
    ///
    /// # Errors
    /// Those of [`sdft_autograd::conv2d`].
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        conv2d(x, &self.weight, &self.bias, self.stride, [self.pad; 2])
    }
}

/// A one-dimensional convolution of width one: a dense layer at each of N positions.
#[derive(Clone, Debug)]
pub struct Pointwise {
    weight: Tensor,
    bias: Tensor,
}

impl Pointwise {
    /// `weight` `[c_out, c_in, 1]` and `bias` `[c_out]`.
    ///
    /// # Errors
    /// Those of [`crate::ParamSource::get`].
    pub fn load(scope: &Scope<'_>, c_in: usize, c_out: usize, start: ConvStart) -> Result<Self> {
        let init = start.init(c_in);
        Ok(Self {
            weight: scope.get("weight", &[c_out, c_in, 1], init)?,
            bias: scope.get("bias", &[c_out], init)?,
        })
    }

    /// `[B, C_in, N]` to `[B, C_out, N]`.
    ///
    /// # Errors
    /// Those of [`sdft_autograd::conv2d`].
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        pointwise(x, &self.weight, &self.bias)
    }
}

/// A dense layer with bias.
#[derive(Clone, Debug)]
pub struct Linear {
    weight: Tensor,
    bias: Tensor,
}

impl Linear {
    /// `weight` `[n_out, n_in]` and `bias` `[n_out]`.
    ///
    /// # Errors
    /// Those of [`crate::ParamSource::get`].
    pub fn load(scope: &Scope<'_>, n_in: usize, n_out: usize) -> Result<Self> {
        Ok(Self {
            weight: scope.get("weight", &[n_out, n_in], Init::fan_in(n_in))?,
            bias: scope.get("bias", &[n_out], Init::fan_in(n_in))?,
        })
    }

    /// `[B, n_in]` to `[B, n_out]`.
    ///
    /// # Errors
    /// Those of [`linear`].
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        linear(x, &self.weight, &self.bias)
    }

    /// The type of the weights, which is that of the inputs.
    pub fn dtype(&self) -> DType {
        self.weight.dtype()
    }
}

/// Group normalisation with a learned scale and shift per channel.
#[derive(Clone, Debug)]
pub struct GroupNorm {
    weight: Tensor,
    bias: Tensor,
    groups: usize,
    eps: f64,
}

impl GroupNorm {
    /// `weight` and `bias` `[channels]`; `eps` is 1e-5, as everywhere in ADM.
    ///
    /// # Errors
    /// Channels that `groups` does not divide, and those of [`crate::ParamSource::get`].
    pub fn load(scope: &Scope<'_>, channels: usize, groups: usize) -> Result<Self> {
        if groups == 0 || !channels.is_multiple_of(groups) {
            candle_core::bail!(
                "{}: expected a number of norm groups that divides {channels} channels, found {groups}",
                scope.prefix()
            );
        }
        Ok(Self {
            weight: scope.get("weight", &[channels], Init::Constant(1.0))?,
            bias: scope.get("bias", &[channels], Init::Constant(0.0))?,
            groups,
            eps: 1e-5,
        })
    }

    /// Normalises, scales, shifts and activates `[B, C, ..]`.
    ///
    /// # Errors
    /// Those of [`sdft_autograd::group_norm`].
    pub fn forward(&self, x: &Tensor, activation: Activation) -> Result<Tensor> {
        self.modulated(x, None, activation)
    }

    /// [`Self::forward`] with the scale and shift of `emb` `[B, 2 C]`: `norm(x) (1 + scale) + shift`.
    pub(crate) fn modulated(
        &self,
        x: &Tensor,
        emb: Option<&Tensor>,
        activation: Activation,
    ) -> Result<Tensor> {
        let (weight, bias) = (&self.weight, &self.bias);
        group_norm(x, weight, bias, emb, self.groups, self.eps, activation)
    }
}
