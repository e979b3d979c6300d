use candle_core::{Device, Result, Tensor, bail};
use sdft_noise::{Draw, Purpose};

/// Gaussian noise for the steps of a sampler.
pub trait NoiseSource {
    /// The `draw`-th noise of the trajectory, shaped like `like`. Draws are counted from 0 in the order of the steps.
    ///
    /// # Errors
    /// When there is none, or the device fails.
    fn normal(&mut self, draw: usize, like: &Tensor) -> Result<Tensor>;
}

/// Independent normal numbers for consecutive samples: sample `i` sees the stream (seed, purpose, step, first + i).
///
/// # Shapes
/// - returns: `shape`, whose first dimension counts samples, f32
///
/// # Errors
/// When the device fails.
pub fn seeded_normal(
    seed: u64,
    purpose: Purpose,
    step: u64,
    first: u64,
    shape: &[usize],
    device: &Device,
) -> Result<Tensor> {
    let samples = shape.first().copied().unwrap_or(0) as u64;
    let numbers: Vec<u64> = (first..first + samples).collect();
    numbered_normal(seed, purpose, step, &numbers, shape, device)
}

/// Independent normal numbers for samples that have numbers: sample `i` sees the stream (seed, purpose, step, `numbers[i]`).
fn numbered_normal(
    seed: u64,
    purpose: Purpose,
    step: u64,
    numbers: &[u64],
    shape: &[usize],
    device: &Device,
) -> Result<Tensor> {
    if shape.first() != Some(&numbers.len()) {
        bail!("noise for {} samples, asked for {shape:?}", numbers.len());
    }
    #[cfg(feature = "cuda")]
    if device.is_cuda() {
        return sdft_cuda::normals((seed, purpose as u8, step), numbers, shape, device);
    }
    let n: usize = shape.iter().product();
    let mut data = vec![0.0f32; n];
    let each = n / numbers.len().max(1);
    for (&number, sample) in numbers.iter().zip(data.chunks_exact_mut(each.max(1))) {
        Draw::new(seed, purpose, step, number).fill_normal(sample);
    }
    Tensor::from_vec(data, shape, device)
}

/// Noise that depends on a seed and on the number of each sample, not on the batch it is in.
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
        seeded_normal(self.seed, Purpose::Sample, 0, self.first, shape, device)
    }
}

impl NoiseSource for SeededNoise {
    fn normal(&mut self, draw: usize, like: &Tensor) -> Result<Tensor> {
        seeded_normal(
            self.seed,
            Purpose::Ancestral,
            draw as u64,
            self.first,
            like.dims(),
            like.device(),
        )?
        .to_dtype(like.dtype())
    }
}

/// Noise of images that are translated: depends on a seed and on a number that belongs to each image, not on the company it is in.
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
        numbered_normal(
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

/// Noises made elsewhere, in the order drawn.
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
        if draw >= self.draws.dim(0)? {
            bail!(
                "the sampler asks for noise {draw}, {} were given",
                self.draws.dim(0)?
            );
        }
        self.draws.get(draw)?.to_dtype(like.dtype())
    }
}
