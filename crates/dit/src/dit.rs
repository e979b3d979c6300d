//! The transformer.

use crate::block::Block;
use crate::embedding::{Embedder, rows};
use crate::{DitConfig, positions};
use candle_core::{DType, Result, Tensor, bail};
use sdft_autograd::{
    Graphs, add, conv2d, flatten_space, silu, taped, to_dtype, to_nchw, token_norm,
    unflatten_space, unpatchify,
};
use sdft_diffusion::{
    Bottleneck, BottleneckNet, Change, Condition, Denoiser, Edited, FeatureNet, Network,
    Prediction, PredictionType,
};
use sdft_nn::{Init, Linear, ParamSource, ParamSpec, Pointwise, Scope, specs_of};
use sdft_noise::DropoutKey;

/// A diffusion transformer.
///
/// Source: diffusers 0.42 `DiTTransformer2DModel`; facebookresearch/DiT `DiT`. As a [`Denoiser`] it evaluates without labels and dropout,
/// as a [`Network`] with either. As a [`FeatureNet`] it returns its deepest features `h`, the tokens after the first half of its blocks as
/// a map; as a [`BottleneckNet`] it takes changed ones.
#[derive(Clone, Debug)]
pub struct Dit {
    config: DitConfig,
    /// Kernels and bias of the patches.
    patches: [Tensor; 2],
    /// The positions at the sample size, `[C, N]`.
    positions: Tensor,
    /// One for all blocks, or one for each.
    embedders: Vec<Embedder>,
    blocks: Vec<Block>,
    modulation: Linear,
    out: Pointwise,
    prediction_type: PredictionType,
    /// Whether blocks keep only their inputs for the backward pass.
    recomputed: bool,
    graphs: Graphs,
    /// The type of the tokens.
    maps: DType,
}

/// The embeddings of time and class, `[B, width]`: one for all blocks, or one for each.
#[derive(Clone, Debug)]
pub struct Conditioning(Vec<Tensor>);

impl Conditioning {
    /// The embedding of the first block, which also modulates the last layer.
    fn first(&self) -> Result<&Tensor> {
        self.of_block(0)
    }

    fn of_block(&self, i: usize) -> Result<&Tensor> {
        match self.0.get(i).or(self.0.last()) {
            Some(embedding) => Ok(embedding),
            None => bail!("expected an embedding, found none"),
        }
    }
}

impl Dit {
    /// The network with the parameters of `source`.
    ///
    /// # Errors
    /// An invalid configuration, or parameters that are missing or of another shape.
    pub fn load(source: &dyn ParamSource, config: &DitConfig) -> Result<Self> {
        Self::build(&Scope::root(source), config)
    }

    /// The names, shapes and initial values of all parameters, in the order of the state dict.
    ///
    /// # Errors
    /// An invalid configuration.
    pub fn specs(config: &DitConfig) -> Result<Vec<ParamSpec>> {
        specs_of(|scope| Self::build(scope, config))
    }

