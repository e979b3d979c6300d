//! The time-dependent classifier.

use crate::AdmConfig;
use crate::trunk::Trunk;
use candle_core::{D, DType, Result, Tensor, Var, bail};
use sdft_autograd::{backward, taped, to_nchw};
use sdft_diffusion::FeatureNet;
use sdft_kernels::Activation;
use sdft_nn::{
    AttentionPool, Conv2d, ConvStart, GroupNorm, Linear, ParamSource, ParamSpec, Scope, specs_of,
};
use serde::{Deserialize, Serialize};

/// How the classifier turns feature maps into one vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pool {
    /// Global average, then a 1x1 convolution.
    Adaptive,
    /// Attention pooling over all positions.
    Attention,
    /// Spatial means of every block, then two dense layers with ReLU.
    Spatial,
    /// As `Spatial`, with group norm and SiLU between the dense layers.
    SpatialV2,
}

/// The architecture of a time-dependent classifier: an ADM encoder and a pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EncoderConfig {
    /// The encoder; `out_channels` is the number of classes.
    pub net: AdmConfig,
    /// The head.
    pub pool: Pool,
}

/// Width between the dense layers of the spatial heads.
const HIDDEN: usize = 2048;
/// Groups of the norm in `SpatialV2`, regardless of the trunk.
const HIDDEN_GROUPS: usize = 32;

#[derive(Clone, Debug)]
enum Head {
    Adaptive(GroupNorm, Conv2d),
    Attention(GroupNorm, AttentionPool),
    Spatial(Linear, Linear),
    SpatialV2(Linear, GroupNorm, Linear),
}

/// The time-dependent classifier on ADM's encoder.
///
/// Source: guided-diffusion `EncoderUNetModel`. As a [`FeatureNet`] it returns the output of its middle block, the features of EGSDE.
#[derive(Clone, Debug)]
pub struct Encoder {
    trunk: Trunk,
    head: Head,
}

impl Encoder {
    /// The network with the parameters of `source`.
    ///
    /// # Errors
    /// An invalid configuration, or parameters that are missing or of another shape.
    pub fn load(source: &dyn ParamSource, config: &EncoderConfig) -> Result<Self> {
        Self::build(&Scope::root(source), config)
    }

    /// The names, shapes and initial values of all parameters, in the order of the state dict.
    ///
    /// # Errors
    /// An invalid configuration.
    pub fn specs(config: &EncoderConfig) -> Result<Vec<ParamSpec>> {
        specs_of(|scope| Self::build(scope, config))
    }

    fn build(scope: &Scope<'_>, EncoderConfig { net, pool }: &EncoderConfig) -> Result<Self> {
        net.validate().map_err(candle_core::Error::wrap)?;
        if net.num_classes != 0 {
            bail!(
                "model.num_classes: a classifier is not class-conditional, found {}",
                net.num_classes
            );
        }
        let trunk = Trunk::load(scope, net)?;
        let (channels, classes) = (net.width(net.levels() - 1), net.out_channels);
        let out = scope.pp("out");
        let norm = || GroupNorm::load(&out.pp(0), channels, net.norm_groups);
        let features = trunk.skip_channels.iter().sum::<usize>() + channels;
        let head = match pool {
            Pool::Adaptive => Head::Adaptive(
                norm()?,
                Conv2d::load(&out.pp(3), channels, classes, 1, 1, ConvStart::Zero)?,
            ),
            Pool::Attention => {
                if net.num_head_channels == 0 {
                    bail!(
                        "model.num_head_channels: the attention pool needs channels per head, found 0"
                    );
                }
                let side = net.image_size >> (net.levels() - 1);
                Head::Attention(
                    norm()?,
                    AttentionPool::load(
                        &out.pp(2),
                        side,
                        channels,
                        net.num_head_channels,
                        classes,
                    )?,
                )
            }
            Pool::Spatial => Head::Spatial(
                Linear::load(&out.pp(0), features, HIDDEN)?,
                Linear::load(&out.pp(2), HIDDEN, classes)?,
            ),
            Pool::SpatialV2 => Head::SpatialV2(
                Linear::load(&out.pp(0), features, HIDDEN)?,
                GroupNorm::load(&out.pp(1), HIDDEN, HIDDEN_GROUPS)?,
                Linear::load(&out.pp(3), HIDDEN, classes)?,
            ),
        };
        Ok(Self { trunk, head })
    }

