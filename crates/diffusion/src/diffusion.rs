//! A process on tensors: noise levels, posterior, reverse step.

use crate::level::per_image;
use crate::{Continuous, Denoiser, Level, Prediction, Sampling, predict_at};
use candle_core::{Result, Tensor, bail};
use sdft_schedule::Schedule;
use std::borrow::Cow;

/// The least variance of a step, of which a logarithm is taken (diffusers `_get_variance`).
const LEAST_VARIANCE: f64 = 1e-20;

/// Where the variance of a reverse step comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variance {
    /// Between the posterior's and beta, by the network's logits (`LEARNED_RANGE`).
    LearnedRange,
    /// Beta, with the posterior's value at a first step that adds no noise (`FIXED_LARGE`).
    FixedLarge,
    /// The posterior's (`FIXED_SMALL`).
    FixedSmall,
}

/// The time that a network is called with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeUnit {
    /// The original step numbers.
    Steps,
    /// Thousandths of the process (guided-diffusion's `rescale_timesteps`).
    Thousandths,
    /// EDM's noise level, `sigma = sqrt((1 - alpha_bar) / alpha_bar)`.
    Sigma,
    /// The time of a flow, `tau = sigma / (1 + sigma)`, 0 to 1.
    Tau,
}

/// A diffusion process on tensors: a schedule, the kind of variance, and the unit of time that the network is called with.
#[derive(Clone, Debug)]
pub struct Diffusion {
    /// The steps, respaced or not.
    pub schedule: Schedule,
    /// The variance of a reverse step.
    pub variance: Variance,
    /// The time that the network is called with.
    pub time: TimeUnit,
    /// The continuous process that the network was trained on; the schedule is then a discrete view of it.
    pub continuous: Option<Continuous>,
    /// Whether the states have no range; see [`Process::unbounded`](crate::Process::unbounded).
    pub unbounded: bool,
    /// How diffusers' schedulers sample; `None` samples as guided-diffusion does.
    pub sampling: Option<Sampling>,
}

/// Mean and variance of `q(x_t | x_0)` or `q(x_{t-1} | x_t, x_0)`.
#[derive(Clone, Debug)]
pub struct Moments {
    /// `[B, C, H, W]`.
    pub mean: Tensor,
    /// `[B, 1, 1, 1]`.
    pub variance: Tensor,
    /// `[B, 1, 1, 1]`; for the posterior, the value of step 1 replaces the zero variance of step 0.
    pub log_variance: Tensor,
}

/// Mean and variance of `p(x_{t-1} | x_t)`, as a network predicts them.
#[derive(Clone, Debug)]
pub struct Reverse {
    /// `[B, C, H, W]`.
    pub mean: Tensor,
    /// `[B, C, H, W]`, or `[B, 1, 1, 1]` where the variance is not learned.
    pub variance: Tensor,
    /// As `variance`.
    pub log_variance: Tensor,
    /// The predicted clean image, clamped with [`Clip::Yes`].
    pub x0: Tensor,
}

/// Whether a predicted clean image is clamped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clip {
    /// Clamped as [`Diffusion::sampling`] specifies, otherwise to [-1, 1], the default of every sampling script, unless the states are
    /// [unbounded](Diffusion::unbounded).
    Yes,
    /// Left as predicted, for inversion and for the variational term.
    No,
}

impl Diffusion {
    /// A process that calls the network with the original step numbers.
    pub fn new(schedule: Schedule, variance: Variance) -> Self {
        Self {
            schedule,
            variance,
            time: TimeUnit::Steps,
            continuous: None,
            unbounded: false,
            sampling: None,
        }
    }

    /// Number of steps of this process.
    pub fn n_steps(&self) -> usize {
        self.schedule.n_steps()
    }

    /// The noise levels of all steps, in order.
    pub fn all_levels(&self) -> Vec<Level> {
        let steps = self.schedule.timestep_map().iter().enumerate();
        let levels = steps.zip(self.schedule.alpha_bar());
        levels
            .map(|((step, &original), &alpha_bar)| self.level(step, original, alpha_bar))
            .collect()
    }

    /// The noise levels of steps `t` of this process.
    ///
    /// # Errors
    /// An entry of `t` beyond the last step.
    pub fn levels(&self, t: &[usize]) -> Result<Vec<Level>> {
        let (originals, table) = (self.schedule.timestep_map(), self.schedule.alpha_bar());
        t.iter()
            .map(|&t| match (originals.get(t), table.get(t)) {
                (Some(&original), Some(&alpha_bar)) => Ok(self.level(t, original, alpha_bar)),
                _ => bail!("timestep {t} is outside 0..{}", self.n_steps()),
            })
            .collect()
    }

    #[expect(clippy::cast_possible_truncation, reason = "networks compute in f32")]
    fn level(&self, step: usize, original: usize, alpha_bar: f64) -> Level {
        let level = Level {
            alpha_bar,
            t: original as f32,
            step: Some(step),
        };
        let t = match self.time {
            TimeUnit::Steps => level.t,
            // The reference multiplies in f32.
            TimeUnit::Thousandths => {
                level.t * (1000.0 / self.schedule.n_original_steps() as f64) as f32
            }
            TimeUnit::Sigma => level.sigma() as f32,
            TimeUnit::Tau => level.tau() as f32,
        };
        Level { t, ..level }
    }

