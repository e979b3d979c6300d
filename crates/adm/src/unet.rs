//! The U-Net.

use crate::AdmConfig;
use crate::trunk::{Builder, Trunk};
use candle_core::{DType, Result, Tensor};
use sdft_autograd::{Graphs, taped, to_dtype, to_nchw};
use sdft_diffusion::{
    Bottleneck, BottleneckNet, Change, Condition, Denoiser, Edited, FeatureNet, Network,
    Prediction, PredictionType,
};
use sdft_kernels::Activation;
use sdft_nn::{Conv2d, ConvStart, GroupNorm, ParamSource, ParamSpec, Scope, Sequence, specs_of};
use sdft_noise::DropoutKey;

/// The ADM U-Net.
///
/// Source: guided-diffusion `UNetModel`. As a [`Denoiser`] it evaluates without labels and dropout; [`Unet::with`] returns a
/// denoiser with either. As a [`FeatureNet`] it returns its deepest features `h`; as a [`BottleneckNet`] it takes changed ones.
#[derive(Clone, Debug)]
pub struct Unet {
    config: AdmConfig,
    trunk: Trunk,
    output_blocks: Vec<Sequence>,
    norm_out: GroupNorm,
    conv_out: Conv2d,
    prediction_type: PredictionType,
    graphs: Graphs,
}

impl Unet {
    /// The network with the parameters of `source`.
    ///
    /// # Errors
    /// An invalid configuration, or parameters that are missing or of another shape.
    pub fn load(source: &dyn ParamSource, config: &AdmConfig) -> Result<Self> {
        Self::build(&Scope::root(source), config)
    }

    /// The names, shapes and initial values of all parameters, in the order of the state dict.
    ///
    /// # Errors
    /// An invalid configuration.
    pub fn specs(config: &AdmConfig) -> Result<Vec<ParamSpec>> {
        specs_of(|scope| Self::build(scope, config))
    }

    fn build(scope: &Scope<'_>, config: &AdmConfig) -> Result<Self> {
        config.validate().map_err(candle_core::Error::wrap)?;
        let trunk = Trunk::load(scope, config)?;
        let builder = Builder { config };
        let output = scope.pp("output_blocks");
        let mut skips = trunk.skip_channels.clone();
        let mut channels = config.width(config.levels() - 1);
        let mut output_blocks = Vec::with_capacity(skips.len());
        for level in (0..config.levels()).rev() {
            for i in 0..=config.num_res_blocks {
                let c_in = channels + skips.pop().unwrap_or(0);
                let last = i == config.num_res_blocks;
                output_blocks.push(builder.decoder_block(
                    &output.pp(output_blocks.len()),
                    c_in,
                    level,
                    last,
                )?);
                channels = config.width(level);
            }
        }
        Ok(Self {
            config: config.clone(),
            trunk,
            output_blocks,
            norm_out: GroupNorm::load(&scope.pp("out.0"), channels, config.norm_groups)?,
            conv_out: Conv2d::load(
                &scope.pp("out.2"),
                channels,
                config.out_channels,
                3,
                1,
                ConvStart::Zero,
            )?,
            prediction_type: PredictionType::Epsilon,
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
    ///
    /// Source: guided-diffusion `use_checkpoint`.
    #[must_use]
    pub fn recomputed(mut self) -> Self {
        self.trunk.recomputed = true;
        self
    }

    /// The same network with feature maps of this type (bf16, f16). Parameters, norm statistics, embeddings and the output keep their
    /// type.
    ///
    /// Source: guided-diffusion `convert_to_fp16`, which converts the weights of convolutions too; here they stay f32 and are
    /// rounded for each use.
    #[must_use]
    pub fn with_compute_dtype(mut self, maps: DType) -> Self {
        self.trunk.maps = maps;
        self.graphs = Graphs::default();
        self
    }

    /// The architecture.
    pub fn config(&self) -> &AdmConfig {
        &self.config
    }

    /// The embedding of time and class, `[B, 4 model_channels]`.
    ///
    /// # Errors
    /// Images that do not fit the network, or labels that are missing or unexpected.
    pub fn embed(&self, x: &Tensor, t: &[f32], labels: Option<&[u32]>) -> Result<Tensor> {
        self.trunk.embed(x, t, labels)
    }

    /// Encoder and middle: the deepest features `h` and the outputs of all input blocks, in the compute type.
    ///
    /// # Errors
    /// Shapes that do not fit the weights.
    pub fn encode(
        &self,
        x: &Tensor,
        emb: &Tensor,
        key: Option<&DropoutKey<'_>>,
    ) -> Result<(Tensor, Vec<Tensor>)> {
        self.trunk.forward(x, emb, key)
    }

    /// Decoder: from `h` and the outputs of [`Self::encode`] to `[B, out_channels, H, W]`.
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
        let mut h = to_dtype(h, self.trunk.maps)?;
        let blocks = Sequence::embedded(&self.output_blocks, emb)?;
        for (block, skip) in blocks.iter().zip(skips.iter().rev()) {
            h = block.forward_joined(&h, skip, key, self.trunk.recomputed)?;
        }
        let out = self
            .conv_out
            .forward(&self.norm_out.forward(&h, Activation::Silu)?)?;
        to_nchw(&out, self.trunk.dtype())
    }

    /// The raw output `[B, out_channels, H, W]`.
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
        taped(&x.to_dtype(self.trunk.dtype())?, |x| {
            let emb = self.embed(x, t, labels)?;
            let forward = |x: &Tensor, emb: &[Tensor]| {
                let (h, skips) = self.encode(x, &emb[0], key)?;
                self.decode(&h, &skips, &emb[0], key)
            };
            let repeats = !self.trunk.recomputed && (key.is_none() || self.config.dropout == 0.0);
            self.graphs.run(x, &[emb], repeats, forward)
        })
    }

    fn prediction(&self, output: &Tensor) -> Result<Prediction> {
        Prediction::split(output, self.config.in_channels, self.prediction_type)
    }

    /// This network as a denoiser with class labels or with dropout.
    pub fn with<'a>(
        &'a self,
        labels: Option<&'a [u32]>,
        dropout: Option<DropoutKey<'a>>,
    ) -> UnetCall<'a> {
        UnetCall {
            unet: self,
            labels,
            dropout,
        }
    }
}

