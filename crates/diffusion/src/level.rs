//! Noise levels, and the conversions between clean image, noised image, noise and velocity at given levels.

use crate::{Denoiser, Prediction, PredictionType};
use candle_core::{Device, Result, Tensor, bail};

/// The amount of noise of an image, and the time that a network is called with for it.
///
/// `x_t = sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) eps`. Divided by `sqrt(alpha_bar)` this is EDM's `x0 + sigma eps` with
/// `sigma^2 = (1 - alpha_bar) / alpha_bar = 1 / SNR`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Level {
    /// The share of the image's variance, in [0, 1).
    pub alpha_bar: f64,
    /// The time that the network is called with, see [`TimeUnit`](crate::TimeUnit).
    pub t: f32,
    /// The step of the discrete process that this level belongs to; `None` between steps.
    pub step: Option<usize>,
}

impl Level {
    /// EDM's level `sigma`, for a network that is called with `sigma` itself.
    #[expect(clippy::cast_possible_truncation, reason = "networks compute in f32")]
    pub fn of_sigma(sigma: f64) -> Self {
        Self {
            alpha_bar: 1.0 / (1.0 + sigma * sigma),
            t: sigma as f32,
            step: None,
        }
    }

    /// The level of `x_tau = (1 - tau) x0 + tau eps`, for a network that is called with `tau` itself, 0 to 1.
    #[expect(clippy::cast_possible_truncation, reason = "networks compute in f32")]
    pub fn of_tau(tau: f64) -> Self {
        let (image, noise) = ((1.0 - tau) * (1.0 - tau), tau * tau);
        Self {
            alpha_bar: image / (image + noise),
            t: tau as f32,
            step: None,
        }
    }

    /// The time `sigma / (1 + sigma)` of a flow along straight lines; 1 where no signal is left.
    pub fn tau(&self) -> f64 {
        let (image, noise) = (self.sqrt_alpha_bar(), self.sqrt_one_minus_alpha_bar());
        noise / (image + noise)
    }

    /// EDM's noise level, `sqrt((1 - alpha_bar) / alpha_bar)`; infinite where no signal is left.
    pub fn sigma(&self) -> f64 {
        self.sqrt_recipm1_alpha_bar()
    }

    /// The signal-to-noise ratio `alpha_bar / (1 - alpha_bar)`, to the bit as in the tables of a schedule.
    pub fn snr(&self) -> f64 {
        1.0 / (1.0 - self.alpha_bar) - 1.0
    }

    fn sqrt_alpha_bar(&self) -> f64 {
        self.alpha_bar.sqrt()
    }

    fn sqrt_one_minus_alpha_bar(&self) -> f64 {
        (1.0 - self.alpha_bar).sqrt()
    }

    fn sqrt_recip_alpha_bar(&self) -> f64 {
        (1.0 / self.alpha_bar).sqrt()
    }

    fn sqrt_recipm1_alpha_bar(&self) -> f64 {
        (1.0 / self.alpha_bar - 1.0).sqrt()
    }
}

/// The prediction of a network for images at these levels, one for each image.
///
/// # Errors
/// As [`Denoiser::predict`].
pub fn predict_at(denoiser: &dyn Denoiser, xt: &Tensor, levels: &[Level]) -> Result<Prediction> {
    let times: Vec<f32> = levels.iter().map(|level| level.t).collect();
    denoiser.predict(xt, &times)
}

/// Images with noise: `x_t = sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) eps`.
///
/// # Shapes
/// - `x0`, `eps`: `[B, C, H, W]` · `levels`: `B`
///
/// # Errors
/// Shapes that differ; another number of levels than images.
pub fn q_sample(x0: &Tensor, levels: &[Level], eps: &Tensor) -> Result<Tensor> {
    x0.broadcast_mul(&spread(levels, Level::sqrt_alpha_bar, x0)?)?
        + eps.broadcast_mul(&spread(levels, Level::sqrt_one_minus_alpha_bar, eps)?)?
}

/// The clean image that `xt` and `eps` imply, `(x_t - sqrt(1 - alpha_bar) eps) / sqrt(alpha_bar)`.
///
/// # Errors
/// As [`q_sample`].
pub fn x0_from_eps(xt: &Tensor, levels: &[Level], eps: &Tensor) -> Result<Tensor> {
    xt.broadcast_mul(&spread(levels, Level::sqrt_recip_alpha_bar, xt)?)?
        - eps.broadcast_mul(&spread(levels, Level::sqrt_recipm1_alpha_bar, xt)?)?
}