    /// The times that the network is called with for steps `t` of this process.
    ///
    /// # Errors
    /// As [`Self::levels`].
    pub fn model_t(&self, t: &[usize]) -> Result<Vec<f32>> {
        Ok(self.levels(t)?.iter().map(|level| level.t).collect())
    }

    /// The times of steps `t` for a network of [`Process::discrete`](crate::Process::discrete), such as a classifier of noised images.
    ///
    /// # Errors
    /// As [`Self::levels`].
    pub fn discrete_t(&self, t: &[usize]) -> Result<Vec<f32>> {
        if !self.takes_any_level() {
            return self.model_t(t);
        }
        let steps = self.levels(t)?;
        let originals = steps.iter().filter_map(|level| level.step);
        Ok(originals
            .map(|step| self.schedule.timestep_map()[step] as f32)
            .collect())
    }

    /// Whether the network is called with a level itself instead of a step.
    fn takes_any_level(&self) -> bool {
        matches!(self.time, TimeUnit::Sigma | TimeUnit::Tau)
    }

    /// The level at the time `tau` of a flow, 0 to 1, as [`Self::level_near`].
    pub fn level_at_tau(&self, tau: f64) -> Level {
        match self.time {
            TimeUnit::Tau => Level::of_tau(tau),
            // At 1, pure noise, sigma is infinite.
            _ => self.level_near((tau / (1.0 - tau)).min(self.sigma_range().1)),
        }
    }

    /// The level of EDM's `sigma`, for samplers that choose their own levels. A network that is called with `sigma` or `tau` takes any; one that
    /// is called with steps gets the step whose `sigma` is nearest, so that state and time agree (EDM's `round_sigma`).
    pub fn level_near(&self, sigma: f64) -> Level {
        match self.time {
            TimeUnit::Sigma => return Level::of_sigma(sigma),
            TimeUnit::Tau => return Level::of_tau(sigma / (1.0 + sigma)),
            TimeUnit::Steps | TimeUnit::Thousandths => {}
        }
        let step = self.nearest_step(sigma);
        let (originals, table) = (self.schedule.timestep_map(), self.schedule.alpha_bar());
        self.level(step, originals[step], table[step])
    }

    /// The noise levels of the times that the network is called with, the inverse of [`Self::model_t`].
    ///
    /// # Errors
    /// A time that belongs to no step, unless the network is called with `sigma` or `tau`.
    pub fn levels_at(&self, times: &[f32]) -> Result<Vec<Level>> {
        let of: Option<fn(f64) -> Level> = match self.time {
            TimeUnit::Sigma => Some(Level::of_sigma),
            TimeUnit::Tau => Some(Level::of_tau),
            TimeUnit::Steps | TimeUnit::Thousandths => None,
        };
        if let Some(of) = of {
            return Ok(times.iter().map(|&t| of(f64::from(t))).collect());
        }
        let all = self.all_levels();
        let find = |&t: &f32| match all.iter().find(|level| level.t == t) {
            Some(&level) => Ok(level),
            None => bail!(
                "time {t}: expected the time of one of the {} steps",
                all.len()
            ),
        };
        times.iter().map(find).collect()
    }

    /// The step whose noise is nearest to EDM's `sigma`.
    pub fn nearest_step(&self, sigma: f64) -> usize {
        let sigmas = self.schedule.sqrt_recipm1_alpha_bar().iter();
        let distances = sigmas.map(|of_step| (of_step - sigma).abs()).enumerate();
        let nearest = distances.min_by(|(_, a), (_, b)| a.total_cmp(b));
        nearest.map_or(0, |(step, _)| step)
    }

    /// The smallest and largest finite `sigma` of the network.
    pub fn sigma_range(&self) -> (f64, f64) {
        if let Some(continuous) = &self.continuous {
            return continuous.sigma_range();
        }
        let sigmas = self.schedule.sqrt_recipm1_alpha_bar().iter().copied();
        sigmas
            .filter(|sigma| sigma.is_finite())
            .fold((f64::INFINITY, 0.0), |(low, high), sigma| {
                (low.min(sigma), high.max(sigma))
            })
    }

    /// `table[t]` for each image, shaped `[B, 1, 1, 1]` in the type and on the device of `like`.
    ///
    /// # Errors
    /// An entry of `t` beyond the table; a number of timesteps other than the batch.
    pub fn gather(&self, table: &[f64], t: &[usize], like: &Tensor) -> Result<Tensor> {
        let values = t.iter().map(|&t| match table.get(t) {
            Some(&value) => Ok(value),
            None => bail!("timestep {t} is outside 0..{}", table.len()),
        });
        per_image(&values.collect::<Result<Vec<_>>>()?, like)
    }

