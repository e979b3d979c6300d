//! Convolution, dense layer and group norm with their parameters.

use crate::attention_block::ConvStart;
use crate::params::{Init, Scope};
use candle_core::{DType, Result, Tensor};
use sdft_autograd::{
    conv2d_joined, conv2d_onto, conv2d_padded, conv2d_unbiased, group_norm, group_norm_biased,
    group_norm_joined, linear, pointwise, pointwise_onto, relu, silu,
};
use sdft_kernels::Activation;

/// A convolution with square filters and a bias.
#[derive(Clone, Debug)]
pub struct Conv2d {
    weight: Tensor,
    bias: Tensor,
    stride: usize,
    /// Rows and columns of zeros: top, left, bottom, right.
    pad: [usize; 4],
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
            pad: [k / 2; 4],
        })
    }

    /// The same convolution with this many rows and columns of zeros at the top, the left, the bottom and the right.
    #[must_use]
    pub fn with_padding(mut self, pad: [usize; 4]) -> Self {
        self.pad = pad;
        self
    }

    /// `[B, C_in, H, W]` to `[B, C_out, H', W']`.
    ///
    /// # Errors
    /// Those of [`sdft_autograd::conv2d_padded`].
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        conv2d_padded(x, &self.weight, &self.bias, self.stride, self.pad)
    }

    /// [`Self::forward`] without the bias, and the bias.
    ///
    /// # Errors
    /// Those of [`sdft_autograd::conv2d_padded`].
    pub(crate) fn forward_unbiased(&self, x: &Tensor) -> Result<(Tensor, &Tensor)> {
        let y = conv2d_unbiased(x, &self.weight, self.stride, self.pad)?;
        Ok((y, &self.bias))
    }

    /// `sum` + [`Self::forward`].
    ///
    /// # Errors
    /// Those of [`sdft_autograd::conv2d_padded`].
    pub(crate) fn forward_onto(&self, sum: &Tensor, x: &Tensor) -> Result<Tensor> {
        conv2d_onto(sum, x, &self.weight, &self.bias, self.stride, self.pad)
    }

    /// [`Self::forward`] of the channels of two maps, one after the other; with stride 1.
    ///
    /// # Errors
    /// Those of [`sdft_autograd::conv2d_joined`].
    pub(crate) fn forward_joined(&self, maps: [&Tensor; 2]) -> Result<Tensor> {
        conv2d_joined(maps, &self.weight, &self.bias, self.pad)
    }

    /// The type of the weights.
    pub fn dtype(&self) -> DType {
        self.weight.dtype()
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

    /// The same layer without a bias.
    ///
    /// # Errors
    /// Those of [`crate::ParamSource::get`].
    pub(crate) fn load_unbiased(scope: &Scope<'_>, c_in: usize, c_out: usize) -> Result<Self> {
        let weight = scope.get("weight", &[c_out, c_in, 1], Init::fan_in(c_in))?;
        let bias = Tensor::zeros(c_out, weight.dtype(), weight.device())?;
        Ok(Self { weight, bias })
    }

    /// Number of input channels.
    pub(crate) fn inputs(&self) -> usize {
        self.weight.dims().get(1).copied().unwrap_or(0)
    }

    /// `[B, C_in, N]` to `[B, C_out, N]`.
    ///
    /// # Errors
    /// Those of [`sdft_autograd::conv2d`].
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        pointwise(x, &self.weight, &self.bias)
    }

    /// `sum` + [`Self::forward`].
    ///
    /// # Errors
    /// Those of [`sdft_autograd::conv2d`].
    pub(crate) fn forward_onto(&self, sum: &Tensor, x: &Tensor) -> Result<Tensor> {
        pointwise_onto(sum, x, &self.weight, &self.bias)
    }
}