/// The noise that `xt` and `x0` imply, `(x_t - sqrt(alpha_bar) x0) / sqrt(1 - alpha_bar)`.
///
/// # Errors
/// As [`q_sample`].
pub fn eps_from_x0(xt: &Tensor, levels: &[Level], x0: &Tensor) -> Result<Tensor> {
    let scaled = xt.broadcast_mul(&spread(levels, Level::sqrt_recip_alpha_bar, xt)?)?;
    (scaled - x0)?.broadcast_div(&spread(levels, Level::sqrt_recipm1_alpha_bar, xt)?)
}

/// The velocity of `x0` and `eps`, `sqrt(alpha_bar) eps - sqrt(1 - alpha_bar) x0`.
///
/// Source: diffusers `get_velocity`.
///
/// # Errors
/// As [`q_sample`].
pub fn velocity(x0: &Tensor, levels: &[Level], eps: &Tensor) -> Result<Tensor> {
    eps.broadcast_mul(&spread(levels, Level::sqrt_alpha_bar, eps)?)?
        - x0.broadcast_mul(&spread(levels, Level::sqrt_one_minus_alpha_bar, x0)?)?
}

impl PredictionType {
    /// The value that a perfect prediction has, from the image and the noise.
    ///
    /// # Errors
    /// As [`q_sample`].
    pub fn target(self, x0: &Tensor, levels: &[Level], eps: &Tensor) -> Result<Tensor> {
        match self {
            Self::Epsilon => Ok(eps.clone()),
            Self::Sample => Ok(x0.clone()),
            Self::V => velocity(x0, levels, eps),
        }
    }
}

impl Prediction {
    /// The predicted noise in `xt`.
    ///
    /// # Errors
    /// As [`q_sample`].
    pub fn eps(&self, xt: &Tensor, levels: &[Level]) -> Result<Tensor> {
        let output = &self.output;
        match self.prediction_type {
            PredictionType::Epsilon => Ok(output.clone()),
            // Unlike `eps_from_x0` this is finite where no signal is left.
            PredictionType::Sample => {
                let signal = output.broadcast_mul(&spread(levels, Level::sqrt_alpha_bar, output)?);
                let noise = (xt - signal?)?;
                noise.broadcast_div(&spread(levels, Level::sqrt_one_minus_alpha_bar, xt)?)
            }
            PredictionType::V => {
                output.broadcast_mul(&spread(levels, Level::sqrt_alpha_bar, output)?)?
                    + xt.broadcast_mul(&spread(levels, Level::sqrt_one_minus_alpha_bar, xt)?)?
            }
        }
    }

    /// The predicted clean image behind `xt`.
    ///
    /// # Errors
    /// As [`q_sample`].
    pub fn x0(&self, xt: &Tensor, levels: &[Level]) -> Result<Tensor> {
        let output = &self.output;
        match self.prediction_type {
            PredictionType::Epsilon => x0_from_eps(xt, levels, output),
            PredictionType::Sample => Ok(output.clone()),
            PredictionType::V => {
                xt.broadcast_mul(&spread(levels, Level::sqrt_alpha_bar, xt)?)?
                    - output.broadcast_mul(&spread(levels, Level::sqrt_one_minus_alpha_bar, xt)?)?
            }
        }
    }

    /// The predicted velocity at `xt`.
    ///
    /// # Errors
    /// As [`q_sample`].
    pub fn v(&self, xt: &Tensor, levels: &[Level]) -> Result<Tensor> {
        match self.prediction_type {
            PredictionType::V => Ok(self.output.clone()),
            PredictionType::Epsilon | PredictionType::Sample => {
                velocity(&self.x0(xt, levels)?, levels, &self.eps(xt, levels)?)
            }
        }
    }

    /// The prediction as the quantity `space`.
    ///
    /// # Errors
    /// As [`q_sample`].
    pub fn convert(&self, space: PredictionType, xt: &Tensor, levels: &[Level]) -> Result<Tensor> {
        match space {
            PredictionType::Epsilon => self.eps(xt, levels),
            PredictionType::Sample => self.x0(xt, levels),
            PredictionType::V => self.v(xt, levels),
        }
    }
}

/// `of` each level, shaped `[B, 1, 1, 1]` in the type and on the device of `like`.
fn spread(levels: &[Level], of: fn(&Level) -> f64, like: &Tensor) -> Result<Tensor> {
    per_image(&levels.iter().map(of).collect::<Vec<_>>(), like)
}

/// One number for each image, shaped `[B, 1, 1, 1]` in the type and on the device of `like`.
pub(crate) fn per_image(values: &[f64], like: &Tensor) -> Result<Tensor> {
    let n = values.len();
    if n != like.dim(0)? {
        bail!("{n} timesteps for a batch of {}", like.dim(0)?);
    }
    Tensor::from_slice(values, (n, 1, 1, 1), &Device::Cpu)?
        .to_dtype(like.dtype())?
        .to_device(like.device())
}