    fn build(scope: &Scope<'_>, config: &DitConfig) -> Result<Self> {
        config.validate().map_err(candle_core::Error::wrap)?;
        let (width, patch) = (config.width(), config.patch_size);
        let inputs = config.in_channels * patch * patch;
        let proj = scope.pp("pos_embed.proj");
        let kernels = [width, config.in_channels, patch, patch];
        let patches = [
            proj.get("weight", &kernels, Init::xavier(inputs, width))?,
            proj.get("bias", &[width], Init::Constant(0.0))?,
        ];
        let mut embedders = Vec::new();
        if config.shared_embedder {
            embedders.push(Embedder::load(&scope.pp("emb"), config)?);
        }
        let mut blocks = Vec::with_capacity(config.num_layers);
        for i in 0..config.num_layers {
            let scope = scope.pp("transformer_blocks").pp(i);
            if !config.shared_embedder {
                embedders.push(Embedder::load(&scope.pp("norm1.emb"), config)?);
            }
            blocks.push(Block::load(&scope, config)?);
        }
        let zero = Init::Constant(0.0);
        let modulation = Linear::load_with(&scope.pp("proj_out_1"), width, 2 * width, zero)?;
        let outputs = patch * patch * config.out_channels;
        let out = Linear::load_with(&scope.pp("proj_out_2"), width, outputs, zero)?;
        let grid = config.sample_size / patch;
        let positions = positions(width, grid, [grid; 2])?
            .to_device(patches[0].device())?
            .to_dtype(patches[0].dtype())?;
        Ok(Self {
            config: config.clone(),
            maps: patches[0].dtype(),
            patches,
            positions,
            embedders,
            blocks,
            modulation,
            out: out.into(),
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

    /// The same network with activation checkpointing: in training it saves only the inputs of blocks and computes the values inside a
    /// second time. Less memory for about a third more time.
    #[must_use]
    pub fn recomputed(mut self) -> Self {
        self.recomputed = true;
        self
    }

    /// The same network with tokens of this type (bf16, f16). Parameters, norm statistics, embeddings and the output keep their type.
    #[must_use]
    pub fn with_compute_dtype(mut self, maps: DType) -> Self {
        self.maps = maps;
        self.graphs = Graphs::default();
        self
    }

    /// The architecture.
    pub fn config(&self) -> &DitConfig {
        &self.config
    }

    /// The type of the parameters.
    fn dtype(&self) -> DType {
        self.patches[0].dtype()
    }

    /// Blocks before the deepest features.
    fn half(&self) -> usize {
        self.blocks.len().div_ceil(2)
    }

    /// The embeddings of time and class.
    ///
    /// # Errors
    /// Images that do not fit the network, or classes that are missing, unexpected or out of range.
    pub fn embed(&self, x: &Tensor, t: &[f32], labels: Option<&[u32]>) -> Result<Conditioning> {
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
        let patch = self.config.patch_size;
        if !h.is_multiple_of(patch) || !w.is_multiple_of(patch) || h == 0 || w == 0 {
            bail!("expected an image whose sides are multiples of {patch}, found {h}x{w}");
        }
        let rows = rows(labels, batch, self.config.num_embeds_ada_norm)?;
        let embedders = self.embedders.iter();
        let all = embedders.map(|embedder| embedder.forward(t, &rows, x.device()));
        all.collect::<Result<_>>().map(Conditioning)
    }

    /// The tokens after the first half of the blocks, as a map `[B, width, H / patch, W / patch]` in the compute type.
    ///
    /// # Errors
    /// Shapes that do not fit the weights.
    pub fn encode(
        &self,
        x: &Tensor,
        emb: &Conditioning,
        key: Option<&DropoutKey<'_>>,
    ) -> Result<Tensor> {
        let [weight, bias] = &self.patches;
        let x = to_dtype(x, self.maps)?;
        let x = conv2d(&x, weight, bias, self.config.patch_size, [0, 0])?;
        let (_, _, h, w) = x.dims4()?;
        let x = flatten_space(&x)?;
        let positions = self.positions([h, w])?.to_dtype(self.maps)?;
        let x = add(&x, &positions.broadcast_as(x.shape())?)?;
        unflatten_space(&self.run(x, 0..self.half(), emb, key)?, h, w)
    }

    /// The positions of a grid, `[C, N]`.
    fn positions(&self, grid: [usize; 2]) -> Result<Tensor> {
        let base = self.config.sample_size / self.config.patch_size;
        if grid == [base; 2] {
            return Ok(self.positions.clone());
        }
        positions(self.config.width(), base, grid)?
            .to_device(self.positions.device())?
            .to_dtype(self.positions.dtype())
    }

    fn run(
        &self,
        mut x: Tensor,
        blocks: std::ops::Range<usize>,
        emb: &Conditioning,
        key: Option<&DropoutKey<'_>>,
    ) -> Result<Tensor> {
        for i in blocks {
            let (block, emb) = (&self.blocks[i], emb.of_block(i)?);
            x = match self.recomputed {
                true => block.recomputed(&x, emb, key)?,
                false => block.forward(&x, emb, key)?,
            };
        }
        Ok(x)
    }

    /// From the map `h` of [`Self::encode`] to `[B, out_channels, H, W]`.
    ///
    /// # Errors
    /// Shapes that do not fit the weights.
    pub fn decode(
        &self,
        h: &Tensor,
        emb: &Conditioning,
        key: Option<&DropoutKey<'_>>,
    ) -> Result<Tensor> {
        let (_, _, rows, columns) = h.dims4()?;
        let x = flatten_space(&to_dtype(h, self.maps)?)?;
        let x = self.run(x, self.half()..self.blocks.len(), emb, key)?;
        let e = self.modulation.forward(&silu(emb.first()?)?)?;
        let x = self.out.forward(&token_norm(&x, &e, 0, DitConfig::EPS)?)?;
        let x = to_dtype(&x, self.dtype())?;
        unpatchify(&x, self.config.patch_size, [rows, columns])
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
        taped(&x.to_dtype(self.dtype())?, |x| {
            let emb = self.embed(x, t, labels)?;
            let forward = |x: &Tensor, emb: &[Tensor]| {
                let emb = Conditioning(emb.to_vec());
                self.decode(&self.encode(x, &emb, key)?, &emb, key)
            };
            let repeats = !self.recomputed && (key.is_none() || self.config.dropout == 0.0);
            self.graphs.run(x, &emb.0, repeats, forward)
        })
    }

    fn prediction(&self, output: &Tensor) -> Result<Prediction> {
        Prediction::split(output, self.config.in_channels, self.prediction_type)
    }
}

impl Denoiser for Dit {
    fn predict(&self, xt: &Tensor, t: &[f32]) -> Result<Prediction> {
        self.predict_with(xt, t, &Condition::default())
    }
}

impl Network for Dit {
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
        let x = xt.to_dtype(self.dtype())?;
        let emb = self.embed(&x, t, condition.labels)?;
        let h = to_nchw(&self.encode(&x, &emb, key)?, self.dtype())?;
        let frozen = emb.0.iter().all(|emb| !emb.track_op());
        Edited::new(h, emb.first()?, change, |h| {
            let out = match frozen {
                true => taped(h, |h| self.decode(h, &emb, key))?,
                false => self.decode(h, &emb, key)?,
            };
            self.prediction(&out)
        })
    }

    fn n_classes(&self) -> usize {
        self.config.num_embeds_ada_norm
    }
}

impl BottleneckNet for Dit {
    fn predict_edited(&self, xt: &Tensor, t: &[f32], change: &mut Change<'_>) -> Result<Edited> {
        self.predict_edited_with(xt, t, &Condition::default(), change)
    }

    fn bottleneck(&self) -> Bottleneck {
        Bottleneck {
            channels: self.config.width(),
            embedding: self.config.width(),
        }
    }
}

impl FeatureNet for Dit {
    fn features(&self, xt: &Tensor, t: &[f32]) -> Result<Tensor> {
        taped(xt, |xt| {
            let emb = self.embed(xt, t, None)?;
            to_nchw(&self.encode(xt, &emb, None)?, self.dtype())
        })
    }
}