    /// `a[t] x + b[t] y`.
    fn mix(
        &self,
        t: &[usize],
        (a, x): (&[f64], &Tensor),
        (b, y): (&[f64], &Tensor),
    ) -> Result<Tensor> {
        x.broadcast_mul(&self.gather(a, t, x)?)? + y.broadcast_mul(&self.gather(b, t, y)?)?
    }

    /// Moments of `q(x_t | x_0)` (guided-diffusion `q_mean_variance`).
    ///
    /// # Errors
    /// As [`Self::q_sample`].
    pub fn q_moments(&self, x0: &Tensor, t: &[usize]) -> Result<Moments> {
        let s = &self.schedule;
        let one_minus: Vec<f64> = s.alpha_bar().iter().map(|a| 1.0 - a).collect();
        Ok(Moments {
            mean: x0.broadcast_mul(&self.gather(s.sqrt_alpha_bar(), t, x0)?)?,
            variance: self.gather(&one_minus, t, x0)?,
            log_variance: self.gather(s.log_one_minus_alpha_bar(), t, x0)?,
        })
    }

    /// Moments of `q(x_{t-1} | x_t, x_0)` (guided-diffusion `q_posterior_mean_variance`).
    ///
    /// # Errors
    /// As [`Self::q_sample`].
    pub fn q_posterior(&self, x0: &Tensor, xt: &Tensor, t: &[usize]) -> Result<Moments> {
        let s = &self.schedule;
        Ok(Moments {
            mean: self.mix(
                t,
                (s.posterior_mean_coef1(), x0),
                (s.posterior_mean_coef2(), xt),
            )?,
            variance: self.gather(s.posterior_variance(), t, xt)?,
            log_variance: self.gather(s.posterior_log_variance_clipped(), t, xt)?,
        })
    }

    /// `p(x_{t-1} | x_t)` from a network's prediction.
    ///
    /// Source: guided-diffusion `p_mean_variance`.
    ///
    /// # Errors
    /// As [`Self::q_sample`]; a learned variance where the network has none.
    pub fn reverse(
        &self,
        prediction: &Prediction,
        xt: &Tensor,
        t: &[usize],
        clip: Clip,
    ) -> Result<Reverse> {
        let s = &self.schedule;
        let x0 = self.clamped(self.x0(prediction, xt, t)?, clip)?;
        let mean = self.mix(
            t,
            (s.posterior_mean_coef1(), &x0),
            (s.posterior_mean_coef2(), xt),
        )?;
        let (variance, log_variance) = match self.variance {
            Variance::LearnedRange => {
                let Some(logits) = &prediction.variance else {
                    bail!(
                        "the process expects a learned variance, but the network's {} channels hold only its prediction",
                        prediction.output.dim(1)?
                    );
                };
                let log_betas: Vec<f64> = s.betas().iter().map(|b| b.ln()).collect();
                let low = self.gather(&self.log_posterior_variance(), t, xt)?;
                let high = self.gather(&log_betas, t, xt)?;
                let share = ((logits + 1.0)? * 0.5)?;
                let log_variance = share.broadcast_mul(&(high - &low)?)?.broadcast_add(&low)?;
                (log_variance.exp()?, log_variance)
            }
            Variance::FixedLarge => {
                let mut table = s.betas().to_vec();
                if !self.noise_enters(0)
                    && let (Some(first), Some(&second)) =
                        (table.first_mut(), s.posterior_variance().get(1))
                {
                    *first = second;
                }
                let logs: Vec<f64> = table.iter().map(|v| v.ln()).collect();
                (self.gather(&table, t, xt)?, self.gather(&logs, t, xt)?)
            }
            Variance::FixedSmall => (
                self.gather(s.posterior_variance(), t, xt)?,
                self.gather(&self.log_posterior_variance(), t, xt)?,
            ),
        };
        Ok(Reverse {
            mean,
            variance,
            log_variance,
            x0,
        })
    }

    /// The logarithm of the posterior's variance. Where the first step adds noise, its own variance counts, which is the least possible.
    fn log_posterior_variance(&self) -> Cow<'_, [f64]> {
        let table = self.schedule.posterior_log_variance_clipped();
        if !self.noise_enters(0) {
            return table.into();
        }
        let mut table = table.to_vec();
        if let Some(first) = table.first_mut() {
            *first = LEAST_VARIANCE.ln();
        }
        table.into()
    }

    /// Whether an ancestral step from `t` adds noise: above step 0 of this process, or, where diffusers samples, of the original process.
    pub fn noise_enters(&self, t: usize) -> bool {
        match self.sampling {
            None => t > 0,
            Some(_) => self.schedule.timestep_map().get(t) > Some(&0),
        }
    }

    /// The network's prediction for steps `t` of this process.
    ///
    /// # Errors
    /// As [`Self::model_t`] and [`Denoiser::predict`].
    pub fn predict(&self, denoiser: &dyn Denoiser, xt: &Tensor, t: &[usize]) -> Result<Prediction> {
        predict_at(denoiser, xt, &self.levels(t)?)
    }
}
