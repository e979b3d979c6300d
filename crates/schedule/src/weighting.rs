//! Loss weights for each timestep.

use std::{fmt, str::FromStr};

use crate::{
    error::{Result, ScheduleError},
    table::Schedule,
};

/// The weight of a timestep's loss as a function of its signal-to-noise ratio.
///
/// | text | weight | used for |
/// |---|---|---|
/// | `constant` | `1` | the simple loss |
/// | `p2`, `p2-GAMMA`, `p2-GAMMA-kK` | `1 / (k + SNR)^gamma` | the base loss (Choi et al. 2022); `p2` is k = 1, gamma = 1 |
/// | `snr`, `snr-GAMMA`, `snr-GAMMA-kK` | the same | distillation (SDFT); `snr` is k = 1, gamma = 3 |
/// | `min-snr-CAP` | `min(SNR, cap)` | the paper's ablation; Min-SNR for a network that predicts x0 |
/// | `min-snr-CAP-eps` | `min(SNR, cap) / SNR` | Min-SNR for a network that predicts eps (Hang et al. 2023) |
/// | `min-snr-CAP-v` | `min(SNR, cap) / (SNR + 1)` | Min-SNR for a network that predicts v |
/// | `edm`, `edm-SIGMA_DATA` | `SNR + 1 / sigma_data^2` | EDM's loss, for a network that predicts x0 (Karras et al. 2022); `edm` is 0.5 |
/// | `flow` | `(1 + sqrt(SNR))^2` | the error of a flow's velocity, written for x0 (rectified flow, SiT) |
///
/// With k = 1 the second and third are `(1 - alpha_bar)^gamma`: close to 0 for a nearly clean image, close to 1 for noise.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Weighting {
    /// 1 everywhere.
    #[default]
    Constant,
    /// P2's weight of the base loss, `1 / (k + SNR)^gamma`.
    P2 {
        /// Keeps the weight finite for pure noise; above 0.
        k: f64,
        /// Exponent, at least 0; 0 equals `Constant`.
        gamma: f64,
    },
    /// SDFT's weight of the distillation losses, `1 / (k + SNR)^gamma`.
    Snr {
        /// Keeps the weight finite for pure noise; above 0.
        k: f64,
        /// Exponent, at least 0; 0 equals `Constant`.
        gamma: f64,
    },
    /// `min(SNR, cap)`.
    MinSnr {
        /// Largest weight, above 0.
        cap: f64,
    },
    /// `min(SNR, cap) / SNR`.
    MinSnrEps {
        /// The SNR up to which the weight is 1, above 0.
        cap: f64,
    },
    /// `min(SNR, cap) / (SNR + 1)`.
    MinSnrV {
        /// The SNR at which the weight is largest, > 0.
        cap: f64,
    },
    /// EDM's weight `(sigma^2 + sigma_data^2) / (sigma sigma_data)^2` with `sigma^2 = 1 / SNR`, so `SNR + 1 / sigma_data^2`.
    Edm {
        /// Standard deviation of the images, above 0.
        sigma_data: f64,
    },
    /// The weight `1 / tau^2` at the time `tau = sigma / (1 + sigma)` of a flow, `sigma^2 = 1 / SNR`, so `(1 + sqrt(SNR))^2`: the squared
    /// error of the velocity `eps - x0` at `(1 - tau) x0 + tau eps` is that of x0 times this.
    Flow,
}

impl Weighting {
    /// The weight at a signal-to-noise ratio, of a step or between steps.
    #[must_use]
    pub fn at(&self, snr: f64) -> f64 {
        match *self {
            Self::Constant => 1.0,
            Self::P2 { k, gamma } | Self::Snr { k, gamma } => (k + snr).powf(-gamma),
            Self::MinSnr { cap } => snr.min(cap),
            // At SNR 0 (a last beta of 1) the limit is 1.
            Self::MinSnrEps { cap } => {
                if snr <= cap {
                    1.0
                } else {
                    cap / snr
                }
            }
            Self::MinSnrV { cap } => snr.min(cap) / (snr + 1.0),
            Self::Edm { sigma_data } => snr + 1.0 / (sigma_data * sigma_data),
            Self::Flow => (1.0 + snr.sqrt()).powi(2),
        }
    }

