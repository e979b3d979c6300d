//! The noise variances per step.

use std::{f64::consts::PI, fmt, str::FromStr};

use crate::error::{Result, ScheduleError};

/// How the noise variances grow over the steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum BetaSchedule {
    /// From `1e-4` to `0.02` at 1000 steps (Ho et al. 2020), scaled by `1000 / n` for another number of steps.
    #[default]
    Linear,
    /// `alpha_bar` follows a squared cosine (Nichol and Dhariwal 2021); betas are capped at 0.999.
    Cosine,
}

/// The largest number of steps of a process. Published processes have up to 4000.
pub const MAX_STEPS: usize = 100_000;

impl BetaSchedule {
    /// The `n` betas of this schedule.
    ///
    /// Code reference: guided-diffusion `get_named_beta_schedule`.
    /// ```text
    /// linear:  linspace(s * 1e-4, s * 0.02, n)  with s = 1000 / n
    /// cosine:  min(1 - f((i + 1) / n) / f(i / n), 0.999)  with f(u) = cos^2((u + 0.008) / 1.008 * pi / 2)
    /// ```
    /// # Errors
    /// Fails if `n` is 0 (cosine), below 20 (linear, where the last beta would exceed 1) or above [`MAX_STEPS`].
    pub fn betas(self, n: usize) -> Result<Vec<f64>> {
        if n > MAX_STEPS {
            return Err(ScheduleError::TooManySteps { n, max: MAX_STEPS });
        }
        match self {
            Self::Linear => {
                let (what, min) = ("the linear noise schedule", 20);
                if n < min {
                    return Err(ScheduleError::TooFewSteps { what, n, min });
                }
                let scale = 1000.0 / n as f64;
                linear_betas(scale * 0.0001, scale * 0.02, n)
            }
            Self::Cosine => {
                if n == 0 {
                    let (what, min) = ("the cosine noise schedule", 1);
                    return Err(ScheduleError::TooFewSteps { what, n, min });
                }
                let alpha_bar = |u: f64| ((u + 0.008) / 1.008 * PI / 2.0).cos().powi(2);
                let at = |i: usize| alpha_bar(i as f64 / n as f64);
                Ok((0..n)
                    .map(|i| (1.0 - at(i + 1) / at(i)).min(0.999))
                    .collect())
            }
        }
    }
}

impl fmt::Display for BetaSchedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Linear => "linear",
            Self::Cosine => "cosine",
        })
    }
}

impl FromStr for BetaSchedule {
    type Err = ScheduleError;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "linear" => Ok(Self::Linear),
            "cosine" => Ok(Self::Cosine),
            _ => Err(ScheduleError::UnknownSchedule {
                name: name.to_owned(),
            }),
        }
    }
}

/// `n` betas evenly spaced from `start` to `end`, both included, with the arithmetic of numpy's `linspace`.
///
/// Code reference: SDEdit `get_beta_schedule`.
///
/// # Errors
/// Fails if `n` is 0, or if `start` or `end` is outside (0, 1].
pub fn linear_betas(start: f64, end: f64, n: usize) -> Result<Vec<f64>> {
    if n == 0 {
        let (what, min) = ("a linear list of betas", 1);
        return Err(ScheduleError::TooFewSteps { what, n, min });
    }
    if n == 1 {
        return check_betas(vec![start]);
    }
    let step = (end - start) / (n - 1) as f64;
    let mut betas: Vec<f64> = (0..n).map(|i| i as f64 * step + start).collect();
    betas[n - 1] = end;
    check_betas(betas)
}

/// Returns `betas` if every value is in (0, 1].
pub(crate) fn check_betas(betas: Vec<f64>) -> Result<Vec<f64>> {
    // Negated, so that NaN fails too.
    match betas.iter().position(|&beta| !(beta > 0.0 && beta <= 1.0)) {
        Some(index) => Err(ScheduleError::BetaOutOfRange {
            index,
            value: betas[index],
        }),
        None => Ok(betas),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(got: f64, expected: f64) {
        assert!(
            (got - expected).abs() <= 1e-14 + 1e-12 * expected.abs(),
            "{got} {expected}"
        );
    }

    #[test]
    fn a_number_of_steps_that_would_fill_the_memory_is_refused() {
        for kind in [BetaSchedule::Linear, BetaSchedule::Cosine] {
            for n in [MAX_STEPS + 1, 10_000_000_000, usize::MAX] {
                let error = kind.betas(n).unwrap_err();
                assert_eq!(error, ScheduleError::TooManySteps { n, max: MAX_STEPS });
            }
            assert_eq!(kind.betas(MAX_STEPS).unwrap().len(), MAX_STEPS);
        }
    }

    #[test]
    fn linear_betas_are_the_published_ones() {
        let betas = BetaSchedule::Linear.betas(1000).unwrap();
        assert_eq!(betas.len(), 1000);
        assert_eq!([betas[0], betas[999]], [1e-4, 0.02]);
        for (t, expected) in [
            (1, 1.1991991991988638e-4),
            (100, 0.0020919919919919483),
            (500, 0.010059959959960008),
            (750, 0.015039939939939906),
        ] {
            close(betas[t], expected);
        }
    }

    #[test]
    fn cosine_betas_are_the_published_ones() {
        let betas = BetaSchedule::Cosine.betas(1000).unwrap();
        for (t, expected) in [
            (0, 4.128422482196914e-05),
            (1, 4.614175273665033e-05),
            (500, 0.003155691441585007),
            (998, 0.7499993929011166),
            (999, 0.999),
        ] {
            close(betas[t], expected);
        }
    }

    #[test]
    fn invalid_betas_are_refused() {
        let short = BetaSchedule::Linear.betas(19).unwrap_err();
        assert_eq!(
            short.to_string(),
            "the linear noise schedule needs at least 20 steps, found 19"
        );
        assert!(BetaSchedule::Linear.betas(20).is_ok());
        assert!(BetaSchedule::Cosine.betas(0).is_err());
        assert!(linear_betas(1e-4, 0.02, 0).is_err());
        let zero = linear_betas(0.0, 0.02, 10).unwrap_err();
        assert_eq!(
            zero,
            ScheduleError::BetaOutOfRange {
                index: 0,
                value: 0.0
            }
        );
        let high = linear_betas(0.5, 1.5, 3).unwrap_err();
        assert_eq!(
            high,
            ScheduleError::BetaOutOfRange {
                index: 2,
                value: 1.5
            }
        );
        assert!(linear_betas(f64::NAN, 0.02, 10).is_err());
    }

    #[test]
    fn one_beta_is_the_first() {
        assert_eq!(linear_betas(0.1, 0.2, 1), Ok(vec![0.1]));
    }

    #[test]
    fn names_round_trip() {
        for kind in [BetaSchedule::Linear, BetaSchedule::Cosine] {
            assert_eq!(kind.to_string().parse(), Ok(kind));
        }
        let error = "sqrt".parse::<BetaSchedule>().unwrap_err();
        assert!(error.to_string().contains("\"sqrt\"") && error.to_string().contains("linear"));
    }
}
