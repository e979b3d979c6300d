//! The noise variances per step.

use std::{f64::consts::PI, fmt, str::FromStr};

use crate::error::{Result, ScheduleError};

/// How the noise variances grow over the steps.
///
/// `linear` and `cosine` are guided-diffusion's names, the others diffusers'. `squaredcos_cap_v2` is another name of `cosine`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum BetaSchedule {
    /// Evenly spaced betas (Ho et al. 2020).
    #[default]
    Linear,
    /// `alpha_bar` follows a squared cosine (Nichol and Dhariwal 2021); betas are capped at 0.999.
    Cosine,
    /// Betas whose square roots are evenly spaced (Rombach et al. 2022).
    ScaledLinear,
    /// Betas follow a sigmoid from -6 to 6 (Xu et al. 2022).
    Sigmoid,
    /// The log of the signal-to-noise ratio follows a Laplace distribution (Hang et al. 2024); betas are capped at 0.999.
    Laplace,
}

/// The first and the last beta. `None` is the schedule's own default.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct BetaEnds {
    /// The first beta.
    pub start: Option<f64>,
    /// The last beta.
    pub end: Option<f64>,
}

/// The largest number of steps of a process. Published processes have up to 4000.
pub const MAX_STEPS: usize = 100_000;

impl BetaSchedule {
    /// Every schedule.
    pub const ALL: [Self; 5] = [
        Self::Linear,
        Self::Cosine,
        Self::ScaledLinear,
        Self::Sigmoid,
        Self::Laplace,
    ];

    /// The name in files and settings.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Linear => "linear",
            Self::Cosine => "cosine",
            Self::ScaledLinear => "scaled_linear",
            Self::Sigmoid => "sigmoid",
            Self::Laplace => "laplace",
        }
    }

    /// Whether the schedule has a first and a last beta that can be chosen.
    #[must_use]
    pub fn has_ends(self) -> bool {
        !matches!(self, Self::Cosine | Self::Laplace)
    }

    /// The `n` betas of this schedule with its default ends.
    ///
    /// # Errors
    /// Fails for the same reasons as [`betas_between`](Self::betas_between).
    pub fn betas(self, n: usize) -> Result<Vec<f64>> {
        self.betas_between(BetaEnds::default(), n)
    }

    /// The `n` betas of this schedule.
    ///
    /// The default ends are 1e-4 and 0.02. Those of the linear schedule are multiplied by `1000 / n`, as in guided-diffusion.
    ///
    /// Code reference: guided-diffusion `get_named_beta_schedule`, diffusers `DDPMScheduler.__init__`, `betas_for_alpha_bar`.
    /// ```text
    /// linear:         linspace(start, end, n)
    /// scaled_linear:  linspace(sqrt(start), sqrt(end), n)^2
    /// sigmoid:        sigmoid(linspace(-6, 6, n)) (end - start) + start
    /// cosine:         min(1 - f((i + 1) / n) / f(i / n), 0.999)  with f(u) = cos^2((u + 0.008) / 1.008 * pi / 2)
    /// laplace:        the same with f(u) = sqrt(snr / (1 + snr)), ln snr = -sign(1/2 - u) ln(1 - 2 |1/2 - u| + 1e-6) / 2
    /// ```
    /// # Errors
    /// Fails if `n` is 0, below 20 (linear with default ends, where the last beta would exceed 1) or above [`MAX_STEPS`], if an end is outside
    /// (0, 1], or if ends are given to a schedule that has none.
    pub fn betas_between(self, ends: BetaEnds, n: usize) -> Result<Vec<f64>> {
        if n > MAX_STEPS {
            return Err(ScheduleError::TooManySteps { n, max: MAX_STEPS });
        }
        let is_default = ends == BetaEnds::default();
        if !self.has_ends() && !is_default {
            return Err(ScheduleError::NoEnds { name: self.name() });
        }
        let (what, min) = match self {
            Self::Linear if is_default => ("the linear noise schedule", 20),
            Self::Cosine => ("the cosine noise schedule", 1),
            _ => ("a noise schedule", 1),
        };
        if n < min {
            return Err(ScheduleError::TooFewSteps { what, n, min });
        }
        let scale = match self {
            Self::Linear => 1000.0 / n as f64,
            _ => 1.0,
        };
        let start = ends.start.unwrap_or(scale * 0.0001);
        let end = ends.end.unwrap_or(scale * 0.02);
        if let Some(value) = [start, end].into_iter().find(|end| !is_beta(*end)) {
            return Err(ScheduleError::EndOutOfRange { value });
        }
        match self {
            Self::Linear => linear_betas(start, end, n),
            Self::ScaledLinear => {
                let roots = linear_betas(start.sqrt(), end.sqrt(), n)?;
                check_betas(roots.into_iter().map(|root| root * root).collect())
            }
            Self::Sigmoid => {
                let at = |i: usize| -6.0 + 12.0 * i as f64 / (n.max(2) - 1) as f64;
                let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
                check_betas(
                    (0..n)
                        .map(|i| sigmoid(at(i)) * (end - start) + start)
                        .collect(),
                )
            }
            Self::Cosine => Ok(capped(n, |u| {
                ((u + 0.008) / 1.008 * PI / 2.0).cos().powi(2)
            })),
            Self::Laplace => Ok(capped(n, |u| {
                let ln_snr =
                    -0.5 * 1f64.copysign(0.5 - u) * (1.0 - 2.0 * (0.5 - u).abs() + 1e-6).ln();
                let snr = ln_snr.exp();
                (snr / (1.0 + snr)).sqrt()
            })),
        }
    }
}

