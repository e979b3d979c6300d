//! The U-Net.

use crate::Unet2dConfig;
use crate::blocks::Builder;
use crate::embedding::{Class, Embedding};
use candle_core::{DType, Result, Tensor, bail};
use sdft_autograd::{Graphs, affine, taped, to_dtype, to_nchw};
use sdft_diffusion::{
    Bottleneck, BottleneckNet, Change, Condition, Denoiser, Edited, FeatureNet, Network,
    Prediction, PredictionType,
};
use sdft_kernels::Activation;
use sdft_nn::{Conv2d, ConvStart, GroupNorm, ParamSource, ParamSpec, Scope, Sequence, specs_of};
use sdft_noise::DropoutKey;

/// diffusers' `UNet2DModel`.
///
/// Source: diffusers 0.42 `UNet2DModel`. As a [`Denoiser`] it evaluates without labels and dropout, as a [`Network`] with either. As a
/// [`FeatureNet`] it returns its deepest features `h`, the output of the middle; as a [`BottleneckNet`] it takes changed ones.
#[derive(Clone, Debug)]
pub struct Unet2d {
    config: Unet2dConfig,
    conv_in: Conv2d,
    embedding: Embedding,
    down_blocks: Vec<Sequence>,
    up_blocks: Vec<Sequence>,
    mid_block: Sequence,
    norm_out: GroupNorm,
    conv_out: Conv2d,
    prediction_type: PredictionType,
    /// Whether blocks keep only their inputs for the backward pass.
    recomputed: bool,
    graphs: Graphs,
    /// The type of the feature maps.
    maps: DType,
}

impl Unet2d {
    /// The network with the parameters of `source`.
    ///
    /// # Errors
    /// An invalid configuration, or parameters that are missing or of another shape.
    pub fn load(source: &dyn ParamSource, config: &Unet2dConfig) -> Result<Self> {
        Self::build(&Scope::root(source), config)
    }

    /// The names, shapes and initial values of all parameters, in the order of the state dict.
    ///
    /// # Errors
    /// An invalid configuration.
    pub fn specs(config: &Unet2dConfig) -> Result<Vec<ParamSpec>> {
        specs_of(|scope| Self::build(scope, config))
    }

    fn build(scope: &Scope<'_>, config: &Unet2dConfig) -> Result<Self> {
        config.validate().map_err(candle_core::Error::wrap)?;
        let builder = Builder { config };
        let widths = &config.block_out_channels;
        let conv = |name: &str, c_in, c_out| {
            Conv2d::load(&scope.pp(name), c_in, c_out, 3, 1, ConvStart::FanIn)
        };
        let conv_in = conv("conv_in", config.in_channels, widths[0])?;
        let embedding = Embedding::load(scope, config)?;
        let mut channels = widths[0];
        let (mut down_blocks, mut skips) = (Vec::new(), vec![channels]);
        for (level, &width) in widths.iter().enumerate() {
            let blocks = builder.down(&scope.pp("down_blocks").pp(level), level, channels)?;
            channels = width;
            skips.extend(blocks.iter().map(|_| width));
            down_blocks.extend(blocks);
        }
        let mut up_blocks = Vec::with_capacity(skips.len());
        for (index, &width) in widths.iter().rev().enumerate() {
            let scope = scope.pp("up_blocks").pp(index);
            up_blocks.extend(builder.up(&scope, index, channels, &mut skips)?);
            channels = width;
        }
        Ok(Self {
            config: config.clone(),
            conv_in,
            maps: embedding.dtype(),
            embedding,
            down_blocks,
            up_blocks,
            mid_block: builder.middle(&scope.pp("mid_block"))?,
            norm_out: GroupNorm::load(
                &scope.pp("conv_norm_out"),
                widths[0],
                config.norm_num_groups,
            )?
            .with_eps(config.norm_eps),
            conv_out: conv("conv_out", widths[0], config.out_channels)?,
            prediction_type: PredictionType::Epsilon,
            recomputed: false,
            graphs: Graphs::default(),
        })
    }

    /// The same network, trained to predict this quantity; the default is the noise.
    #[must_use]
    pub fn with_prediction_type(mut self, prediction_type: PredictionType) -> Self {
        self.prediction_type = prediction_type;
        self
    }

    /// The same network with activation checkpointing: in training it saves only the inputs of residual and attention blocks and computes
    /// the values inside a second time. Less memory for about a third more time.
    #[must_use]
    pub fn recomputed(mut self) -> Self {
        self.recomputed = true;
        self
    }

    /// The same network with feature maps of this type (bf16, f16). Parameters, norm statistics, embeddings and the output keep their
    /// type.
    #[must_use]
    pub fn with_compute_dtype(mut self, maps: DType) -> Self {
        self.maps = maps;
        self.graphs = Graphs::default();
        self
    }

    /// The architecture.
    pub fn config(&self) -> &Unet2dConfig {
        &self.config
    }

    /// The embedding of time and class, `[B, emb_channels]`.
    ///
    /// # Errors
    /// Images that do not fit the network, or classes that are missing or unexpected.
    pub fn embed(&self, x: &Tensor, t: &[f32], class: Class<'_>) -> Result<Tensor> {
        let (batch, channels, h, w) = x.dims4()?;
        if t.len() != batch {
            bail!(
                "expected a timestep for each of {batch} images, found {}",
                t.len()
            );
        }
        if channels != self.config.in_channels {
            bail!(
                "expected images of {} channels, found {channels}",
                self.config.in_channels
            );
        }
        let factor = self.config.factor();
        if !h.is_multiple_of(factor) || !w.is_multiple_of(factor) || h == 0 || w == 0 {
            bail!("expected an image whose sides are multiples of {factor}, found {h}x{w}");
        }
        self.embedding.forward(t, class, x.device())
    }