    /// One weight for each step of `schedule`, in f64.
    #[must_use]
    pub fn weights(&self, schedule: &Schedule) -> Vec<f64> {
        schedule.snr().iter().map(|&snr| self.at(snr)).collect()
    }

    /// Checks that every parameter is in its range, so that every weight is finite.
    ///
    /// # Errors
    /// Fails if `k` or `cap` is not positive and finite, or `gamma` is negative or not finite; the error has the parameter and its range.
    pub fn check(&self) -> Result<()> {
        let positive = |parameter, value: f64| {
            let inside = value > 0.0 && value.is_finite();
            self.refuse_unless(inside, parameter, value, "(0, inf)")
        };
        match *self {
            Self::Constant | Self::Flow => Ok(()),
            Self::P2 { k, gamma } | Self::Snr { k, gamma } => {
                positive("k", k)?;
                let inside = gamma >= 0.0 && gamma.is_finite();
                self.refuse_unless(inside, "gamma", gamma, "[0, inf)")
            }
            Self::MinSnr { cap } | Self::MinSnrEps { cap } | Self::MinSnrV { cap } => {
                positive("cap", cap)
            }
            Self::Edm { sigma_data } => positive("sigma_data", sigma_data),
        }
    }

    fn refuse_unless(
        &self,
        inside: bool,
        parameter: &'static str,
        value: f64,
        range: &'static str,
    ) -> Result<()> {
        if inside {
            return Ok(());
        }
        let weighting = match self {
            Self::Constant => "constant",
            Self::P2 { .. } => "p2",
            Self::Snr { .. } => "snr",
            Self::MinSnr { .. } => "min-snr",
            Self::MinSnrEps { .. } => "min-snr-eps",
            Self::MinSnrV { .. } => "min-snr-v",
            Self::Edm { .. } => "edm",
            Self::Flow => "flow",
        };
        Err(ScheduleError::WeightingOutOfRange {
            weighting,
            parameter,
            value,
            range,
        })
    }
}

impl fmt::Display for Weighting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let power = |f: &mut fmt::Formatter<'_>, name, k: f64, gamma: f64| {
            write!(f, "{name}-{gamma}")?;
            if k == 1.0 { Ok(()) } else { write!(f, "-k{k}") }
        };
        match *self {
            Self::Constant => f.write_str("constant"),
            Self::P2 { k, gamma } => power(f, "p2", k, gamma),
            Self::Snr { k, gamma } => power(f, "snr", k, gamma),
            Self::MinSnr { cap } => write!(f, "min-snr-{cap}"),
            Self::MinSnrEps { cap } => write!(f, "min-snr-{cap}-eps"),
            Self::MinSnrV { cap } => write!(f, "min-snr-{cap}-v"),
            Self::Edm { sigma_data } => write!(f, "edm-{sigma_data}"),
            Self::Flow => f.write_str("flow"),
        }
    }
}

