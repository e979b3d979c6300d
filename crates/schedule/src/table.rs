//! The tables of a diffusion process.

use crate::{
    betas::{BetaSchedule, check_betas},
    error::{Result, ScheduleError},
    respacing::Respacing,
};

/// The tables of a diffusion process, one f64 entry per step; index 0 has the least noise.
///
/// A respaced process has its own tables. [`timestep_map`](Self::timestep_map) holds the original timestep of each of its steps, which is
/// what networks are given.
///
/// Code reference: guided-diffusion `GaussianDiffusion.__init__`, `SpacedDiffusion.__init__`.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    n_original_steps: usize,
    timestep_map: Vec<usize>,
    betas: Vec<f64>,
    alpha_bar: Vec<f64>,
    alpha_bar_prev: Vec<f64>,
    alpha_bar_next: Vec<f64>,
    alpha_bar_ddim: Vec<f64>,
    sqrt_alpha_bar: Vec<f64>,
    sqrt_one_minus_alpha_bar: Vec<f64>,
    log_one_minus_alpha_bar: Vec<f64>,
    sqrt_recip_alpha_bar: Vec<f64>,
    sqrt_recipm1_alpha_bar: Vec<f64>,
    posterior_variance: Vec<f64>,
    posterior_log_variance_clipped: Vec<f64>,
    posterior_mean_coef1: Vec<f64>,
    posterior_mean_coef2: Vec<f64>,
    snr: Vec<f64>,
    arithmetic: Arithmetic,
}

/// How the tables of a process follow from its betas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Arithmetic {
    /// In double precision, as in guided-diffusion.
    Double,
    /// Every operation in single precision, as in diffusers.
    Single,
}

impl Arithmetic {
    /// The result of one operation. Rounding the sum, product, quotient or root of two f32 numbers gives what f32 arithmetic gives.
    fn round(self, x: f64) -> f64 {
        match self {
            Self::Double => x,
            Self::Single => f64::from(x as f32),
        }
    }

    /// `1 - bar / prev`. Nothing is left of nothing.
    fn beta(self, bar: f64, prev: f64) -> f64 {
        match prev {
            0.0 => 1.0,
            _ => self.round(1.0 - self.round(bar / prev)),
        }
    }
}

impl Schedule {
    /// The process with `n` steps of a named schedule.
    ///
    /// # Errors
    /// Fails if `n` is below 20 (linear) or 2 (cosine), or above [`MAX_STEPS`](crate::MAX_STEPS).
    pub fn new(kind: BetaSchedule, n: usize) -> Result<Self> {
        Self::from_betas(kind.betas(n)?)
    }

    /// The process with these noise variances.
    ///
    /// # Errors
    /// Fails if there are fewer than 2 betas (the clipped log variance of the first step is that of the second) or one is outside (0, 1].
    pub fn from_betas(betas: Vec<f64>) -> Result<Self> {
        let (n, all) = (betas.len(), (0..betas.len()).collect());
        let alpha_bar = product(&betas);
        Self::build(betas, alpha_bar, all, n, Arithmetic::Double)
    }

    /// Like [`from_betas`](Self::from_betas), with betas and `alpha_bar` rounded to f32 like in PyTorch.
    ///
    /// These are the tables of SDEdit, EGSDE and Asyrp. At small noise they differ from the exact ones by up to 3e-4 of `1 - alpha_bar`, which
    /// affects the gradients of energies.
    ///
    /// # Errors
    /// Fails for the same reasons as [`from_betas`](Self::from_betas).
    pub fn from_betas_in_f32(betas: &[f64]) -> Result<Self> {
        let betas: Vec<f64> = betas.iter().map(|&beta| f64::from(beta as f32)).collect();
        let (n, all) = (betas.len(), (0..betas.len()).collect());
        let alpha_bar = product_in_f32(&betas);
        Self::build(betas, alpha_bar, all, n, Arithmetic::Double)
    }

