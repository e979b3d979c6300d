//! The network F: `SongUNet` or `DhariwalUNet`.

use crate::EdmConfig;
use crate::block::Block;
use crate::embedding::NoiseEmbedding;
use crate::layers::{Dense, Make, Start};
use crate::parts::{Embedded, Layer};
use crate::plan::{Kind, Part};
use candle_core::{DType, Result, Tensor, bail};
use sdft_autograd::{Graphs, add, add_scaled, concat, silu, taped, to_dtype, to_nchw};
use sdft_diffusion::{
    Bottleneck, BottleneckNet, Change as Edit, Condition, Denoiser, Edited, FeatureNet, Network,
    Prediction, PredictionType,
};
use sdft_kernels::Activation;
use sdft_nn::{Init, Scope};
use sdft_noise::DropoutKey;

/// The inputs of a network in addition to the noised images and the noise levels, as the reference passes them.
#[derive(Clone, Copy, Debug, Default)]
pub struct EdmInputs<'a> {
    /// `[B, label_dim]`, one-hot; a class-conditional network needs them.
    pub class_labels: Option<&'a Tensor>,
    /// `[B, augment_dim]`; `None` is no augmentation.
    pub augment_labels: Option<&'a Tensor>,
    /// The address of the dropout masks. `None` evaluates without dropout.
    pub dropout: Option<DropoutKey<'a>>,
}

/// The network F without preconditioning.
#[derive(Clone, Debug)]
pub(crate) struct EdmUnet {
    config: EdmConfig,
    map_noise: NoiseEmbedding,
    map_label: Option<Dense>,
    map_augment: Option<Dense>,
    map_layer0: Dense,
    map_layer1: Dense,
    encoder: Vec<Layer>,
    middle: [Block; 2],
    decoder: Vec<Layer>,
    recomputed: bool,
    graphs: Graphs,
    /// The type of the feature maps.
    maps: DType,
}

impl EdmUnet {
    /// Keys `model.*`, in the order of the state dict.
    pub(crate) fn build(scope: &Scope<'_>, config: &EdmConfig) -> Result<Self> {
        config.validate().map_err(candle_core::Error::wrap)?;
        let plan = config.plan();
        let scope = scope.pp("model");
        let (make, noise, emb) = (Make::of(&plan), plan.noise(), plan.emb());
        let map_noise = NoiseEmbedding::load(&scope, &plan)?;
        let augment = |weight: Init| {
            let n = plan.augment_dim;
            let load = || Dense::load_unbiased(&scope.pp("map_augment"), n, noise, weight);
            (n > 0).then(load).transpose()
        };
        let label = scope.pp("map_label");
        let n = plan.label_dim;
        let (mut map_label, map_augment) = match make {
            Make::Song => {
                let labels = || Dense::load(&label, n, noise, make);
                let map_label = (n > 0).then(labels).transpose()?;
                let xavier = make.weight(Start::Usual, plan.augment_dim, noise);
                (map_label, augment(xavier)?)
            }
            Make::Dhariwal => (None, augment(Init::Constant(0.0))?),
        };
        let map_layer0 = Dense::load(&scope.pp("map_layer0"), noise, emb, make)?;
        let map_layer1 = Dense::load(&scope.pp("map_layer1"), emb, emb, make)?;
        if make == Make::Dhariwal && n > 0 {
            let unit = Init::Normal(1.0);
            map_label = Some(Dense::load_unbiased(&label, n, emb, unit)?);
        }
        let load = |part: &Part| Layer::load(&scope, &plan, part);
        let (encoder, skips) = plan.encoder();
        let encoder = encoder.iter().map(load).collect::<Result<_>>()?;
        let [first, second] = plan.middle();
        let block = |part: &Part| match &part.kind {
            Kind::Block(spec) => Block::load(&scope.pp(&part.name), &plan, spec),
            _ => bail!("{}: expected a block", part.name),
        };
        let middle = [block(&first)?, block(&second)?];
        let decoder = plan.decoder(skips);
        let decoder = decoder.iter().map(load).collect::<Result<_>>()?;
        Ok(Self {
            maps: map_layer0.dtype(),
            config: config.clone(),
            map_noise,
            map_label,
            map_augment,
            map_layer0,
            map_layer1,
            encoder,
            middle,
            decoder,
            recomputed: false,
            graphs: Graphs::default(),
        })
    }