    /// Encoder and middle: the deepest features `h` and all skip connections, in the compute type.
    ///
    /// # Errors
    /// Shapes that do not fit the weights.
    pub fn encode(
        &self,
        x: &Tensor,
        emb: &Tensor,
        key: Option<&DropoutKey<'_>>,
    ) -> Result<(Tensor, Vec<Tensor>)> {
        let x = match self.config.center_input_sample {
            true => affine(x, 2.0, -1.0)?,
            false => x.clone(),
        };
        let mut h = self.conv_in.forward(&to_dtype(&x, self.maps)?)?;
        let mut skips = vec![h.clone()];
        let blocks = self.down_blocks.iter().chain([&self.mid_block]);
        for block in Sequence::embedded(blocks, emb)? {
            h = block.forward(&h, key, self.recomputed)?;
            skips.push(h.clone());
        }
        // The last one is that of the middle.
        skips.pop();
        Ok((h, skips))
    }

    /// Decoder: from `h` and the skip connections of [`Self::encode`] to `[B, out_channels, H, W]`.
    ///
    /// # Errors
    /// Shapes that do not fit the weights.
    pub fn decode(
        &self,
        h: &Tensor,
        skips: &[Tensor],
        emb: &Tensor,
        key: Option<&DropoutKey<'_>>,
    ) -> Result<Tensor> {
        let mut h = to_dtype(h, self.maps)?;
        let blocks = Sequence::embedded(&self.up_blocks, emb)?;
        for (block, skip) in blocks.iter().zip(skips.iter().rev()) {
            h = block.forward_joined(&h, skip, key, self.recomputed)?;
        }
        let h = self.norm_out.forward(&h, Activation::Silu)?;
        to_nchw(&self.conv_out.forward(&h)?, self.embedding.dtype())
    }

    /// The raw output `[B, out_channels, H, W]` for images with these labels.
    ///
    /// # Errors
    /// Those of [`Self::embed`].
    pub fn forward(
        &self,
        x: &Tensor,
        t: &[f32],
        labels: Option<&[u32]>,
        key: Option<&DropoutKey<'_>>,
    ) -> Result<Tensor> {
        self.forward_class(x, t, labels.map_or(Class::None, Class::Labels), key)
    }

    /// The raw output `[B, out_channels, H, W]` for images of these classes.
    ///
    /// # Errors
    /// Those of [`Self::embed`].
    pub fn forward_class(
        &self,
        x: &Tensor,
        t: &[f32],
        class: Class<'_>,
        key: Option<&DropoutKey<'_>>,
    ) -> Result<Tensor> {
        taped(&x.to_dtype(self.embedding.dtype())?, |x| {
            let emb = self.embed(x, t, class)?;
            let forward = |x: &Tensor, emb: &[Tensor]| {
                let (h, skips) = self.encode(x, &emb[0], key)?;
                self.decode(&h, &skips, &emb[0], key)
            };
            let repeats = !self.recomputed && (key.is_none() || self.config.dropout == 0.0);
            self.graphs.run(x, &[emb], repeats, forward)
        })
    }

    fn prediction(&self, output: &Tensor) -> Result<Prediction> {
        Prediction::split(output, self.config.in_channels, self.prediction_type)
    }
}

impl Denoiser for Unet2d {
    fn predict(&self, xt: &Tensor, t: &[f32]) -> Result<Prediction> {
        self.predict_with(xt, t, &Condition::default())
    }
}

impl Network for Unet2d {
    fn predict_with(
        &self,
        xt: &Tensor,
        t: &[f32],
        condition: &Condition<'_>,
    ) -> Result<Prediction> {
        condition.check_no_augment()?;
        let dropout = condition.dropout.as_ref();
        self.prediction(&self.forward(xt, t, condition.labels, dropout)?)
    }

    fn predict_edited_with(
        &self,
        xt: &Tensor,
        t: &[f32],
        condition: &Condition<'_>,
        change: &mut Change<'_>,
    ) -> Result<Edited> {
        condition.check_no_augment()?;
        let key = condition.dropout.as_ref();
        let dtype = self.embedding.dtype();
        let x = xt.to_dtype(dtype)?;
        let class = condition.labels.map_or(Class::None, Class::Labels);
        let emb = self.embed(&x, t, class)?;
        let (h, skips) = self.encode(&x, &emb, key)?;
        let frozen = !emb.track_op() && skips.iter().all(|skip| !skip.track_op());
        Edited::new(to_nchw(&h, dtype)?, &emb, change, |h| {
            let out = if frozen {
                taped(h, |h| self.decode(h, &skips, &emb, key))?
            } else {
                self.decode(h, &skips, &emb, key)?
            };
            self.prediction(&out)
        })
    }

    fn n_classes(&self) -> usize {
        self.config.n_classes()
    }
}

impl BottleneckNet for Unet2d {
    fn predict_edited(&self, xt: &Tensor, t: &[f32], change: &mut Change<'_>) -> Result<Edited> {
        self.predict_edited_with(xt, t, &Condition::default(), change)
    }

    fn bottleneck(&self) -> Bottleneck {
        Bottleneck {
            channels: self.config.deepest_width(),
            embedding: self.config.emb_channels(),
        }
    }
}

impl FeatureNet for Unet2d {
    fn features(&self, xt: &Tensor, t: &[f32]) -> Result<Tensor> {
        taped(xt, |xt| {
            let emb = self.embed(xt, t, Class::None)?;
            to_nchw(&self.encode(xt, &emb, None)?.0, self.embedding.dtype())
        })
    }
}
