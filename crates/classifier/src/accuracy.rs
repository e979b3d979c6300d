//! How many held-out images a classifier tells apart at each noise level.

use candle_core::{D, Device, Tensor};
use sdft_adm::Encoder;
use sdft_data::ImageSource;
use sdft_diffusion::Diffusion;
use sdft_noise::{Draw, Purpose};
use sdft_randn::randn;
use sdft_train::Result;
use serde::Serialize;

/// Noise levels, in equal parts of the process.
const LEVELS: usize = 10;
/// The most images of each domain.
const IMAGES: usize = 200;
/// Images at once.
const CHUNK: usize = 16;

/// The share of held-out images that are classified correctly at one noise level.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct LevelAccuracy {
    /// The timestep.
    pub t: usize,
    /// Share of source images recognised as such.
    pub source: f64,
    /// Share of target images recognised as such.
    pub target: f64,
}

impl LevelAccuracy {
    /// The mean of both domains, regardless of their sizes; 0.5 is chance.
    pub fn balanced(&self) -> f64 {
        0.5 * (self.source + self.target)
    }
}

/// The shares of held-out images that are classified correctly, from little noise to much.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Accuracy {
    /// Number of source images.
    pub n_source: usize,
    /// Number of target images.
    pub n_target: usize,
    /// One entry per noise level.
    pub levels: Vec<LevelAccuracy>,
}

impl Accuracy {
    /// The mean over the noise levels of both domains' mean; 0.5 is chance.
    pub fn balanced(&self) -> f64 {
        let sum: f64 = self.levels.iter().map(LevelAccuracy::balanced).sum();
        sum / self.levels.len().max(1) as f64
    }
}

/// The images that are never trained on, of the source and the target.
pub(crate) struct HeldOut {
    domains: [Tensor; 2],
}

impl HeldOut {
    /// The images `indices` of each domain, or a subset of them that keeps measuring cheap.
    pub(crate) fn new(
        sources: [&dyn ImageSource; 2],
        indices: [&[usize]; 2],
        seed: u64,
        device: &Device,
    ) -> Result<Self> {
        let read = |source: &dyn ImageSource, indices: &[usize]| -> Result<Tensor> {
            let stride = indices.len().div_ceil(IMAGES).max(1);
            let mut data = Vec::new();
            let mut n = 0;
            for &i in indices.iter().step_by(stride) {
                let draw = Draw::new(seed, Purpose::Latent, u64::MAX, i as u64);
                data.extend(source.values(i, &draw)?);
                n += 1;
            }
            let [c, h, w] = source.shape();
            Ok(Tensor::from_vec(data, (n, c, h, w), device)?)
        };
        Ok(Self {
            domains: [read(sources[0], indices[0])?, read(sources[1], indices[1])?],
        })
    }

    /// Classifies every image at every level. Its noise follows from the seed, the level and its place in the list.
    pub(crate) fn accuracy(
        &self,
        encoder: &Encoder,
        diffusion: &Diffusion,
        seed: u64,
    ) -> Result<Accuracy> {
        let n = diffusion.n_steps();
        let mut levels = Vec::with_capacity(LEVELS);
        for level in 0..LEVELS {
            let t = (2 * level + 1) * n / (2 * LEVELS);
            let share = |label: usize| self.share(encoder, diffusion, seed, (level, t), label);
            levels.push(LevelAccuracy {
                t,
                source: share(0)?,
                target: share(1)?,
            });
        }
        let count = |label: usize| self.domains[label].dim(0);
        Ok(Accuracy {
            n_source: count(0)?,
            n_target: count(1)?,
            levels,
        })
    }

    fn share(
        &self,
        encoder: &Encoder,
        diffusion: &Diffusion,
        seed: u64,
        (level, t): (usize, usize),
        label: usize,
    ) -> Result<f64> {
        let images = &self.domains[label];
        let total = images.dim(0)?;
        let mut right = 0;
        for start in (0..total).step_by(CHUNK) {
            let x0 = images.narrow(0, start, CHUNK.min(total - start))?;
            let steps = vec![t; x0.dim(0)?];
            // Both domains get the same noise.
            let (step, first) = (level as u64, start as u64);
            let noise = randn(seed, Purpose::HeldOut, step, first, x0.dims(), x0.device())?;
            let xt = diffusion.q_sample(&x0, &steps, &noise)?;
            let logits = encoder.logits(&xt, &diffusion.model_t(&steps)?)?;
            let chosen = logits.argmax(D::Minus1)?.to_vec1::<u32>()?;
            right += chosen.iter().filter(|&&c| c as usize == label).count();
        }
        Ok(right as f64 / total.max(1) as f64)
    }
}