    /// Like [`from_betas_in_f32`](Self::from_betas_in_f32), with every table in single precision: the numbers of diffusers' schedulers.
    ///
    /// Each beta is the one that follows from `alpha_bar`, so small ones differ from the given ones by up to 6e-8.
    ///
    /// Code reference: diffusers `DDPMScheduler.step`.
    ///
    /// # Errors
    /// Fails for the same reasons as [`from_betas`](Self::from_betas), or if a step adds no noise in single precision.
    pub fn of_diffusers(betas: &[f64]) -> Result<Self> {
        let betas = check_betas(betas.iter().map(|&beta| f64::from(beta as f32)).collect())?;
        let (n, all) = (betas.len(), (0..betas.len()).collect());
        let alpha_bar = product_in_f32(&betas);
        let betas = Self::betas_of(&alpha_bar, Arithmetic::Single);
        match betas.iter().position(|&beta| beta <= 0.0) {
            None => Self::build(betas, alpha_bar, all, n, Arithmetic::Single),
            Some(step) => Err(ScheduleError::AddsNoNoise {
                step,
                alpha_bar: alpha_bar[step],
            }),
        }
    }

    /// The process that visits only the steps kept by `respacing`, with the same `alpha_bar` at each.
    ///
    /// ```text
    /// beta'_j = 1 - alpha_bar[i_j] / alpha_bar[i_{j-1}]        timestep_map[j] = i_j
    /// ```
    /// Respacing a respaced process keeps some of its steps; the map still holds the original timesteps.
    ///
    /// # Errors
    /// Fails for the same reasons as [`Respacing::indices`], or if fewer than 2 steps are kept.
    pub fn respaced(&self, respacing: &Respacing) -> Result<Self> {
        self.keeping(&respacing.indices(self.n_steps())?)
    }

    /// Like [`respaced`](Self::respaced), with a list of steps, ascending and distinct.
    ///
    /// # Errors
    /// Fails if there are fewer than 2 steps (1 of a process [`of_diffusers`](Self::of_diffusers)), or if they are not ascending or out of range.
    pub fn keeping(&self, kept: &[usize]) -> Result<Self> {
        let sound = kept.is_sorted_by(|a, b| a < b) && kept.last() < Some(&self.n_steps());
        if !sound {
            return Err(ScheduleError::BadSteps {
                n_steps: self.n_steps(),
                kept: kept.to_vec(),
            });
        }
        let mut alpha_bar: Vec<f64> = kept.iter().map(|&i| self.alpha_bar[i]).collect();
        let betas = Self::betas_of(&alpha_bar, self.arithmetic);
        if self.arithmetic == Arithmetic::Double {
            alpha_bar = product(&betas);
        }
        let map = kept.iter().map(|&i| self.timestep_map[i]).collect();
        let n = self.n_original_steps;
        Self::build(betas, alpha_bar, map, n, self.arithmetic)
    }

    /// Like [`keeping`](Self::keeping), for a DDIM sampler that steps from `t` to `t - stride`, as diffusers' does, instead of to the kept
    /// step below (`None`). Below the first step it steps to `alpha_bar = last`.
    ///
    /// # Errors
    /// Fails for the same reasons as [`keeping`](Self::keeping).
    pub fn striding(&self, kept: &[usize], stride: Option<usize>, last: f64) -> Result<Self> {
        let mut short = self.keeping(kept)?;
        let before = |j: usize| match stride {
            Some(stride) => kept[j].checked_sub(stride),
            None => j.checked_sub(1).map(|below| kept[below]),
        };
        short.alpha_bar_ddim = (0..kept.len())
            .map(|j| before(j).map_or(last, |i| self.alpha_bar[i]))
            .collect();
        Ok(short)
    }

    /// The betas between levels that follow each other.
    fn betas_of(alpha_bar: &[f64], arithmetic: Arithmetic) -> Vec<f64> {
        let mut last = 1.0;
        let mut betas = Vec::with_capacity(alpha_bar.len());
        for &bar in alpha_bar {
            betas.push(arithmetic.beta(bar, last));
            last = bar;
        }
        betas
    }

