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
        self.spaced(ends, n, linspace, |x| x)
    }

    /// Like [`betas_between`](Self::betas_between), in single precision with the arithmetic of PyTorch: the betas of diffusers' schedulers.
    ///
    /// # Errors
    /// Fails for the same reasons as [`betas_between`](Self::betas_between).
    pub fn betas_of_diffusers(self, ends: BetaEnds, n: usize) -> Result<Vec<f64>> {
        self.spaced(ends, n, linspace_in_f32, |x| f64::from(x as f32))
    }

    /// The betas with a way to space numbers evenly and to round.
    fn spaced(
        self,
        ends: BetaEnds,
        n: usize,
        linspace: fn(f64, f64, usize) -> Vec<f64>,
        round: fn(f64) -> f64,
    ) -> Result<Vec<f64>> {
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
        let betas = match self {
            Self::Linear => linspace(start, end, n),
            Self::ScaledLinear => {
                let roots = linspace(start.sqrt(), end.sqrt(), n);
                roots.into_iter().map(|root| round(root * root)).collect()
            }
            Self::Sigmoid => {
                let (range, start) = (round(end - start), round(start));
                let sigmoid = |x: f64| round(1.0 / (1.0 + (-x).exp()));
                let shares = linspace(-6.0, 6.0, n).into_iter().map(sigmoid);
                shares
                    .map(|share| round(round(share * range) + start))
                    .collect()
            }
            Self::Cosine => capped(n, |u| ((u + 0.008) / 1.008 * PI / 2.0).cos().powi(2)),
            Self::Laplace => capped(n, |u| {
                let ln_snr =
                    -0.5 * 1f64.copysign(0.5 - u) * (1.0 - 2.0 * (0.5 - u).abs() + 1e-6).ln();
                let snr = ln_snr.exp();
                (snr / (1.0 + snr)).sqrt()
            }),
        };
        check_betas(betas)
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
    check_betas(linspace(start, end, n))
}

/// Like numpy's `linspace`.
fn linspace(start: f64, end: f64, n: usize) -> Vec<f64> {
    let step = (end - start) / (n.max(2) - 1) as f64;
    let mut values: Vec<f64> = (0..n).map(|i| i as f64 * step + start).collect();
    if let [_, .., last] = &mut values[..] {
        *last = end;
    }
    values
}

/// Like PyTorch's `linspace` in f32: from both ends to the middle, with one rounding for each number.
fn linspace_in_f32(start: f64, end: f64, n: usize) -> Vec<f64> {
    let round = |x: f64| f64::from(x as f32);
    let (start, end) = (round(start), round(end));
    let step = round(round(end - start) / (n.max(2) - 1) as f64);
    let at = |i: usize| match i < n / 2 || n == 1 {
        true => start + step * i as f64,
        false => end - step * (n - 1 - i) as f64,
    };
    (0..n).map(|i| round(at(i))).collect()
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

    /// Steps 1, 499, 500 and 998 of 1000 in diffusers 0.42.1.
    const LINEAR: [f32; 4] = [1.199_199_2e-4, 0.010_040_04, 0.010_059_959, 0.019_980_08];
    const SCALED: [f32; 4] = [
        8.546_986e-4,
        0.004_803_792_6,
        0.004_814_953_5,
        0.011_982_375,
    ];
    const SIGMOID: [f32; 4] = [1.497_983_2e-4, 0.010_020_121, 0.010_079_878, 0.019_950_2];
    const COSINE: [f32; 4] = [4.614_175e-5, 0.003_145_886_1, 0.003_155_691_5, 0.749_999_4];
    const LAPLACE: [f32; 4] = [0.008_747_813, 2.501_562e-4, 2.500_314e-4, 0.151_629_66];
    /// Steps 0, 500 and 998, of a linear schedule with zero terminal SNR.
    const RESCALED: [f32; 3] = [1.000_165_9e-4, 0.010_292_59, 0.752_265_93];

    #[test]
    fn betas_of_diffusers_are_those_of_the_library() {
        let latent = BetaEnds {
            start: Some(0.00085),
            end: Some(0.012),
        };
        for (kind, ends, expected) in [
            (BetaSchedule::Linear, BetaEnds::default(), LINEAR),
            (BetaSchedule::ScaledLinear, latent, SCALED),
            (BetaSchedule::Sigmoid, BetaEnds::default(), SIGMOID),
            (BetaSchedule::Cosine, BetaEnds::default(), COSINE),
            (BetaSchedule::Laplace, BetaEnds::default(), LAPLACE),
        ] {
            let betas = kind.betas_of_diffusers(ends, 1000).unwrap();
            let exact = kind.betas_between(ends, 1000).unwrap();
            for (t, expected) in [1, 499, 500, 998].into_iter().zip(expected) {
                let error = (betas[t] as f32 / expected - 1.0).abs();
                assert!(error < 2e-7, "{kind} {t}: {} {expected}", betas[t]);
                assert!((exact[t] / betas[t] - 1.0).abs() < 1e-6, "{kind} {t}");
            }
        }
        let rescaled = rescale_zero_terminal_snr(&BetaSchedule::Linear.betas(1000).unwrap());
        assert_eq!(rescaled[999], 1.0);
        for (t, expected) in [0, 500, 998].into_iter().zip(RESCALED) {
            assert!((rescaled[t] as f32 / expected - 1.0).abs() < 2e-4, "{t}");
        }
    }

    #[test]
    fn ends_are_checked_and_belong_to_a_schedule() {
        let ends = |start, end| BetaEnds {
            start: Some(start),
            end: Some(end),
        };
        let betas = BetaSchedule::Linear.betas_between(ends(0.1, 0.3), 3);
        assert_eq!(betas, Ok(vec![0.1, 0.2, 0.3]));
        let short = BetaEnds {
            start: None,
            end: Some(0.01),
        };
        let betas = BetaSchedule::Linear.betas_between(short, 500).unwrap();
        assert_eq!((betas[0], betas[499]), (2e-4, 0.01));
        for kind in [BetaSchedule::Cosine, BetaSchedule::Laplace] {
            let error = kind.betas_between(short, 10).unwrap_err().to_string();
            assert!(error.contains(kind.name()), "{error}");
        }
        for value in [0.0, -1.0, 1.5, f64::NAN] {
            for kind in [BetaSchedule::ScaledLinear, BetaSchedule::Sigmoid] {
                assert!(kind.betas_between(ends(value, 0.5), 10).is_err(), "{value}");
                assert!(kind.betas_between(ends(0.5, value), 10).is_err(), "{value}");
            }
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
