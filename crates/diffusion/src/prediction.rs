//! The output of a network, and the quantity that it predicts.

use candle_core::{Result, Tensor, bail};
use sdft_schedule::Weighting;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The quantity that a network predicts from a noised image `x_t = sqrt(ab) x0 + sqrt(1 - ab) eps`; names as in diffusers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PredictionType {
    /// `epsilon`: the noise `eps`.
    #[default]
    #[serde(rename = "epsilon")]
    Epsilon,
    /// `sample`: the clean image `x0`.
    #[serde(rename = "sample")]
    Sample,
    /// `v_prediction`: the velocity `v = sqrt(ab) eps - sqrt(1 - ab) x0` (Salimans and Ho 2022).
    #[serde(rename = "v_prediction")]
    V,
}

impl PredictionType {
    /// Every type.
    pub const ALL: [Self; 3] = [Self::Epsilon, Self::Sample, Self::V];

    /// The name in files and settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Epsilon => "epsilon",
            Self::Sample => "sample",
            Self::V => "v_prediction",
        }
    }

    /// Whether this is the default, which files do not write.
    pub fn is_epsilon(&self) -> bool {
        *self == Self::Epsilon
    }

    /// Min-SNR's weight of the squared error of this quantity: `min(SNR, cap)` of the squared error of `x0` in every case.
    ///
    /// Source: Hang et al. 2023; EQUATIONS.md has the factors between the three errors.
    pub fn min_snr(self, cap: f64) -> Weighting {
        match self {
            Self::Epsilon => Weighting::MinSnrEps { cap },
            Self::Sample => Weighting::MinSnr { cap },
            Self::V => Weighting::MinSnrV { cap },
        }
    }
}

impl fmt::Display for PredictionType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The output of a network for a noised image. [`Diffusion`](crate::Diffusion) converts it to noise, clean image or velocity.
#[derive(Clone, Debug)]
pub struct Prediction {
    /// The predicted quantity as the network returns it, `[B, C, H, W]`.
    pub output: Tensor,
    /// Which quantity it is.
    pub prediction_type: PredictionType,
    /// Logits of the variance between its two bounds, `[B, C, H, W]`, from networks that learn it.
    pub variance: Option<Tensor>,
}

impl From<Tensor> for Prediction {
    /// The predicted noise, without a learned variance.
    fn from(noise: Tensor) -> Self {
        Self::new(noise, PredictionType::Epsilon)
    }
}

impl Prediction {
    /// A prediction without a learned variance.
    pub fn new(output: Tensor, prediction_type: PredictionType) -> Self {
        Self {
            output,
            prediction_type,
            variance: None,
        }
    }

    /// Splits a network's output: `channels` of the predicted quantity, then as many variance logits if there are twice as many channels.
    ///
    /// # Errors
    /// When the output has neither `channels` nor `2 channels` channels.
    pub fn split(
        output: &Tensor,
        channels: usize,
        prediction_type: PredictionType,
    ) -> Result<Self> {
        let found = output.dim(1)?;
        if found == channels {
            return Ok(Self::new(output.clone(), prediction_type));
        }
        if found != 2 * channels {
            bail!(
                "output of a denoiser of {channels} channels: expected {channels} or {} channels, found {found}",
                2 * channels
            );
        }
        Ok(Self {
            output: output.narrow(1, 0, channels)?,
            prediction_type,
            variance: Some(output.narrow(1, channels, channels)?),
        })
    }

    /// The part of the batch from `start`.
    ///
    /// # Errors
    /// When the range lies outside the batch.
    pub fn narrow(&self, start: usize, len: usize) -> Result<Self> {
        self.map(|x| x.narrow(0, start, len))
    }

    /// The same values, detached from the graph of gradients.
    #[must_use]
    pub fn detach(&self) -> Self {
        Self {
            output: self.output.detach(),
            prediction_type: self.prediction_type,
            variance: self.variance.as_ref().map(Tensor::detach),
        }
    }

    /// `f` of both tensors.
    ///
    /// # Errors
    /// The errors of `f`.
    pub fn map(&self, f: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Self> {
        Ok(Self {
            output: f(&self.output)?,
            prediction_type: self.prediction_type,
            variance: self.variance.as_ref().map(f).transpose()?,
        })
    }

    /// The noise, where the whole batch `xt` has one noise level `alpha_bar` in (0, 1).
    ///
    /// [`Diffusion::eps`](crate::Diffusion::eps) is the same for levels that differ.
    ///
    /// # Errors
    /// Shapes that differ.
    pub fn eps_at(&self, xt: &Tensor, alpha_bar: f64) -> Result<Tensor> {
        let (a, s) = (alpha_bar.sqrt(), (1.0 - alpha_bar).sqrt());
        match self.prediction_type {
            PredictionType::Epsilon => Ok(self.output.clone()),
            PredictionType::Sample => (xt - (&self.output * a)?)? / s,
            PredictionType::V => (&self.output * a)? + (xt * s)?,
        }
    }

    /// The clean image, where the whole batch `xt` has one noise level `alpha_bar` in (0, 1).
    ///
    /// [`Diffusion::x0`](crate::Diffusion::x0) is the same for levels that differ.
    ///
    /// # Errors
    /// Shapes that differ.
    pub fn x0_at(&self, xt: &Tensor, alpha_bar: f64) -> Result<Tensor> {
        let (a, s) = (alpha_bar.sqrt(), (1.0 - alpha_bar).sqrt());
        match self.prediction_type {
            PredictionType::Epsilon => (xt - (&self.output * s)?)? / a,
            PredictionType::Sample => Ok(self.output.clone()),
            PredictionType::V => (xt * a)? - (&self.output * s)?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};

    #[test]
    fn names_are_those_of_diffusers_and_come_back() {
        for kind in PredictionType::ALL {
            let json = serde_json::to_value(kind).unwrap();
            assert_eq!(json, kind.to_string());
            assert_eq!(
                serde_json::from_value::<PredictionType>(json).unwrap(),
                kind
            );
        }
        assert!(serde_json::from_str::<PredictionType>("\"v\"").is_err());
    }

    #[test]
    fn outputs_are_split_by_their_channels() {
        let zeros =
            |channels: usize| Tensor::zeros((2, channels, 4, 4), DType::F32, &Device::Cpu).unwrap();
        let split = |channels| Prediction::split(&zeros(channels), 3, PredictionType::V);
        assert!(split(3).unwrap().variance.is_none());
        assert_eq!(split(6).unwrap().variance.unwrap().dims(), [2, 3, 4, 4]);
        let error = split(4).unwrap_err().to_string();
        assert!(
            error.contains("expected 3 or 6 channels, found 4"),
            "{error}"
        );
    }
}