    fn build(
        betas: Vec<f64>,
        alpha_bar: Vec<f64>,
        timestep_map: Vec<usize>,
        n_original_steps: usize,
        arithmetic: Arithmetic,
    ) -> Result<Self> {
        let n = betas.len();
        let min = match arithmetic {
            // diffusers samples in one step too.
            Arithmetic::Single if n < n_original_steps => 1,
            _ => 2,
        };
        if n < min {
            let what = "a diffusion process";
            return Err(ScheduleError::TooFewSteps { what, n, min });
        }
        let betas = check_betas(betas)?;
        let alpha_bar_prev: Vec<f64> = std::iter::once(1.0)
            .chain(alpha_bar[..n - 1].iter().copied())
            .collect();
        let alpha_bar_next = alpha_bar[1..].iter().copied().chain([0.0]).collect();
        let map = |f: fn(f64) -> f64| -> Vec<f64> { alpha_bar.iter().map(|&a| f(a)).collect() };
        let per_step = |f: &dyn Fn(f64, f64, f64) -> f64| -> Vec<f64> {
            let values = betas.iter().zip(&alpha_bar).zip(&alpha_bar_prev);
            values
                .map(|((&beta, &bar), &prev)| f(beta, bar, prev))
                .collect()
        };
        // Summands and factors in the order of the reference, because this decides the rounding.
        let (posterior_variance, posterior_mean_coef1, posterior_mean_coef2) = match arithmetic {
            Arithmetic::Double => (
                per_step(&|beta, bar, prev| beta * (1.0 - prev) / (1.0 - bar)),
                per_step(&|beta, bar, prev| beta * prev.sqrt() / (1.0 - bar)),
                per_step(&|beta, bar, prev| (1.0 - prev) * (1.0 - beta).sqrt() / (1.0 - bar)),
            ),
            Arithmetic::Single => {
                let r = |x| Arithmetic::Single.round(x);
                let alpha = |bar: f64, prev: f64| match prev {
                    0.0 => 0.0,
                    _ => r(r(bar / prev).sqrt()),
                };
                (
                    per_step(&|beta, bar, prev| r(r(r(1.0 - prev) / r(1.0 - bar)) * beta)),
                    per_step(&|beta, bar, prev| r(r(r(prev.sqrt()) * beta) / r(1.0 - bar))),
                    per_step(&|_, bar, prev| r(r(alpha(bar, prev) * r(1.0 - prev)) / r(1.0 - bar))),
                )
            }
        };
        // The variance of the first step is zero, so its logarithm is that of the second, if there is one.
        let posterior_log_variance_clipped = (0..n)
            .map(|t| posterior_variance[t.max(1).min(n - 1)].ln())
            .collect();
        Ok(Self {
            n_original_steps,
            timestep_map,
            sqrt_alpha_bar: map(f64::sqrt),
            sqrt_one_minus_alpha_bar: map(|a| (1.0 - a).sqrt()),
            log_one_minus_alpha_bar: map(|a| (1.0 - a).ln()),
            sqrt_recip_alpha_bar: map(|a| (1.0 / a).sqrt()),
            sqrt_recipm1_alpha_bar: map(|a| (1.0 / a - 1.0).sqrt()),
            posterior_mean_coef1,
            posterior_mean_coef2,
            // Computed like in the reference; algebraically alpha_bar / (1 - alpha_bar).
            snr: map(|a| 1.0 / (1.0 - a) - 1.0),
            posterior_variance,
            posterior_log_variance_clipped,
            arithmetic,
            betas,
            alpha_bar_ddim: alpha_bar_prev.clone(),
            alpha_bar_prev,
            alpha_bar_next,
            alpha_bar,
        })
    }

    /// Number of steps of this process.
    #[must_use]
    pub fn n_steps(&self) -> usize {
        self.betas.len()
    }

    /// Number of steps of the original process (this one's if it was not respaced).
    #[must_use]
    pub fn n_original_steps(&self) -> usize {
        self.n_original_steps
    }

    /// The original timestep of every step, which the network is given.
    #[must_use]
    pub fn timestep_map(&self) -> &[usize] {
        &self.timestep_map
    }

    /// `beta_t`, the variance of the noise added by step `t`.
    #[must_use]
    pub fn betas(&self) -> &[f64] {
        &self.betas
    }

    /// `alpha_bar_t`, the share of the image's variance after step `t`.
    #[must_use]
    pub fn alpha_bar(&self) -> &[f64] {
        &self.alpha_bar
    }

    /// `alpha_bar_{t-1}`, 1 for the first step.
    #[must_use]
    pub fn alpha_bar_prev(&self) -> &[f64] {
        &self.alpha_bar_prev
    }

    /// `alpha_bar` of the level that DDIM steps to: [`alpha_bar_prev`](Self::alpha_bar_prev), unless the process was made by
    /// [`striding`](Self::striding).
    #[must_use]
    pub fn alpha_bar_ddim(&self) -> &[f64] {
        &self.alpha_bar_ddim
    }

    /// `alpha_bar_{t+1}`, 0 for the last step.
    #[must_use]
    pub fn alpha_bar_next(&self) -> &[f64] {
        &self.alpha_bar_next
    }

