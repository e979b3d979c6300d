//! How well an autoencoder reconstructs images, and how large its latents are.

use candle_core::{DType, Device, Tensor};
use sdft_autoencoder::Autoencoder;
use sdft_data::ImageSource;
use sdft_train::Result;
use serde::Serialize;

/// The most images that are reconstructed for a measurement.
const MOST_HELD_OUT: usize = 256;
/// The most images whose latents decide the scaling factor.
const MOST_SCALED: usize = 4096;
/// Images at once.
const CHUNK: usize = 16;

/// How well images are reconstructed from the means of their latents.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Reconstruction {
    /// Number of images.
    pub images: usize,
    /// Whether the images were held out of the training.
    pub held_out: bool,
    /// Mean over the images of `10 log10(4 / squared error)`, in decibels, for values in -1..1.
    pub psnr: f64,
    /// Mean absolute error of values in -1..1.
    pub l1: f64,
}

/// Up to `most` of these images, spread evenly, as `[N, C, H, W]` in -1..1.
fn read(source: &dyn ImageSource, indices: &[usize], device: &Device) -> Result<Tensor> {
    let mut data = Vec::new();
    for &i in indices {
        data.extend(source.spec().to_unit_range(&source.image(i)?));
    }
    let [c, h, w] = source.spec().shape();
    Ok(Tensor::from_vec(data, (indices.len(), c, h, w), device)?)
}

fn spread(indices: &[usize], most: usize) -> Vec<usize> {
    let stride = indices.len().div_ceil(most).max(1);
    indices.iter().step_by(stride).copied().collect()
}

/// The images of the measurements.
pub(crate) struct HeldOut {
    images: Tensor,
    /// Whether they are not trained on.
    held_out: bool,
}

impl HeldOut {
    /// These images of `source`, or a subset of them that keeps measuring cheap.
    pub(crate) fn new(
        source: &dyn ImageSource,
        indices: &[usize],
        held_out: bool,
        device: &Device,
    ) -> Result<Self> {
        let images = read(source, &spread(indices, MOST_HELD_OUT), device)?;
        Ok(Self { images, held_out })
    }

    /// The first `n` images, and their reconstructions.
    pub(crate) fn pairs(&self, autoencoder: &Autoencoder, n: usize) -> Result<[Tensor; 2]> {
        let images = self.images.narrow(0, 0, n.min(self.images.dim(0)?))?;
        let reconstructed = autoencoder.decode(&autoencoder.encode(&images)?.mean)?;
        Ok([images, reconstructed])
    }

    /// Reconstructs every image.
    pub(crate) fn measure(&self, autoencoder: &Autoencoder) -> Result<Reconstruction> {
        let n = self.images.dim(0)?;
        let (mut psnr, mut l1) = (0.0, 0.0);
        for start in (0..n).step_by(CHUNK) {
            let x = self.images.narrow(0, start, CHUNK.min(n - start))?;
            let y = autoencoder.decode(&autoencoder.encode(&x)?.mean)?;
            let error = (x - y.clamp(-1f32, 1f32)?)?.to_dtype(DType::F64)?;
            let error = error.flatten_from(1)?;
            let squared = error.sqr()?.mean(1)?.to_vec1::<f64>()?;
            psnr += squared
                .iter()
                .map(|e| 10.0 * (4.0 / e).log10())
                .sum::<f64>();
            l1 += error.abs()?.mean(1)?.sum_all()?.to_scalar::<f64>()?;
        }
        Ok(Reconstruction {
            images: n,
            held_out: self.held_out,
            psnr: psnr / n as f64,
            l1: l1 / n as f64,
        })
    }
}

/// The standard deviation of all latent values of these images, or of up to 4096 of them, under the posterior:
/// `sqrt(E[mean² + std²] - E[mean]²)`.
///
/// Source: latent diffusion `LatentDiffusion.on_train_batch_start` (`scale_by_std`), which takes one batch of samples; this is the
/// expectation over the samples.
pub(crate) fn latent_std(
    autoencoder: &Autoencoder,
    source: &dyn ImageSource,
    indices: &[usize],
    device: &Device,
) -> Result<f64> {
    let (mut sum, mut squares, mut n) = (0.0, 0.0, 0usize);
    for some in spread(indices, MOST_SCALED).chunks(CHUNK) {
        let moments = autoencoder.encode(&read(source, some, device)?)?;
        let [mean, std] = [moments.mean, moments.std].map(|x| x.to_dtype(DType::F64));
        let (mean, std) = (mean?, std?);
        n += mean.elem_count();
        sum += mean.sum_all()?.to_scalar::<f64>()?;
        squares += (mean.sqr()? + std.sqr()?)?.sum_all()?.to_scalar::<f64>()?;
    }
    let n = n.max(1) as f64;
    Ok((squares / n - (sum / n).powi(2)).max(0.0).sqrt())
}
