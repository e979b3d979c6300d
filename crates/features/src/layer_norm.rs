//! Normalisation of each token of a transformer.

use candle_core::{Result, Tensor};
use sdft_autograd::norm_act;
use sdft_kernels::Activation;
use sdft_nn::{Init, Scope};

/// Normalisation over the last dimension.
#[derive(Clone, Debug)]
pub(crate) struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    eps: f64,
}

impl LayerNorm {
    pub(crate) fn load(scope: &Scope<'_>, channels: usize, eps: f64) -> Result<Self> {
        Ok(Self {
            weight: scope.get("weight", &[channels], Init::Constant(1.0))?,
            bias: scope.get("bias", &[channels], Init::Constant(0.0))?,
            eps,
        })
    }

    /// `[.., C]`: one group per token.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let channels = self.weight.elem_count();
        let rows = x.elem_count() / channels.max(1);
        let (a, b) = (
            self.weight.broadcast_as((rows, channels))?,
            self.bias.broadcast_as((rows, channels))?,
        );
        let y = norm_act(
            &x.contiguous()?.reshape((rows, channels, 1))?,
            &a,
            &b,
            1,
            self.eps,
            Activation::None,
        )?;
        y.reshape(x.shape())
    }
}