    /// `sqrt(alpha_bar_t)`, the factor of `x0` in `x_t`.
    #[must_use]
    pub fn sqrt_alpha_bar(&self) -> &[f64] {
        &self.sqrt_alpha_bar
    }

    /// `sqrt(1 - alpha_bar_t)`, the factor of `eps` in `x_t`.
    #[must_use]
    pub fn sqrt_one_minus_alpha_bar(&self) -> &[f64] {
        &self.sqrt_one_minus_alpha_bar
    }

    /// `ln(1 - alpha_bar_t)`, the log variance of `q(x_t | x0)`.
    #[must_use]
    pub fn log_one_minus_alpha_bar(&self) -> &[f64] {
        &self.log_one_minus_alpha_bar
    }

    /// `sqrt(1 / alpha_bar_t)`, the factor of `x_t` in the predicted `x0`.
    #[must_use]
    pub fn sqrt_recip_alpha_bar(&self) -> &[f64] {
        &self.sqrt_recip_alpha_bar
    }

    /// `sqrt(1 / alpha_bar_t - 1)`, the factor of `-eps` in the predicted `x0`.
    #[must_use]
    pub fn sqrt_recipm1_alpha_bar(&self) -> &[f64] {
        &self.sqrt_recipm1_alpha_bar
    }

    /// The variance of `q(x_{t-1} | x_t, x0)`, 0 for the first step.
    #[must_use]
    pub fn posterior_variance(&self) -> &[f64] {
        &self.posterior_variance
    }

    /// The logarithm of [`posterior_variance`](Self::posterior_variance), with the second step's value for the first step.
    #[must_use]
    pub fn posterior_log_variance_clipped(&self) -> &[f64] {
        &self.posterior_log_variance_clipped
    }

    /// The factor of `x0` in the mean of `q(x_{t-1} | x_t, x0)`.
    #[must_use]
    pub fn posterior_mean_coef1(&self) -> &[f64] {
        &self.posterior_mean_coef1
    }

    /// The factor of `x_t` in the mean of `q(x_{t-1} | x_t, x0)`.
    #[must_use]
    pub fn posterior_mean_coef2(&self) -> &[f64] {
        &self.posterior_mean_coef2
    }

    /// `SNR_t = alpha_bar_t / (1 - alpha_bar_t)`.
    #[must_use]
    pub fn snr(&self) -> &[f64] {
        &self.snr
    }
}

/// `prod (1 - beta)` up to each step.
fn product(betas: &[f64]) -> Vec<f64> {
    let steps = betas.iter().scan(1.0, |product, beta| {
        *product *= 1.0 - beta;
        Some(*product)
    });
    steps.collect()
}

/// Like PyTorch's `cumprod` in f32: differences in f32, their product in f64, rounded to f32 at each step.
fn product_in_f32(betas: &[f64]) -> Vec<f64> {
    let steps = betas.iter().scan(1.0, |product, &beta| {
        *product *= f64::from(1.0 - beta as f32);
        Some(f64::from(*product as f32))
    });
    steps.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_precision_tables_are_those_of_the_reference() {
        let betas = crate::linear_betas(1e-4, 0.02, 1000).unwrap();
        let rounded = Schedule::from_betas_in_f32(&betas).unwrap();
        for (t, expected) in [(499, 0.078_587_248_92), (999, 4.035_829_988e-5)] {
            let found = rounded.alpha_bar()[t];
            assert!((found / expected - 1.0).abs() < 1e-9, "{t}: {found}");
        }
        assert_eq!(rounded.betas()[0], f64::from(1e-4f32));
    }

    #[test]
    fn listed_steps_must_be_ascending_and_in_range() {
        let full = Schedule::new(BetaSchedule::Linear, 1000).unwrap();
        let kept = full.keeping(&[0, 12, 500]).unwrap();
        assert_eq!(kept.timestep_map(), [0, 12, 500]);
        assert_eq!(kept.alpha_bar()[1], full.alpha_bar()[12]);
        for wrong in [&[5, 5][..], &[7, 3], &[0, 1000], &[]] {
            let refused = full.keeping(wrong);
            assert!(
                matches!(
                    refused,
                    Err(ScheduleError::BadSteps { .. } | ScheduleError::TooFewSteps { .. })
                ),
                "{wrong:?}"
            );
        }
    }
}
