//! A transformer layer whose tokens are columns.

use super::config::{Dinov2Config, HiddenAct};
use crate::layer_norm::LayerNorm;
use crate::narrow::narrowed;
use candle_core::{DType, Result, Tensor};
use sdft_autograd::{add, attention, pointwise, relu, silu};
use sdft_kernels::AttentionOrder;
use sdft_nn::{Init, Scope};

/// A dense layer for every token.
#[derive(Clone, Debug)]
struct Dense {
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Dense {
    fn load(scope: &Scope<'_>, n_in: usize, n_out: usize, has_bias: bool) -> Result<Self> {
        let bias = has_bias.then(|| scope.get("bias", &[n_out], Init::Constant(0.0)));
        Ok(Self {
            weight: scope.get("weight", &[n_out, n_in], Init::Normal(0.02))?,
            bias: bias.transpose()?,
        })
    }

    fn bias(&self) -> Result<Tensor> {
        match &self.bias {
            Some(bias) => Ok(bias.clone()),
            None => Tensor::zeros(
                self.weight.dim(0)?,
                self.weight.dtype(),
                self.weight.device(),
            ),
        }
    }

    /// With each output times `factors`.
    fn scaled(&self, factors: &Tensor) -> Result<Self> {
        Ok(Self {
            weight: self.weight.broadcast_mul(&factors.unsqueeze(1)?)?,
            bias: Some((self.bias()? * factors)?),
        })
    }

    /// The outputs of several layers, one after the other.
    fn joined(layers: &[Self]) -> Result<Self> {
        let weights: Vec<&Tensor> = layers.iter().map(|layer| &layer.weight).collect();
        let biases = layers.iter().map(Self::bias).collect::<Result<Vec<_>>>()?;
        Ok(Self {
            weight: Tensor::cat(&weights, 0)?,
            bias: Some(Tensor::cat(&biases, 0)?),
        })
    }

    /// `[B, n_in, N]` to `[B, n_out, N]`, by factors of type `dtype`.
    fn forward(&self, x: &Tensor, dtype: DType) -> Result<Tensor> {
        let bias = self.bias()?;
        narrowed(x, dtype, |x| pointwise(x, &self.weight, &bias))
    }
}

/// The parameters of a layer, as they are in its file.
#[derive(Clone, Debug)]
pub(super) struct LayerParams {
    norms: [LayerNorm; 2],
    /// The projections of queries, keys and values.
    projections: [Dense; 3],
    output: Dense,
    mlp: [Dense; 2],
    /// LayerScale's factors.
    scales: [Tensor; 2],
}

impl LayerParams {
    pub(super) fn load(scope: &Scope<'_>, config: &Dinov2Config) -> Result<Self> {
        let (c, inner) = (config.hidden_size, config.inner());
        let norm = |name: &str| LayerNorm::load(&scope.pp(name), c, config.layer_norm_eps);
        let attention = scope.pp("attention");
        let project = |name: &str| Dense::load(&attention.pp(name), c, c, config.qkv_bias);
        let scale = |name: &str| scope.pp(name).get("lambda1", &[c], Init::Constant(1.0));
        let mlp = scope.pp("mlp");
        Ok(Self {
            norms: [norm("norm1")?, norm("norm2")?],
            projections: [project("q_proj")?, project("k_proj")?, project("v_proj")?],
            output: Dense::load(&attention.pp("o_proj"), c, c, true)?,
            scales: [scale("layer_scale1")?, scale("layer_scale2")?],
            mlp: match config.use_swiglu_ffn {
                true => [
                    Dense::load(&mlp.pp("weights_in"), c, 2 * inner, true)?,
                    Dense::load(&mlp.pp("weights_out"), inner, c, true)?,
                ],
                false => [
                    Dense::load(&mlp.pp("fc1"), c, inner, true)?,
                    Dense::load(&mlp.pp("fc2"), inner, c, true)?,
                ],
            },
        })
    }
}

/// What is between the two dense layers of a feed-forward block.
#[derive(Clone, Copy, Debug)]
enum Between {
    Act(HiddenAct),
    /// The first half of the channels, through SiLU, times the second.
    Gate,
}

impl Between {
    fn forward(self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Act(HiddenAct::Gelu) => x.gelu_erf(),
            Self::Act(HiddenAct::GeluNew) => x.gelu(),
            Self::Act(HiddenAct::Relu) => relu(x),
            Self::Act(HiddenAct::Silu) => silu(x),
            Self::Gate => {
                let half = x.dim(1)? / 2;
                silu(&x.narrow(1, 0, half)?)? * x.narrow(1, half, half)?
            }
        }
    }
}

/// A pre-norm layer: attention, then a feed-forward block. LayerScale is part of the last dense layer of each.
#[derive(Clone, Debug)]
pub(super) struct Layer {
    norms: [LayerNorm; 2],
    qkv: Dense,
    output: Dense,
    mlp: [Dense; 2],
    between: Between,
    heads: usize,
}

impl Layer {
    pub(super) fn new(params: LayerParams, config: &Dinov2Config) -> Result<Self> {
        let [attention, feed_forward] = &params.scales;
        let [first, last] = params.mlp;
        Ok(Self {
            norms: params.norms,
            qkv: Dense::joined(&params.projections)?,
            output: params.output.scaled(attention)?,
            mlp: [first, last.scaled(feed_forward)?],
            between: match config.use_swiglu_ffn {
                true => Between::Gate,
                false => Between::Act(config.hidden_act),
            },
            heads: config.num_attention_heads,
        })
    }

    /// `[B, C, N]` to the same shape, with dense layers by factors of type `dtype`.
    pub(super) fn forward(&self, x: &Tensor, dtype: DType) -> Result<Tensor> {
        let normed = |norm: &LayerNorm, x: &Tensor| -> Result<Tensor> {
            norm.forward(&x.transpose(1, 2)?)?.transpose(1, 2)
        };
        let [norm, second] = &self.norms;
        let qkv = self.qkv.forward(&normed(norm, x)?, dtype)?;
        let seen = attention(&qkv, self.heads, AttentionOrder::Chunked)?;
        let x = add(x, &self.output.forward(&seen, dtype)?)?;
        let h = self.mlp[0].forward(&normed(second, &x)?, dtype)?;
        let h = self.mlp[1].forward(&self.between.forward(&h)?, dtype)?;
        add(&x, &h)
    }
}