/// Betas of a continuous `alpha_bar`, at most 0.999.
fn capped(n: usize, alpha_bar: impl Fn(f64) -> f64) -> Vec<f64> {
    let at = |i: usize| alpha_bar(i as f64 / n as f64);
    (0..n)
        .map(|i| (1.0 - at(i + 1) / at(i)).min(0.999))
        .collect()
}

impl fmt::Display for BetaSchedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for BetaSchedule {
    type Err = ScheduleError;

    fn from_str(name: &str) -> Result<Self> {
        let alias = match name {
            "squaredcos_cap_v2" => Self::Cosine.name(),
            _ => name,
        };
        let mut all = Self::ALL.into_iter();
        all.find(|kind| kind.name() == alias)
            .ok_or_else(|| ScheduleError::UnknownSchedule {
                name: name.to_owned(),
            })
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

/// The betas with which the last step is pure noise, in single precision like in PyTorch.
///
/// The square roots of `alpha_bar` are shifted so that the last one is 0, and scaled so that the first one stays.
///
/// Source: Lin et al. 2023, Algorithm 1; diffusers `rescale_zero_terminal_snr`.
#[must_use]
pub fn rescale_zero_terminal_snr(betas: &[f64]) -> Vec<f64> {
    let mut product = 1.0;
    let mut roots: Vec<f32> = Vec::with_capacity(betas.len());
    for &beta in betas {
        product *= f64::from(1.0 - beta as f32);
        roots.push((product as f32).sqrt());
    }
    let (Some(&first), Some(&last)) = (roots.first(), roots.last()) else {
        return Vec::new();
    };
    let scale = first / (first - last);
    let mut before = 1f32;
    let rescaled = roots.iter().map(|root| {
        let shifted = (root - last) * scale;
        let bar = shifted * shifted;
        let alpha = bar / before;
        before = bar;
        f64::from(1.0 - alpha)
    });
    rescaled.collect()
}

/// Whether a value is in (0, 1]; NaN is not.
fn is_beta(value: f64) -> bool {
    value > 0.0 && value <= 1.0
}

/// Returns `betas` if every value is in (0, 1].
pub(crate) fn check_betas(betas: Vec<f64>) -> Result<Vec<f64>> {
    match betas.iter().position(|&beta| !is_beta(beta)) {
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
        for kind in BetaSchedule::ALL {
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
        assert_eq!("squaredcos_cap_v2".parse(), Ok(BetaSchedule::Cosine));
        for kind in BetaSchedule::ALL {
            assert_eq!(kind.to_string().parse(), Ok(kind));
        }
        let error = "sqrt".parse::<BetaSchedule>().unwrap_err();
        assert!(error.to_string().contains("\"sqrt\"") && error.to_string().contains("linear"));
    }
}
