//! The distribution of an image's latents.

use candle_core::{Result, Tensor};

/// Mean and standard deviation of latents `[B, C, h, w]`, as the autoencoder has them, without scaling.
#[derive(Clone, Debug)]
pub struct Moments {
    /// The mean, which is also the most likely value.
    pub mean: Tensor,
    /// The standard deviation; 0 for a `VQModel`.
    pub std: Tensor,
}

impl Moments {
    /// From an `AutoencoderKL`'s `[B, 2 C, h, w]`: means, and logarithms of variances, which are clamped to -30 and 20.
    ///
    /// Source: diffusers `DiagonalGaussianDistribution`.
    pub(crate) fn of_raw(raw: &Tensor) -> Result<Self> {
        let channels = raw.dim(1)? / 2;
        let logvar = raw.narrow(1, channels, channels)?.clamp(-30f32, 20f32)?;
        Ok(Self {
            mean: raw.narrow(1, 0, channels)?.contiguous()?,
            std: (logvar * 0.5)?.exp()?,
        })
    }

    /// `mean + std * noise`.
    ///
    /// # Errors
    /// Noise of another shape.
    pub fn sample(&self, noise: &Tensor) -> Result<Tensor> {
        &self.mean + (&self.std * noise)?
    }

    /// The logarithm of the variance; minus infinity for a `VQModel`.
    ///
    /// # Errors
    /// A tensor operation fails.
    pub fn log_variance(&self) -> Result<Tensor> {
        self.std.log()? * 2.0
    }

    /// The KL divergence to the standard normal distribution, summed over the latents of each image: `[B]`.
    /// ```text
    /// 0.5 sum(mean² + std² - 1 - ln std²)
    /// ```
    /// # Errors
    /// A tensor operation fails.
    pub fn kl(&self) -> Result<Tensor> {
        let squares = (self.mean.sqr()? + self.std.sqr()?)?;
        let terms = ((squares - self.log_variance()?)? - 1.0)?;
        terms.flatten_from(1)?.sum(1)? * 0.5
    }
}
