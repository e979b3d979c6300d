//! The transformer of an encoder.

use crate::layer_norm::LayerNorm;
use crate::narrow::narrowed;
use candle_core::{D, DType, Result, Tensor};
use candle_nn::ops::{sigmoid, softmax};
use sdft_autograd::linear;
use sdft_nn::{Init, Scope};

/// Added to the variance of a token.
pub(super) const EPS: f64 = 1e-5;

/// Sizes of a tower.
#[derive(Clone, Copy)]
pub(super) struct TowerConfig {
    pub(super) channels: usize,
    pub(super) layers: usize,
    pub(super) heads: usize,
}

/// A dense layer over the last dimension.
#[derive(Clone, Debug)]
struct Dense {
    weight: Tensor,
    bias: Tensor,
}

impl Dense {
    fn load(scope: &Scope<'_>, n_in: usize, n_out: usize) -> Result<Self> {
        Ok(Self {
            weight: scope.get("weight", &[n_out, n_in], Init::fan_in(n_in))?,
            bias: scope.get("bias", &[n_out], Init::fan_in(n_in))?,
        })
    }

    /// `[B, T, n_in]` to `[B, T, n_out]`, by factors of type `dtype`.
    fn forward(&self, x: &Tensor, dtype: DType) -> Result<Tensor> {
        let (b, t, n_in) = x.dims3()?;
        let rows = x.contiguous()?.reshape((b * t, n_in))?;
        let y = narrowed(&rows, dtype, |x| linear(x, &self.weight, &self.bias))?;
        y.reshape((b, t, self.bias.elem_count()))
    }
}

/// `x w^T`: `[B, I]` and `[O, I]` to `[B, O]`.
pub(super) fn project(x: &Tensor, w: &Tensor) -> Result<Tensor> {
    x.matmul(&w.t()?)
}

#[derive(Clone, Debug)]
struct Layer {
    norms: [LayerNorm; 2],
    /// The projections of queries, keys, values and the output.
    attention: [Dense; 4],
    mlp: [Dense; 2],
    heads: usize,
}

impl Layer {
    fn load(scope: &Scope<'_>, config: TowerConfig) -> Result<Self> {
        let c = config.channels;
        let at = scope.pp("self_attn");
        let dense = |name: &str| Dense::load(&at.pp(name), c, c);
        Ok(Self {
            norms: [
                LayerNorm::load(&scope.pp("layer_norm1"), c, EPS)?,
                LayerNorm::load(&scope.pp("layer_norm2"), c, EPS)?,
            ],
            attention: [
                dense("q_proj")?,
                dense("k_proj")?,
                dense("v_proj")?,
                dense("out_proj")?,
            ],
            mlp: [
                Dense::load(&scope.pp("mlp").pp("fc1"), c, 4 * c)?,
                Dense::load(&scope.pp("mlp").pp("fc2"), 4 * c, c)?,
            ],
            heads: config.heads,
        })
    }

    /// `mask` `[T, T]` is added to the scores.
    fn attend(&self, x: &Tensor, mask: Option<&Tensor>, dtype: DType) -> Result<Tensor> {
        let (b, t, c) = x.dims3()?;
        let split = |dense: &Dense| {
            dense
                .forward(x, dtype)?
                .reshape((b, t, self.heads, c / self.heads))?
                .transpose(1, 2)?
                .contiguous()
        };
        let [q, k, v, out] = &self.attention;
        let scale = 1.0 / ((c / self.heads) as f64).sqrt();
        let (q, k, v) = ((split(q)? * scale)?, split(k)?, split(v)?);
        let mut scores = q.matmul(&k.transpose(2, 3)?.contiguous()?)?;
        if let Some(mask) = mask {
            scores = scores.broadcast_add(mask)?;
        }
        let seen = softmax(&scores, D::Minus1)?.matmul(&v)?;
        let seen = seen.transpose(1, 2)?.contiguous()?.reshape((b, t, c))?;
        out.forward(&seen, dtype)
    }

    fn forward(&self, x: &Tensor, mask: Option<&Tensor>, dtype: DType) -> Result<Tensor> {
        let x = (x + self.attend(&self.norms[0].forward(x)?, mask, dtype)?)?;
        let h = self.mlp[0].forward(&self.norms[1].forward(&x)?, dtype)?;
        // The quick GELU that CLIP was trained with.
        let h = (&h * sigmoid(&(&h * 1.702)?)?)?;
        x + self.mlp[1].forward(&h, dtype)?
    }
}

/// A sequence of pre-norm transformer layers.
#[derive(Clone, Debug)]
pub(super) struct Tower(Vec<Layer>);

impl Tower {
    pub(super) fn load(scope: &Scope<'_>, config: TowerConfig) -> Result<Self> {
        let layers = (0..config.layers).map(|i| Layer::load(&scope.pp(i), config));
        layers.collect::<Result<_>>().map(Self)
    }

    /// `[B, T, C]` to the same shape, with dense layers by factors of type `dtype`. In a causal tower, tokens attend to themselves and
    /// earlier ones only.
    pub(super) fn forward(&self, x: &Tensor, causal: bool, dtype: DType) -> Result<Tensor> {
        let t = x.dim(1)?;
        let mask = if causal {
            let hidden = (0..t * t).map(|i| {
                if i % t > i / t {
                    f64::NEG_INFINITY
                } else {
                    0.0
                }
            });
            let mask = Tensor::from_iter(hidden, x.device())?.reshape((t, t))?;
            Some(mask.to_dtype(x.dtype())?)
        } else {
            None
        };
        let mut h = x.clone();
        for layer in &self.0 {
            h = layer.forward(&h, mask.as_ref(), dtype)?;
        }
        Ok(h)
    }
}
