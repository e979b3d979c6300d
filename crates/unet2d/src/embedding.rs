//! The embedding of time and class.

use crate::Unet2dConfig;
use crate::config::{ClassEmbed, TimeEmbedding};
use candle_core::{DType, Device, Result, Tensor, bail};
use sdft_autograd::{add, embedding, silu};
use sdft_nn::{Init, Linear, Scope, Sinusoids};

/// The classes of a batch.
#[derive(Clone, Copy, Debug)]
pub enum Class<'a> {
    /// None: the network is unconditional.
    None,
    /// A number for each image: a row of the table, or what is embedded like a timestep.
    Labels(&'a [u32]),
    /// The embedding of each image's class, `[B, emb_channels]`, where `class_embed_type` is `identity`.
    Embedding(&'a Tensor),
}

/// From a number to a vector.
#[derive(Clone, Debug)]
enum Projection {
    Sinusoids(Sinusoids, usize),
    Table(Tensor),
}

impl Projection {
    fn forward(&self, t: &[f32], device: &Device) -> Result<Tensor> {
        let table = match self {
            Self::Sinusoids(sinusoids, dim) => return sinusoids.embed(t, *dim, device),
            Self::Table(table) => table,
        };
        let rows = table.dim(0)?;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "checked"
        )]
        let row = |&t: &f32| {
            let fits = t.fract() == 0.0 && t >= 0.0 && f64::from(t) < rows as f64;
            fits.then_some(t as u32)
        };
        match t.iter().map(row).collect::<Option<Vec<u32>>>() {
            Some(rows) => embedding(table, &rows),
            None => bail!("expected whole timesteps below {rows}, found {t:?}"),
        }
    }
}

/// Two dense layers with SiLU between them.
#[derive(Clone, Debug)]
struct Layers([Linear; 2]);

impl Layers {
    fn load(scope: &Scope<'_>, n_in: usize, n_out: usize) -> Result<Self> {
        Ok(Self([
            Linear::load(&scope.pp("linear_1"), n_in, n_out)?,
            Linear::load(&scope.pp("linear_2"), n_out, n_out)?,
        ]))
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let [first, second] = &self.0;
        second.forward(&silu(&first.forward(&x.to_dtype(first.dtype())?)?)?)
    }
}

#[derive(Clone, Debug)]
enum ClassLayers {
    None,
    Table(Tensor),
    Timestep(Layers),
    Identity,
}

/// The embedding of time and class.
///
/// Source: diffusers `Timesteps`, `TimestepEmbedding`, and `class_embedding` of its `UNet2DModel`.
#[derive(Clone, Debug)]
pub(crate) struct Embedding {
    projection: Projection,
    time: Layers,
    class: ClassLayers,
    width: usize,
}

impl Embedding {
    pub(crate) fn load(scope: &Scope<'_>, config: &Unet2dConfig) -> Result<Self> {
        let (dim, width) = (config.block_out_channels[0], config.emb_channels());
        let table = |name: &str, rows, width| {
            let scope = scope.pp(name);
            scope.get("weight", &[rows, width], Init::Normal(1.0))
        };
        let projection = match config.time_embedding_type {
            TimeEmbedding::Positional => {
                let sinusoids = Sinusoids {
                    max_period: 10_000.0,
                    freq_shift: config.freq_shift,
                    sines_first: !config.flip_sin_to_cos,
                };
                Projection::Sinusoids(sinusoids, dim)
            }
            TimeEmbedding::Learned => {
                let rows = config.num_train_timesteps.unwrap_or(0);
                Projection::Table(table("time_proj", rows, dim)?)
            }
        };
        let time = Layers::load(&scope.pp("time_embedding"), dim, width)?;
        let class = match (config.class_embed_type, config.num_class_embeds) {
            (None, None) => ClassLayers::None,
            (None, Some(n)) => ClassLayers::Table(table("class_embedding", n, width)?),
            (Some(ClassEmbed::Timestep), _) => {
                let layers = Layers::load(&scope.pp("class_embedding"), dim, width)?;
                ClassLayers::Timestep(layers)
            }
            (Some(ClassEmbed::Identity), _) => ClassLayers::Identity,
        };
        Ok(Self {
            projection,
            time,
            class,
            width,
        })
    }

    /// The type of the parameters.
    pub(crate) fn dtype(&self) -> DType {
        self.time.0[0].dtype()
    }

    /// `[B, width]`.
    pub(crate) fn forward(&self, t: &[f32], class: Class<'_>, device: &Device) -> Result<Tensor> {
        let emb = self.time.forward(&self.projection.forward(t, device)?)?;
        let of_class = match (&self.class, class) {
            (ClassLayers::None, Class::None) => return Ok(emb),
            (ClassLayers::None, _) => {
                bail!("expected no class labels: the network is unconditional")
            }
            (ClassLayers::Table(table), Class::Labels(labels)) => {
                let n = table.dim(0)?;
                if labels.len() != t.len() || labels.iter().any(|&label| label as usize >= n) {
                    bail!(
                        "expected {} class labels below {n}, found {labels:?}",
                        t.len()
                    );
                }
                embedding(table, labels)?
            }
            (ClassLayers::Timestep(layers), Class::Labels(labels)) => {
                if labels.len() != t.len() {
                    bail!("expected {} class labels, found {labels:?}", t.len());
                }
                #[expect(clippy::cast_precision_loss, reason = "the reference works in f32")]
                let labels: Vec<f32> = labels.iter().map(|&label| label as f32).collect();
                layers.forward(&self.projection.forward(&labels, device)?)?
            }
            (ClassLayers::Identity, Class::Embedding(embedding)) => {
                if embedding.dims() != [t.len(), self.width] {
                    bail!(
                        "class embedding: expected {:?}, found {:?}",
                        [t.len(), self.width],
                        embedding.dims()
                    );
                }
                embedding.to_dtype(self.dtype())?
            }
            (ClassLayers::Identity, _) => bail!(
                "class_embed_type identity: expected an embedding of {} numbers for each image's class, which only the library takes \
                 (Class::Embedding)",
                self.width
            ),
            (_, _) => bail!("expected a label for each image: the network is class-conditional"),
        };
        add(&emb, &of_class)
    }
}
