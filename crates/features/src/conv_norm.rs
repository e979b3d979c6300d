//! Batch normalisation, folded into the convolution before it.

use candle_core::{Result, Tensor};
use sdft_autograd::conv2d;
use sdft_nn::{Init, Scope};

/// Batch normalisation at inference: a scale and a shift per channel.
#[derive(Clone, Debug)]
pub(crate) struct FoldedNorm {
    pub(crate) scale: Tensor,
    pub(crate) shift: Tensor,
}

impl FoldedNorm {
    /// `weight`, `bias`, `running_mean`, `running_var`, each `[channels]`.
    pub(crate) fn load(scope: &Scope<'_>, channels: usize, eps: f64) -> Result<Self> {
        let get = |name: &str, start| scope.get(name, &[channels], Init::Constant(start));
        let variance = get("running_var", 1.0)?;
        let scale = (get("weight", 1.0)? / (variance + eps)?.sqrt()?)?;
        let shift = (get("bias", 0.0)? - (get("running_mean", 0.0)? * &scale)?)?;
        Ok(Self { scale, shift })
    }

    /// `scale x + shift` for `[B, C, ..]`.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut shape = vec![1; x.rank()];
        shape[1] = self.scale.elem_count();
        x.broadcast_mul(&self.scale.reshape(shape.as_slice())?)?
            .broadcast_add(&self.shift.reshape(shape.as_slice())?)
    }
}

/// A convolution without bias and the batch normalisation after it, as one convolution.
#[derive(Clone, Debug)]
pub(crate) struct ConvNorm {
    weight: Tensor,
    bias: Tensor,
    stride: usize,
    pad: [usize; 2],
}

/// Channels, kernel, stride and padding of a convolution.
#[derive(Clone, Copy)]
pub(crate) struct ConvSpec {
    pub(crate) c_in: usize,
    pub(crate) c_out: usize,
    pub(crate) k: [usize; 2],
    pub(crate) stride: usize,
    pub(crate) pad: [usize; 2],
}

impl ConvNorm {
    /// The convolution's `weight` in one scope, the normalisation in another.
    pub(crate) fn load(
        conv: &Scope<'_>,
        norm: &Scope<'_>,
        spec: ConvSpec,
        eps: f64,
    ) -> Result<Self> {
        let [k_h, k_w] = spec.k;
        let init = Init::fan_in(spec.c_in * k_h * k_w);
        let weight = conv.get("weight", &[spec.c_out, spec.c_in, k_h, k_w], init)?;
        let norm = FoldedNorm::load(norm, spec.c_out, eps)?;
        Ok(Self {
            weight: weight.broadcast_mul(&norm.scale.reshape((spec.c_out, 1, 1, 1))?)?,
            bias: norm.shift,
            stride: spec.stride,
            pad: spec.pad,
        })
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        conv2d(x, &self.weight, &self.bias, self.stride, self.pad)
    }
}
