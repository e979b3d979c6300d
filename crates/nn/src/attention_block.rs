//! Self-attention over feature maps.

use crate::emb_layer::EmbLayer;
use crate::layers::{GroupNorm, Linear, Pointwise};
use crate::params::{Init, Scope};
use crate::qkv::Qkv;
use crate::time_adapter::TimeAdapter;
use candle_core::{Result, Tensor, bail};
use sdft_autograd::{affine, attention, flatten_space, recompute, unflatten_space};
use sdft_kernels::{Activation, AttentionOrder};

/// The initial weights of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConvStart {
    /// PyTorch's default: uniform within `1 / sqrt(fan_in)`.
    FanIn,
    /// All zeros, so that a residual branch that ends in it adds nothing at first (`zero_module`).
    Zero,
}

impl ConvStart {
    pub(crate) fn init(self, fan_in: usize) -> Init {
        match self {
            Self::FanIn => Init::fan_in(fan_in),
            Self::Zero => Init::Constant(0.0),
        }
    }
}

/// The choices of a diffusers attention block.
#[derive(Clone, Copy, Debug)]
pub struct AttentionConfig {
    /// Channels of the feature maps.
    pub channels: usize,
    /// Number of heads.
    pub heads: usize,
    /// Channels of each head. `heads * head_channels` may be less than `channels`.
    pub head_channels: usize,
    /// Groups of the norm; `None` has no norm.
    pub groups: Option<usize>,
    /// Added to the variance by the norm.
    pub eps: f64,
    /// The sum of input and attention is divided by this.
    pub output_scale: f64,
}

/// Self-attention over all pixels with a residual connection.
///
/// Source: guided-diffusion `AttentionBlock`, diffusers `Attention` as its `UNet2DModel` uses it.
/// ```text
/// y = (x + proj_out( adapter( attention( qkv( norm(x) ) ) ) )) / output_scale
/// ```
/// The adapter is optional; see [`TimeAdapter`].
#[derive(Clone, Debug)]
pub struct AttentionBlock {
    norm: Option<GroupNorm>,
    projection: Projection,
    adapter: Option<TimeAdapter>,
    proj_out: Pointwise,
    heads: usize,
    order: AttentionOrder,
    output_scale: f64,
}

/// The projection to queries, keys and values.
#[derive(Clone, Debug)]
enum Projection {
    /// By one layer.
    Joint(Pointwise),
    /// By three layers.
    Split(Qkv),
}

impl Projection {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Joint(layer) => layer.forward(x),
            Self::Split(layers) => layers.forward(x),
        }
    }
}

impl AttentionBlock {
    /// guided-diffusion's block. Keys `norm`, `qkv`, `proj_out`.
    ///
    /// # Errors
    /// Channels that the heads or the norm groups do not divide, and those of [`crate::ParamSource::get`].
    pub fn load(
        scope: &Scope<'_>,
        channels: usize,
        heads: usize,
        groups: usize,
        order: AttentionOrder,
    ) -> Result<Self> {
        if heads == 0 || !channels.is_multiple_of(heads) {
            bail!(
                "{}: expected a number of attention heads that divides {channels} channels, found {heads}",
                scope.prefix()
            );
        }
        let fan_in = ConvStart::FanIn;
        Ok(Self {
            norm: Some(GroupNorm::load(&scope.pp("norm"), channels, groups)?),
            projection: Projection::Joint(Pointwise::load(
                &scope.pp("qkv"),
                channels,
                3 * channels,
                fan_in,
            )?),
            adapter: None,
            proj_out: Pointwise::load(&scope.pp("proj_out"), channels, channels, ConvStart::Zero)?,
            heads,
            order,
            output_scale: 1.0,
        })
    }

