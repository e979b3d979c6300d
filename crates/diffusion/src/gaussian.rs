//! A denoiser whose answers are known.

use crate::{Denoiser, Level, Prediction, PredictionType};
use candle_core::{Result, Tensor, bail};

/// What the times that the denoiser is called with are.
#[derive(Clone, Debug)]
enum Times {
    /// Original steps with these values of `alpha_bar`.
    Steps(Vec<f64>),
    Sigma,
    Tau,
}

/// The exact denoiser of data drawn from a normal distribution: no network, known answers.
///
/// ```text
/// x0 ~ N(mean, std^2)   =>   E[eps | x_t] = sqrt(1 - ab) (x_t - sqrt(ab) mean) / (ab std^2 + 1 - ab)
///                            E[x0  | x_t] = mean + sqrt(ab) std^2 (x_t - sqrt(ab) mean) / (ab std^2 + 1 - ab)
///                            E[v   | x_t] = sqrt(ab) E[eps | x_t] - sqrt(1 - ab) E[x0 | x_t]
/// ```
/// with `ab` = alpha_bar of the original step, or of the sigma or tau that the denoiser is called with. With `std` 0 every deterministic sampler returns `mean` exactly.
#[derive(Clone, Debug)]
pub struct GaussianDenoiser {
    times: Times,
    mean: f64,
    std: f64,
    prediction_type: PredictionType,
}

impl GaussianDenoiser {
    /// For data of this mean and standard deviation in every pixel, predicting the noise; `alpha_bar` is that of the original process.
    pub fn new(alpha_bar: &[f64], mean: f64, std: f64) -> Self {
        Self {
            times: Times::Steps(alpha_bar.to_vec()),
            mean,
            std,
            prediction_type: PredictionType::Epsilon,
        }
    }

    /// As [`Self::new`], called with EDM's sigma and predicting the clean image, as EDM's networks do.
    pub fn of_sigma(mean: f64, std: f64) -> Self {
        Self {
            times: Times::Sigma,
            mean,
            std,
            prediction_type: PredictionType::Sample,
        }
    }

    /// As [`Self::of_sigma`], called with the time of a flow.
    pub fn of_tau(mean: f64, std: f64) -> Self {
        Self {
            times: Times::Tau,
            ..Self::of_sigma(mean, std)
        }
    }

    /// alpha_bar at a time of the denoiser.
    fn alpha_bar_at(&self, t: f32) -> Result<f64> {
        let table = match &self.times {
            Times::Steps(table) => table,
            Times::Sigma => return Ok(Level::of_sigma(f64::from(t)).alpha_bar),
            Times::Tau => return Ok(Level::of_tau(f64::from(t)).alpha_bar),
        };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "negative becomes 0, which is checked"
        )]
        let step = t as usize;
        match table.get(step).filter(|_| step as f32 == t) {
            Some(&alpha_bar) => Ok(alpha_bar),
            None => bail!("timestep {t} is not one of 0..{}", table.len()),
        }
    }

    /// The same denoiser with another predicted quantity.
    #[must_use]
    pub fn with_prediction_type(mut self, prediction_type: PredictionType) -> Self {
        self.prediction_type = prediction_type;
        self
    }

    /// The state that the exact deterministic flow leads to from `x`, between noise levels `alpha_bar` `from` and `to`.
    ///
    /// # Errors
    /// When the device fails.
    pub fn flow(&self, x: &Tensor, from: f64, to: f64) -> Result<Tensor> {
        let spread = |ab: f64| (ab * self.std * self.std + 1.0 - ab).sqrt();
        let scale = spread(to) / spread(from);
        x.affine(scale, self.mean * (to.sqrt() - scale * from.sqrt()))
    }

    /// The prediction as `scale x_t + shift`.
    fn line(&self, ab: f64) -> (f64, f64) {
        let variance = ab * self.std * self.std + 1.0 - ab;
        let (a, s) = (ab.sqrt(), (1.0 - ab).sqrt());
        let (eps, x0) = (s / variance, a * self.std * self.std / variance);
        let (eps_shift, x0_shift) = (-eps * a * self.mean, self.mean - x0 * a * self.mean);
        match self.prediction_type {
            PredictionType::Epsilon => (eps, eps_shift),
            PredictionType::Sample => (x0, x0_shift),
            PredictionType::V => (a * eps - s * x0, a * eps_shift - s * x0_shift),
        }
    }
}

impl Denoiser for GaussianDenoiser {
    fn predict(&self, xt: &Tensor, t: &[f32]) -> Result<Prediction> {
        if t.len() != xt.dim(0)? {
            bail!("{} timesteps for a batch of {}", t.len(), xt.dim(0)?);
        }
        let mut parts = Vec::with_capacity(t.len());
        for (i, &t) in t.iter().enumerate() {
            let (scale, shift) = self.line(self.alpha_bar_at(t)?);
            parts.push(xt.narrow(0, i, 1)?.affine(scale, shift)?);
        }
        Ok(Prediction::new(
            Tensor::cat(&parts, 0)?,
            self.prediction_type,
        ))
    }
}
