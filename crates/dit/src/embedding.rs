//! The embedding of time and class.

use crate::DitConfig;
use candle_core::{Device, Result, Tensor, bail};
use sdft_autograd::{add, embedding, silu};
use sdft_nn::{Init, Linear, Scope, Sinusoids};

/// Sines and cosines of a timestep.
pub(crate) const FREQUENCIES: usize = 256;

/// The initial deviation of the embedders' weights.
const DEVIATION: f64 = 0.02;

/// One embedder.
///
/// Source: diffusers `CombinedTimestepLabelEmbeddings`; the official code's `TimestepEmbedder` and `LabelEmbedder`.
#[derive(Clone, Debug)]
pub(crate) struct Embedder {
    sinusoids: Sinusoids,
    layers: [Linear; 2],
    table: Tensor,
}

impl Embedder {
    pub(crate) fn load(scope: &Scope<'_>, config: &DitConfig) -> Result<Self> {
        let width = config.width();
        let time = scope.pp("timestep_embedder");
        let layer = |name: &str, n_in| {
            Linear::load_with(&time.pp(name), n_in, width, Init::Normal(DEVIATION))
        };
        let layers = [layer("linear_1", FREQUENCIES)?, layer("linear_2", width)?];
        let table = scope.pp("class_embedder.embedding_table");
        Ok(Self {
            sinusoids: Sinusoids {
                max_period: 10_000.0,
                freq_shift: config.freq_shift,
                sines_first: false,
            },
            layers,
            table: table.get("weight", &[config.rows(), width], Init::Normal(DEVIATION))?,
        })
    }

    /// `[B, width]` for these timesteps and rows of the table.
    pub(crate) fn forward(&self, t: &[f32], rows: &[u32], device: &Device) -> Result<Tensor> {
        let [first, second] = &self.layers;
        let t = self.sinusoids.embed(t, FREQUENCIES, device)?;
        let time = second.forward(&silu(&first.forward(&t.to_dtype(first.dtype())?)?)?)?;
        add(&time, &embedding(&self.table, rows)?)
    }
}

/// The rows of the table for these labels: the null class for an unconditional network.
pub(crate) fn rows(labels: Option<&[u32]>, batch: usize, classes: usize) -> Result<Vec<u32>> {
    match labels {
        None if classes == 0 => Ok(vec![0; batch]),
        None => bail!("expected a label for each image: the network is class-conditional"),
        Some(_) if classes == 0 => bail!("expected no class labels: the network is unconditional"),
        Some(labels)
            if labels.len() != batch || labels.iter().any(|&label| label as usize > classes) =>
        {
            bail!("expected {batch} class labels up to {classes}, the null class, found {labels:?}")
        }
        Some(labels) => Ok(labels.to_vec()),
    }
}