    pub(crate) fn config(&self) -> &EdmConfig {
        &self.config
    }

    pub(crate) fn set_recomputed(&mut self) {
        self.recomputed = true;
    }

    pub(crate) fn set_maps(&mut self, maps: DType) {
        self.maps = maps;
        self.graphs = Graphs::default();
    }

    fn dtype(&self) -> DType {
        self.map_layer0.dtype()
    }

    /// The activated embedding of noise level and labels, `[B, E]`.
    fn embed(&self, x: &Tensor, t: &[f32], inputs: &EdmInputs<'_>) -> Result<Tensor> {
        let (batch, channels, h, w) = x.dims4()?;
        let plan = self.config.plan();
        if t.len() != batch {
            bail!(
                "expected a noise level for each of {batch} images, found {}",
                t.len()
            );
        }
        if channels != plan.channels {
            bail!(
                "expected images of {} channels, found {channels}",
                plan.channels
            );
        }
        if !plan.fits(h) || !plan.fits(w) {
            bail!(
                "expected an image whose sides are multiples of {}, found {h}x{w}",
                plan.multiple()
            );
        }
        let labels = |name, labels: &Tensor, n| {
            if labels.dims() != [batch, n] {
                bail!(
                    "{name}: expected shape [{batch}, {n}], found {:?}",
                    labels.dims()
                );
            }
            labels.to_device(x.device())?.to_dtype(self.dtype())
        };
        let label = match (&self.map_label, inputs.class_labels) {
            (None, None) => None,
            (Some(map), Some(given)) => {
                let given = labels("class labels", given, plan.label_dim)?;
                let given = match plan.song {
                    Some(_) => (given * (plan.label_dim as f64).sqrt())?,
                    None => given,
                };
                Some(map.forward(&given)?)
            }
            (Some(_), None) => bail!(
                "expected a label for each image: the network is class-conditional, with {} classes",
                plan.label_dim
            ),
            (None, Some(_)) => bail!("expected no class labels: the network is unconditional"),
        };
        let emb = self.map_noise.forward(t, x.device())?;
        let mut emb = emb.to_dtype(self.dtype())?;
        if plan.song.is_some()
            && let Some(label) = &label
        {
            emb = add(&emb, label)?;
        }
        match (&self.map_augment, inputs.augment_labels) {
            (Some(map), Some(given)) => {
                let given = labels("augmentation labels", given, plan.augment_dim)?;
                emb = add(&emb, &map.forward(&given)?)?;
            }
            (None, Some(_)) => {
                bail!("expected no augmentation labels: the network has augment_dim 0")
            }
            (_, None) => {}
        }
        let emb = silu(&self.map_layer0.forward(&emb)?)?;
        let mut emb = self.map_layer1.forward(&emb)?;
        if plan.song.is_none()
            && let Some(label) = &label
        {
            emb = add(&emb, label)?;
        }
        silu(&emb)
    }