impl FromStr for Weighting {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Self> {
        let unknown = || ScheduleError::UnknownWeighting {
            text: text.to_owned(),
        };
        let number = |part: &str| part.parse::<f64>().map_err(|_| unknown());
        let power = |rest: &str| {
            let (gamma, k) = rest.split_once("-k").unwrap_or((rest, "1"));
            Ok::<_, ScheduleError>((number(k)?, number(gamma)?))
        };
        let weighting = match text {
            "constant" => Self::Constant,
            "p2" => Self::P2 { k: 1.0, gamma: 1.0 },
            "snr" => Self::Snr { k: 1.0, gamma: 3.0 },
            "edm" => Self::Edm { sigma_data: 0.5 },
            "flow" => Self::Flow,
            _ => {
                if let Some(rest) = text.strip_prefix("min-snr-") {
                    if let Some(cap) = rest.strip_suffix("-eps") {
                        Self::MinSnrEps { cap: number(cap)? }
                    } else if let Some(cap) = rest.strip_suffix("-v") {
                        Self::MinSnrV { cap: number(cap)? }
                    } else {
                        Self::MinSnr { cap: number(rest)? }
                    }
                } else if let Some(rest) = text.strip_prefix("edm-") {
                    Self::Edm {
                        sigma_data: number(rest)?,
                    }
                } else if let Some(rest) = text.strip_prefix("p2-") {
                    let (k, gamma) = power(rest)?;
                    Self::P2 { k, gamma }
                } else if let Some(rest) = text.strip_prefix("snr-") {
                    let (k, gamma) = power(rest)?;
                    Self::Snr { k, gamma }
                } else {
                    return Err(unknown());
                }
            }
        };
        weighting.check()?;
        Ok(weighting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips() {
        for text in [
            "constant",
            "flow",
            "p2-1",
            "p2-0.5-k2",
            "snr-3",
            "snr-50-k0.5",
            "min-snr-5",
            "min-snr-2.5-eps",
            "min-snr-5-v",
            "edm-0.25",
        ] {
            assert_eq!(text.parse::<Weighting>().unwrap().to_string(), text);
        }
        assert_eq!("p2".parse(), Ok(Weighting::P2 { k: 1.0, gamma: 1.0 }));
        assert_eq!("snr".parse(), Ok(Weighting::Snr { k: 1.0, gamma: 3.0 }));
        assert_eq!("edm".parse(), Ok(Weighting::Edm { sigma_data: 0.5 }));
    }

    #[test]
    fn unknown_texts_are_quoted() {
        for text in [
            "",
            "p3",
            "snr-",
            "snr-x",
            "min-snr",
            "min-snr-eps",
            "min-snr-v",
            "min-snr-5-x",
            "edm-",
            "p2-1-k",
            "constant-2",
        ] {
            let error = text.parse::<Weighting>().unwrap_err();
            assert_eq!(
                error,
                ScheduleError::UnknownWeighting {
                    text: text.to_owned()
                }
            );
        }
    }

    #[test]
    fn parameters_outside_their_range_are_named() {
        for (text, parameter) in [
            ("p2-1-k0", "k = 0"),
            ("snr--1", "gamma = -1"),
            ("snr-NaN", "gamma = NaN"),
            ("snr-1-kinf", "k = inf"),
            ("min-snr-0", "cap = 0"),
            ("min-snr--2-eps", "cap = -2"),
            ("edm-0", "sigma_data = 0"),
        ] {
            let error = text.parse::<Weighting>().unwrap_err().to_string();
            assert!(error.contains(parameter), "{text}: {error}");
        }
    }

    #[test]
    fn edms_weight_is_that_of_its_paper() {
        for (sigma, sigma_data) in [(0.002f64, 0.5f64), (0.3, 0.5), (80.0, 0.6)] {
            let (s2, d2) = (sigma * sigma, sigma_data * sigma_data);
            let found = Weighting::Edm { sigma_data }.at(1.0 / s2);
            let expected = (s2 + d2) / (s2 * d2);
            assert!((found / expected - 1.0).abs() < 1e-14, "{sigma}: {found}");
        }
    }

    #[test]
    fn weights_are_finite_even_at_the_ends() {
        for text in [
            "constant",
            "p2",
            "snr-50",
            "min-snr-5",
            "min-snr-5-eps",
            "min-snr-5-v",
        ] {
            let weighting: Weighting = text.parse().unwrap();
            for snr in [0.0, 1e300, f64::INFINITY] {
                assert!(weighting.at(snr).is_finite(), "{text} at {snr}");
            }
        }
    }
}