/// A dense layer with a bias.
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

    /// The same layer with other initial weights, and a bias that starts at zero.
    ///
    /// # Errors
    /// Those of [`crate::ParamSource::get`].
    pub fn load_with(scope: &Scope<'_>, n_in: usize, n_out: usize, weights: Init) -> Result<Self> {
        Ok(Self {
            weight: scope.get("weight", &[n_out, n_in], weights)?,
            bias: scope.get("bias", &[n_out], Init::Constant(0.0))?,
        })
    }

    /// The same layer without a bias.
    ///
    /// # Errors
    /// Those of [`crate::ParamSource::get`].
    pub fn load_unbiased(
        scope: &Scope<'_>,
        n_in: usize,
        n_out: usize,
        weights: Init,
    ) -> Result<Self> {
        let weight = scope.get("weight", &[n_out, n_in], weights)?;
        let bias = Tensor::zeros(n_out, weight.dtype(), weight.device())?;
        Ok(Self { weight, bias })
    }

    /// `[B, n_in]` to `[B, n_out]`.
    ///
    /// # Errors
    /// Those of [`linear`].
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        linear(x, &self.weight, &self.bias)
    }

    /// Weight and bias.
    pub(crate) fn parameters(&self) -> [&Tensor; 2] {
        [&self.weight, &self.bias]
    }

    /// The type of the weights, which is that of the inputs.
    pub fn dtype(&self) -> DType {
        self.weight.dtype()
    }
}

impl From<Linear> for Pointwise {
    /// The same layer at each of N positions.
    fn from(Linear { weight, bias }: Linear) -> Self {
        Self { weight, bias }
    }
}

/// The nonlinearity of a residual block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nonlinearity {
    /// `x * sigmoid(x)`, also called swish.
    Silu,
    /// `max(x, 0)`.
    Relu,
}

impl Nonlinearity {
    /// Applies it to each element.
    pub(crate) fn apply(self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Silu => silu(x),
            Self::Relu => relu(x),
        }
    }

    /// Applies it to `norm(x)`, or to `norm(x) (1 + scale) + shift` with the scale and shift of `emb` `[B, 2 C]`. `x` may lack its bias.
    pub(crate) fn of_norm(
        self,
        norm: &GroupNorm,
        (x, x_bias): (&Tensor, Option<&Tensor>),
        emb: Option<&Tensor>,
    ) -> Result<Tensor> {
        let norm = |activation| match x_bias {
            None => norm.modulated(x, emb, activation),
            Some(x_bias) => norm.biased(x, x_bias, emb, activation),
        };
        self.after(norm)
    }

    /// [`Self::of_norm`] of the channels of two maps, one after the other.
    pub(crate) fn of_joined_norm(self, norm: &GroupNorm, maps: [&Tensor; 2]) -> Result<Tensor> {
        self.after(|activation| norm.joined(maps, activation))
    }

    /// The norm with this activation.
    fn after(self, norm: impl FnOnce(Activation) -> Result<Tensor>) -> Result<Tensor> {
        match self {
            Self::Silu => norm(Activation::Silu),
            Self::Relu => relu(&norm(Activation::None)?),
        }
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
    /// `weight` and `bias` `[channels]`. `eps` is 1e-5, as in ADM.
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

    /// The same norm with another number added to the variance.
    #[must_use]
    pub fn with_eps(mut self, eps: f64) -> Self {
        self.eps = eps;
        self
    }

    /// Normalises, scales, shifts and activates `[B, C, ..]`.
    ///
    /// # Errors
    /// Those of [`sdft_autograd::group_norm`].
    pub fn forward(&self, x: &Tensor, activation: Activation) -> Result<Tensor> {
        self.modulated(x, None, activation)
    }

    /// [`Self::forward`] with the scale and shift of `emb` `[B, 2 C]`: `norm(x) (1 + scale) + shift`.
    ///
    /// # Errors
    /// Those of [`sdft_autograd::group_norm`].
    pub fn modulated(
        &self,
        x: &Tensor,
        emb: Option<&Tensor>,
        activation: Activation,
    ) -> Result<Tensor> {
        let (weight, bias) = (&self.weight, &self.bias);
        group_norm(x, weight, bias, emb, self.groups, self.eps, activation)
    }

    /// [`Self::forward`] of the channels of two maps, one after the other.
    fn joined(&self, maps: [&Tensor; 2], activation: Activation) -> Result<Tensor> {
        let (weight, bias) = (&self.weight, &self.bias);
        group_norm_joined(maps, weight, bias, self.groups, self.eps, activation)
    }

    /// [`Self::modulated`] of `x` + `x_bias` `[C]`.
    fn biased(
        &self,
        x: &Tensor,
        x_bias: &Tensor,
        emb: Option<&Tensor>,
        activation: Activation,
    ) -> Result<Tensor> {
        let (x, weight, bias) = ((x, x_bias), &self.weight, &self.bias);
        group_norm_biased(x, weight, bias, emb, self.groups, self.eps, activation)
    }
}