    /// The deepest features after both middle blocks, and the results of the encoder.
    fn encode(
        &self,
        x: &Tensor,
        emb: &Tensor,
        key: Option<&DropoutKey<'_>>,
    ) -> Result<(Tensor, Vec<Tensor>)> {
        let blocks = self.encoder.iter().filter_map(Layer::block);
        let mut blocks = Embedded::of(blocks.chain(&self.middle), emb)?;
        let mut x = to_dtype(x, self.maps)?;
        let mut branch = x.clone();
        let mut skips: Vec<Tensor> = Vec::with_capacity(self.encoder.len());
        for layer in &self.encoder {
            x = match layer {
                Layer::AuxDown(resize) => {
                    branch = resize.forward(&branch)?;
                    continue;
                }
                Layer::AuxSkip(conv) => {
                    skips.pop();
                    add(&x, &conv.forward(&branch)?)?
                }
                Layer::AuxResidual(conv) => {
                    skips.pop();
                    branch = add_scaled(&x, &conv.forward(&branch)?, 0.5f64.sqrt())?;
                    branch.clone()
                }
                Layer::Conv(conv) => conv.forward(&x)?,
                Layer::Block(_) | Layer::Joined(_) => blocks.next(&x, key, self.recomputed)?,
                Layer::AuxUp(_) | Layer::Output(..) => bail!("a part of the decoder"),
            };
            skips.push(x.clone());
        }
        for _ in &self.middle {
            x = blocks.next(&x, key, self.recomputed)?;
        }
        Ok((x, skips))
    }

    /// From the deepest features and the results of the encoder to `[B, C, H, W]`.
    fn decode(
        &self,
        h: &Tensor,
        skips: &[Tensor],
        emb: &Tensor,
        key: Option<&DropoutKey<'_>>,
    ) -> Result<Tensor> {
        let blocks = self.decoder.iter().filter_map(Layer::block);
        let mut blocks = Embedded::of(blocks, emb)?;
        let mut x = to_dtype(h, self.maps)?;
        let mut skips = skips.iter().rev();
        let mut sum: Option<Tensor> = None;
        for layer in &self.decoder {
            match layer {
                Layer::Block(_) => x = blocks.next(&x, key, self.recomputed)?,
                Layer::Joined(_) => {
                    let Some(skip) = skips.next() else {
                        bail!("the decoder has more blocks than the encoder has results");
                    };
                    x = blocks.next(&concat(&x, skip)?, key, self.recomputed)?;
                }
                Layer::AuxUp(resize) => {
                    sum = sum.map(|sum| resize.forward(&sum)).transpose()?;
                }
                Layer::Output(norm, conv) => {
                    let out = conv.forward(&norm.forward(&x, Activation::Silu)?)?;
                    sum = Some(match &sum {
                        Some(sum) => add(&out, sum)?,
                        None => out,
                    });
                }
                Layer::Conv(_) | Layer::AuxDown(_) | Layer::AuxSkip(_) | Layer::AuxResidual(_) => {
                    bail!("a part of the encoder")
                }
            }
        }
        match sum {
            Some(out) => to_nchw(&out, self.dtype()),
            None => bail!("the decoder has no output"),
        }
    }

    /// `F(x; c_noise)`, `[B, C, H, W]`.
    pub(crate) fn forward(&self, x: &Tensor, t: &[f32], inputs: &EdmInputs<'_>) -> Result<Tensor> {
        taped(&x.to_dtype(self.dtype())?, |x| {
            let emb = self.embed(x, t, inputs)?;
            let key = inputs.dropout.as_ref();
            let forward = |x: &Tensor, emb: &[Tensor]| {
                let (h, skips) = self.encode(x, &emb[0], key)?;
                self.decode(&h, &skips, &emb[0], key)
            };
            let repeats = !self.recomputed && (key.is_none() || self.config.plan().dropout == 0.0);
            self.graphs.run(x, &[emb], repeats, forward)
        })
    }

    /// The one-hot rows of a condition's class labels.
    fn class_labels(&self, condition: &Condition<'_>, batch: usize) -> Result<Option<Tensor>> {
        match (condition.labels, self.config.label_dim) {
            (Some(_), 0) => bail!("expected no class labels: the network is unconditional"),
            (Some(labels), _) => Ok(Some(self.one_hot(labels, batch)?)),
            (None, _) => Ok(None),
        }
    }

