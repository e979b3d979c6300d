//! Which terms a loss has, and how they are weighted.

use crate::Pairwise;
use sdft_diffusion::{Level, PredictionType};
use sdft_schedule::Weighting;

/// One distillation term: its factor in Eq. (6) and its weight over time, Eq. (4).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Distillation {
    /// `lambda` or `lambda_aux`.
    pub lambda: f64,
    /// `w(t)`.
    pub weighting: Weighting,
}

impl Distillation {
    /// SDFT's weight, `w(t) = 1/(1 + SNR)^gamma`.
    pub fn snr(lambda: f64, gamma: f64) -> Self {
        Self {
            lambda,
            weighting: Weighting::Snr { k: 1.0, gamma },
        }
    }
}

/// Whether the variational term is part of the base loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variational {
    /// The network does not learn its variance.
    Off,
    /// Added as it is (`LossType.MSE`).
    Plain,
    /// Times the number of steps of the (respaced) process over 1000 (`LossType.RESCALED_MSE`; no difference at 1000 steps).
    Rescaled,
}

/// The loss to minimise: Eq. (6) of the paper, term by term.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Objective {
    /// The weight of the squared error of the network's own output, Eq. (2); [`Weighting::Constant`] is Eq. (1).
    pub base: Weighting,
    /// The variational term; its gradient reaches the variance logits only.
    pub variational: Variational,
    /// Eq. (3), on noised target images.
    pub distill: Option<Distillation>,
    /// Eq. (5), on pure noise.
    pub aux: Option<Distillation>,
    /// The quantity in which student and source model are compared, regardless of their prediction types; the noise in the paper.
    pub distill_space: PredictionType,
    /// The channels that the source model has learned, if the images have more: only these first ones are compared.
    pub distill_channels: Option<usize>,
    /// Diff-Tuning: the factor of the base loss of kept samples of the source model.
    pub keep: Option<f64>,
    /// DDPM-PA: the distances between images.
    pub pairwise: Option<Pairwise>,
}

impl Objective {
    /// Fine-tuning without distillation; with `Weighting::Constant` and `Variational::Off` the simple loss.
    pub fn base_only(base: Weighting, variational: Variational) -> Self {
        Self {
            base,
            variational,
            distill: None,
            aux: None,
            distill_space: PredictionType::Epsilon,
            distill_channels: None,
            keep: None,
            pairwise: None,
        }
    }

    /// The paper's settings for MetFaces (Table 5, read as gamma 3, gamma_aux 50, both lambdas 0.1).
    pub fn metfaces(learns_variance: bool) -> Self {
        let variational = if learns_variance {
            Variational::Rescaled
        } else {
            Variational::Off
        };
        Self {
            distill: Some(Distillation::snr(0.1, 3.0)),
            aux: Some(Distillation::snr(0.1, 50.0)),
            ..Self::base_only(Weighting::P2 { k: 1.0, gamma: 1.0 }, variational)
        }
    }

    /// The paper's settings for AAHQ: as for MetFaces with lambda_aux 0.3.
    pub fn aahq(learns_variance: bool) -> Self {
        Self {
            aux: Some(Distillation::snr(0.3, 50.0)),
            ..Self::metfaces(learns_variance)
        }
    }

    /// Whether a source model is needed.
    pub fn distills(&self) -> bool {
        self.distill.is_some() || self.aux.is_some() || self.compares_pairs()
    }

    /// Whether the source model has to predict every image, for the distances between them.
    pub fn compares_pairs(&self) -> bool {
        self.pairwise
            .is_some_and(|term| term.weight > 0.0 || term.hf_weight > 0.0)
    }

    /// `w_aux` at each level, for steps drawn uniformly.
    pub fn aux_weights(&self, levels: &[Level]) -> Vec<f64> {
        weights_at(
            self.aux.map_or(Weighting::Constant, |aux| aux.weighting),
            levels,
        )
    }
}

/// Images of at least this weight are always seen by the source model.
const NEGLIGIBLE: f64 = 0.1;

/// The probability that the source model sees an image of this weight, where it skips most images of little weight.
pub fn distill_odds(weight: f64) -> f64 {
    (weight / NEGLIGIBLE).min(1.0)
}

/// The factor of an image in the distillation term, where the source model skips most images of little weight: 0 to skip it, otherwise
/// `1 / min(1, weight / 0.1)`. Over `u`, uniform in [0, 1), its mean is 1 for any weight above 0, so the expected gradient is the same.
pub fn distill_factor(weight: f64, u: f64) -> f64 {
    let odds = distill_odds(weight);
    if u < odds { 1.0 / odds } else { 0.0 }
}

/// The weight at each level, to the bit as in [`Weighting::weights`] where the level is a step.
pub fn weights_at(weighting: Weighting, levels: &[Level]) -> Vec<f64> {
    levels
        .iter()
        .map(|level| weighting.at(level.snr()))
        .collect()
}