    /// The same network with activation checkpointing; see [`crate::Unet::recomputed`].
    #[must_use]
    pub fn recomputed(mut self) -> Self {
        self.trunk.recomputed = true;
        self
    }

    /// The same network with feature maps of this type; see [`crate::Unet::with_compute_dtype`].
    #[must_use]
    pub fn with_compute_dtype(mut self, maps: DType) -> Self {
        self.trunk.maps = maps;
        self
    }

    /// Class logits `[B, classes]`.
    ///
    /// # Shapes
    /// - `x`: `[B, C, H, W]` in noised image space · `t`: `B` original timesteps
    ///
    /// # Errors
    /// Images that do not fit the network.
    pub fn logits(&self, x: &Tensor, t: &[f32]) -> Result<Tensor> {
        match &self.head {
            Head::Adaptive(norm, conv) => {
                let h = self.normed(norm, x, t)?;
                let pooled = h.mean_keepdim((D::Minus2, D::Minus1))?;
                conv.forward(&pooled)?.flatten_from(1)
            }
            Head::Attention(norm, pool) => pool.forward(&self.normed(norm, x, t)?),
            Head::Spatial(first, second) => {
                second.forward(&first.forward(&self.spatial_means(x, t)?)?.relu()?)
            }
            Head::SpatialV2(first, norm, second) => {
                let hidden = first.forward(&self.spatial_means(x, t)?)?;
                second.forward(&norm.forward(&hidden, Activation::Silu)?)
            }
        }
    }

    /// The deepest features, normalised.
    fn normed(&self, norm: &GroupNorm, x: &Tensor, t: &[f32]) -> Result<Tensor> {
        taped(x, |x| {
            let emb = self.trunk.embed(x, t, None)?;
            let (h, _) = self.trunk.forward(x, &emb, None)?;
            to_nchw(&norm.forward(&h, Activation::Silu)?, x.dtype())
        })
    }

    /// The spatial means of the outputs of all blocks. There are several results, so this is not one taped function.
    fn spatial_means(&self, x: &Tensor, t: &[f32]) -> Result<Tensor> {
        let emb = self.trunk.embed(x, t, None)?;
        let (h, skips) = self.trunk.forward(x, &emb, None)?;
        let means = skips
            .iter()
            .chain([&h])
            .map(|map| to_nchw(map, x.dtype())?.mean((D::Minus2, D::Minus1)))
            .collect::<Result<Vec<_>>>()?;
        Tensor::cat(&means, 1)
    }

    /// Log-probabilities of all classes, `[B, classes]`.
    ///
    /// # Errors
    /// Those of [`Self::logits`].
    pub fn log_probs(&self, x: &Tensor, t: &[f32]) -> Result<Tensor> {
        candle_nn::ops::log_softmax(&self.logits(x, t)?, 1)
    }

    /// The gradient of the log-probability of each label: `scale * d/dx log p(y | x, t)`.
    ///
    /// Source: guided-diffusion `cond_fn` of `classifier_sample.py`.
    ///
    /// # Shapes
    /// - `x`: `[B, C, H, W]` · `t`, `labels`: `B` entries · returns: the shape of `x`
    ///
    /// # Errors
    /// Labels outside the classes, and those of [`Self::logits`].
    pub fn guidance(&self, x: &Tensor, t: &[f32], labels: &[u32], scale: f64) -> Result<Tensor> {
        let x = Var::from_tensor(&x.detach())?;
        let labels = Tensor::new(labels, x.device())?.unsqueeze(1)?;
        let chosen = self
            .log_probs(x.as_tensor(), t)?
            .gather(&labels, 1)?
            .sum_all()?;
        match backward(&chosen)?.remove(x.as_tensor()) {
            Some(gradient) => gradient * scale,
            None => x.zeros_like(),
        }
    }
}

impl FeatureNet for Encoder {
    fn features(&self, xt: &Tensor, t: &[f32]) -> Result<Tensor> {
        taped(xt, |xt| {
            let emb = self.trunk.embed(xt, t, None)?;
            to_nchw(&self.trunk.forward(xt, &emb, None)?.0, xt.dtype())
        })
    }
}