    /// Class labels as one-hot rows; a row of zeros for the null class.
    fn one_hot(&self, labels: &[u32], batch: usize) -> Result<Tensor> {
        let n = self.config.label_dim;
        if labels.len() != batch || labels.iter().any(|&y| y as usize > n) {
            bail!(
                "expected {batch} class labels below {n}, or {n} for the null class, found {labels:?}"
            );
        }
        let mut rows = vec![0.0f32; batch * n];
        for (row, &label) in rows.chunks_exact_mut(n.max(1)).zip(labels) {
            if let Some(value) = row.get_mut(label as usize) {
                *value = 1.0;
            }
        }
        Tensor::from_vec(rows, (batch, n), &candle_core::Device::Cpu)
    }
}

fn inputs<'a>(condition: &Condition<'a>, one_hot: Option<&'a Tensor>) -> EdmInputs<'a> {
    EdmInputs {
        class_labels: one_hot,
        augment_labels: condition.augment,
        dropout: condition.dropout,
    }
}

/// F as a prediction; only the preconditioning reads it.
fn raw(output: &Tensor) -> Prediction {
    Prediction::new(output.clone(), PredictionType::Sample)
}

impl Denoiser for EdmUnet {
    fn predict(&self, x: &Tensor, t: &[f32]) -> Result<Prediction> {
        Ok(raw(&self.forward(x, t, &EdmInputs::default())?))
    }
}

impl Network for EdmUnet {
    fn predict_with(&self, x: &Tensor, t: &[f32], condition: &Condition<'_>) -> Result<Prediction> {
        let one_hot = self.class_labels(condition, x.dim(0)?)?;
        let inputs = inputs(condition, one_hot.as_ref());
        Ok(raw(&self.forward(x, t, &inputs)?))
    }

    fn predict_edited_with(
        &self,
        x: &Tensor,
        t: &[f32],
        condition: &Condition<'_>,
        change: &mut Edit<'_>,
    ) -> Result<Edited> {
        let one_hot = self.class_labels(condition, x.dim(0)?)?;
        let inputs = inputs(condition, one_hot.as_ref());
        let key = condition.dropout.as_ref();
        let x = x.to_dtype(self.dtype())?;
        let emb = self.embed(&x, t, &inputs)?;
        let (h, skips) = self.encode(&x, &emb, key)?;
        let h = to_nchw(&h, self.dtype())?;
        let frozen = !emb.track_op() && skips.iter().all(|skip| !skip.track_op());
        let decode = |h: &Tensor| {
            let out = if frozen {
                taped(h, |h| self.decode(h, &skips, &emb, key))?
            } else {
                self.decode(h, &skips, &emb, key)?
            };
            Ok::<_, candle_core::Error>(raw(&out))
        };
        let changed = match change(&h, &emb)? {
            None => None,
            Some(other) if other.dims() == h.dims() => Some(decode(&other)?),
            Some(other) => bail!(
                "features of the middle: expected {:?}, found {:?}",
                h.dims(),
                other.dims()
            ),
        };
        Ok(Edited {
            plain: decode(&h)?,
            changed,
            h,
        })
    }

    fn n_classes(&self) -> usize {
        self.config.label_dim
    }
}

impl BottleneckNet for EdmUnet {
    fn predict_edited(&self, x: &Tensor, t: &[f32], change: &mut Edit<'_>) -> Result<Edited> {
        self.predict_edited_with(x, t, &Condition::default(), change)
    }

    fn bottleneck(&self) -> Bottleneck {
        let plan = self.config.plan();
        Bottleneck {
            channels: plan.deepest(),
            embedding: plan.emb(),
        }
    }
}

impl FeatureNet for EdmUnet {
    fn features(&self, x: &Tensor, t: &[f32]) -> Result<Tensor> {
        taped(&x.to_dtype(self.dtype())?, |x| {
            let emb = self.embed(x, t, &EdmInputs::default())?;
            to_nchw(&self.encode(x, &emb, None)?.0, self.dtype())
        })
    }
}
