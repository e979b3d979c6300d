//! Where a sampler's noise comes from.

use crate::randn::{numbered, randn};
use candle_core::{Device, Result, Tensor, bail};
use sdft_noise::Purpose;

/// Gaussian noise for the steps of a sampler.
pub trait NoiseSource {
    /// Draw number `draw` of the trajectory, with the shape, type and device of `like`. Draws are counted from 0 in the order of the steps.
    ///
    /// # Errors
    /// When the source has no such draw, or the device fails.
    fn normal(&mut self, draw: usize, like: &Tensor) -> Result<Tensor>;
}

/// Noise for sampling: depends on a seed and on the number of each sample, not on the batch.
#[derive(Clone, Copy, Debug)]
pub struct SeededNoise {
    seed: u64,
    first: u64,
}

impl SeededNoise {
    /// For a batch whose samples are numbered from `first`.
    pub fn new(seed: u64, first: u64) -> Self {
        Self { seed, first }
    }

    /// The noise that trajectories start from, `[B, C, H, W]`.
    ///
    /// # Errors
    /// When the device fails.
    pub fn start(&self, shape: &[usize], device: &Device) -> Result<Tensor> {
        randn(self.seed, Purpose::Sample, 0, self.first, shape, device)
    }
}

impl NoiseSource for SeededNoise {
    fn normal(&mut self, draw: usize, like: &Tensor) -> Result<Tensor> {
        let (purpose, step) = (Purpose::Ancestral, draw as u64);
        randn(
            self.seed,
            purpose,
            step,
            self.first,
            like.dims(),
            like.device(),
        )?
        .to_dtype(like.dtype())
    }
}

/// Noise for translating images: depends on a seed and on a number that belongs to each image, not on the batch.
#[derive(Clone, Debug)]
pub struct NumberedNoise {
    seed: u64,
    numbers: Vec<u64>,
}

impl NumberedNoise {
    /// For a batch whose images have these numbers.
    pub fn new(seed: u64, numbers: Vec<u64>) -> Self {
        Self { seed, numbers }
    }
}

impl NoiseSource for NumberedNoise {
    fn normal(&mut self, draw: usize, like: &Tensor) -> Result<Tensor> {
        let (purpose, step) = (Purpose::Translate, draw as u64);
        numbered(
            self.seed,
            purpose,
            step,
            &self.numbers,
            like.dims(),
            like.device(),
        )?
        .to_dtype(like.dtype())
    }
}

/// Draws made elsewhere, in order.
#[derive(Clone, Debug)]
pub struct GivenNoise {
    draws: Tensor,
}

impl GivenNoise {
    /// `draws` `[n, B, C, H, W]`.
    pub fn new(draws: Tensor) -> Self {
        Self { draws }
    }
}

impl NoiseSource for GivenNoise {
    fn normal(&mut self, draw: usize, like: &Tensor) -> Result<Tensor> {
        let n = self.draws.dim(0)?;
        if draw >= n {
            bail!("the sampler asks for draw {draw} (counted from 0), but only {n} were given");
        }
        self.draws.get(draw)?.to_dtype(like.dtype())
    }
}
