//! Flow matching along straight lines: rectified flow and SiT.

use crate::Level;
use crate::continuous::{LevelDraw, NoiseLevels};
use crate::quantile::normal_quantile;
use serde::{Deserialize, Serialize};

/// How a network of a flow is called, and the sign of what it predicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FlowConvention {
    /// willisma/SiT's: called with `1 - tau`, predicts `x0 - eps`.
    Sit,
    /// diffusers' (`FlowMatchEulerDiscreteScheduler`): called with `1000 tau`, predicts `eps - x0`.
    Diffusers,
}

impl FlowConvention {
    /// The time that the network is called with.
    pub fn time(self, tau: f64) -> f64 {
        match self {
            Self::Sit => 1.0 - tau,
            Self::Diffusers => 1000.0 * tau,
        }
    }

    /// The factor of the network's output in the velocity `eps - x0`.
    pub fn sign(self) -> f64 {
        match self {
            Self::Sit => -1.0,
            Self::Diffusers => 1.0,
        }
    }
}

/// How training draws the time of a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FlowTimes {
    /// Evenly between 0 and 1.
    #[default]
    Uniform,
    /// The logistic function of a normal number (Esser et al. 2024).
    LogitNormal,
}

/// A flow along straight lines, `x_tau = (1 - tau) x0 + tau eps` with `tau` from 0, the image, to 1, pure noise.
///
/// Source: Liu et al. 2023 (rectified flow), Ma et al. 2024 (SiT); names of the fields as in diffusers' training scripts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FlowProcess {
    /// How training draws `tau`.
    pub timesteps: FlowTimes,
    /// The mean of the normal number of `logit_normal`.
    pub logit_mean: f64,
    /// Its standard deviation.
    pub logit_std: f64,
}

impl Default for FlowProcess {
    fn default() -> Self {
        Self {
            timesteps: FlowTimes::Uniform,
            logit_mean: 0.0,
            logit_std: 1.0,
        }
    }
}

/// The smallest time of training: closer to the image, the error of a velocity is lost in the rounding of the image.
const LEAST: f64 = 1e-4;

impl FlowProcess {
    /// The noise levels of samplers that space them by `sigma`, EDM's usual ones.
    pub(crate) const SIGMAS: (f64, f64) = (0.002, 80.0);

    /// The first field that is outside its range, with the range and the value.
    pub(crate) fn outside(&self) -> Option<(&'static str, &'static str, f64)> {
        let Self {
            logit_mean: mean,
            logit_std: std,
            ..
        } = *self;
        match (mean.is_finite(), std > 0.0 && std.is_finite()) {
            (false, _) => Some(("continuous.logit_mean", "(-inf, inf)", mean)),
            (_, false) => Some(("continuous.logit_std", "(0, inf)", std)),
            (true, true) => None,
        }
    }
}

impl NoiseLevels for FlowProcess {
    /// `tau` itself, or the logistic function of a normal number by the inverse of its distribution. Every weight is 1.
    fn draw(&self, uniforms: &[f64]) -> Vec<LevelDraw> {
        let tau = |u: f64| match self.timesteps {
            FlowTimes::Uniform => u,
            FlowTimes::LogitNormal => {
                let normal = self.logit_mean + self.logit_std * normal_quantile(u);
                1.0 / (1.0 + (-normal).exp())
            }
        };
        let levels = uniforms.iter().map(|&u| Level::of_tau(tau(u).max(LEAST)));
        levels
            .map(|level| LevelDraw { level, weight: 1.0 })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_follow_their_distribution_and_stay_above_zero() {
        let grid: Vec<f64> = (0..4000).map(|i| f64::from(i) / 4000.0).collect();
        let times = |process: FlowProcess| -> Vec<f64> {
            let draws = process.draw(&grid).into_iter();
            draws.map(|draw| f64::from(draw.level.t)).collect()
        };
        let even = times(FlowProcess::default());
        assert_eq!(even[0], f64::from(LEAST as f32));
        assert!(
            even[1..]
                .iter()
                .zip(&grid[1..])
                .all(|(a, b)| (a - b).abs() < 1e-7)
        );
        let normal = times(FlowProcess {
            timesteps: FlowTimes::LogitNormal,
            logit_mean: 1.0,
            logit_std: 0.5,
        });
        let logits: Vec<f64> = normal[1..].iter().map(|t| (t / (1.0 - t)).ln()).collect();
        let mean = logits.iter().sum::<f64>() / 3999.0;
        let spread = logits.iter().map(|l| (l - mean).powi(2)).sum::<f64>() / 3999.0;
        assert!((mean - 1.0).abs() < 1e-2 && (spread.sqrt() - 0.5).abs() < 1e-2);
    }
}