    /// diffusers' block. Keys `group_norm`, `to_q`, `to_k`, `to_v`, `to_out.0`.
    ///
    /// # Errors
    /// No heads, channels that the norm groups do not divide, and those of [`crate::ParamSource::get`].
    pub fn load_split(scope: &Scope<'_>, config: &AttentionConfig) -> Result<Self> {
        let &AttentionConfig {
            channels, heads, ..
        } = config;
        let inner = heads * config.head_channels;
        if inner == 0 {
            bail!("{}: expected attention heads, found none", scope.prefix());
        }
        let norm = |groups| GroupNorm::load(&scope.pp("group_norm"), channels, groups);
        let norm = config.groups.map(norm).transpose()?;
        let [q, k, v] =
            ["to_q", "to_k", "to_v"].map(|name| Linear::load(&scope.pp(name), channels, inner));
        Ok(Self {
            norm: norm.map(|norm| norm.with_eps(config.eps)),
            projection: Projection::Split(Qkv::new([q?, k?, v?])),
            adapter: None,
            proj_out: Linear::load(&scope.pp("to_out.0"), inner, channels)?.into(),
            heads,
            order: AttentionOrder::Chunked,
            output_scale: config.output_scale,
        })
    }

    /// The same block with a time-aware adapter of this rank, under the key `adapter`; see [`TimeAdapter::load`].
    ///
    /// # Errors
    /// Those of [`crate::ParamSource::get`].
    pub fn with_time_adapter(
        mut self,
        scope: &Scope<'_>,
        emb_channels: usize,
        rank: usize,
    ) -> Result<Self> {
        let (scope, channels) = (scope.pp(TimeAdapter::NAME), self.proj_out.inputs());
        self.adapter = Some(TimeAdapter::load(&scope, channels, emb_channels, rank)?);
        Ok(self)
    }

    /// `x` `[B, C, H, W]` to the same shape. An adapter needs the time embedding `[B, E]`, which is not used without one.
    ///
    /// # Errors
    /// A shape that does not fit the weights, or an adapter without an embedding.
    pub fn forward(&self, x: &Tensor, emb: Option<&Tensor>) -> Result<Tensor> {
        let modulation = EmbLayer::modulation(self.emb_layer(), emb)?;
        self.forward_modulated(x, modulation.as_ref())
    }

    /// The layer of the adapter that the embedding goes through.
    pub(crate) fn emb_layer(&self) -> Option<EmbLayer<'_>> {
        Some(self.adapter.as_ref()?.emb_layer())
    }

    /// [`Self::forward`] with the result of [`Self::emb_layer`].
    pub(crate) fn forward_modulated(
        &self,
        x: &Tensor,
        modulation: Option<&Tensor>,
    ) -> Result<Tensor> {
        let (_, _, h, w) = x.dims4()?;
        let flat = flatten_space(x)?;
        let normed = match &self.norm {
            Some(norm) => norm.forward(&flat, Activation::None)?,
            None => flat.clone(),
        };
        let out = attention(&self.projection.forward(&normed)?, self.heads, self.order)?;
        let out = match (&self.adapter, modulation) {
            (None, _) => out,
            (Some(adapter), Some(modulation)) => adapter.forward_modulated(&out, modulation)?,
            (Some(_), None) => bail!("expected a time embedding for the adapter, found none"),
        };
        let out = self.proj_out.forward_onto(&flat, &out)?;
        let sum = divided(out, self.output_scale)?;
        unflatten_space(&sum, h, w)
    }

    /// [`Self::forward_modulated`], which keeps only its inputs for the backward pass.
    pub(crate) fn recomputed(&self, x: &Tensor, modulation: Option<&Tensor>) -> Result<Tensor> {
        let block = self.clone();
        let inputs: Vec<_> = [x].into_iter().chain(modulation).collect();
        recompute(&inputs, move |inputs| {
            block.forward_modulated(&inputs[0], inputs.get(1))
        })
    }
}

/// `x / scale`.
pub(crate) fn divided(x: Tensor, scale: f64) -> Result<Tensor> {
    if scale == 1.0 {
        return Ok(x);
    }
    affine(&x, 1.0 / scale, 0.0)
}