/// A [`Unet`] with labels or dropout, as a [`Denoiser`].
#[derive(Clone, Copy, Debug)]
pub struct UnetCall<'a> {
    unet: &'a Unet,
    labels: Option<&'a [u32]>,
    dropout: Option<DropoutKey<'a>>,
}

impl Denoiser for UnetCall<'_> {
    fn predict(&self, xt: &Tensor, t: &[f32]) -> Result<Prediction> {
        let out = self
            .unet
            .forward(xt, t, self.labels, self.dropout.as_ref())?;
        self.unet.prediction(&out)
    }
}

impl Denoiser for Unet {
    fn predict(&self, xt: &Tensor, t: &[f32]) -> Result<Prediction> {
        self.with(None, None).predict(xt, t)
    }
}

impl Network for Unet {
    fn predict_with(
        &self,
        xt: &Tensor,
        t: &[f32],
        condition: &Condition<'_>,
    ) -> Result<Prediction> {
        condition.check_no_augment()?;
        self.with(condition.labels, condition.dropout)
            .predict(xt, t)
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
        let x = xt.to_dtype(self.trunk.dtype())?;
        let emb = self.embed(&x, t, condition.labels)?;
        let (h, skips) = self.encode(&x, &emb, key)?;
        let frozen = !emb.track_op() && skips.iter().all(|skip| !skip.track_op());
        Edited::new(to_nchw(&h, self.trunk.dtype())?, &emb, change, |h| {
            let out = if frozen {
                taped(h, |h| self.decode(h, &skips, &emb, key))?
            } else {
                self.decode(h, &skips, &emb, key)?
            };
            self.prediction(&out)
        })
    }

    fn n_classes(&self) -> usize {
        self.config.num_classes
    }
}

impl BottleneckNet for Unet {
    fn predict_edited(&self, xt: &Tensor, t: &[f32], change: &mut Change<'_>) -> Result<Edited> {
        self.predict_edited_with(xt, t, &Condition::default(), change)
    }

    fn bottleneck(&self) -> Bottleneck {
        Bottleneck {
            channels: self.config.width(self.config.levels() - 1),
            embedding: 4 * self.config.model_channels,
        }
    }
}

impl FeatureNet for Unet {
    fn features(&self, xt: &Tensor, t: &[f32]) -> Result<Tensor> {
        taped(xt, |xt| {
            let emb = self.embed(xt, t, None)?;
            to_nchw(&self.encode(xt, &emb, None)?.0, self.trunk.dtype())
        })
    }
}
