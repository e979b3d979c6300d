//! Maps uniform numbers to timesteps.

use crate::{
    error::{Result, ScheduleError},
    moments::LossSecondMoment,
};

/// A timestep and its importance weight, which keeps the expectation of the loss that of uniform sampling.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TimestepDraw {
    /// The timestep.
    pub t: usize,
    /// Its importance weight `1 / (T p_t)`.
    pub weight: f64,
}

/// How the timesteps of a training batch are drawn.
///
/// It draws no random numbers itself: the caller passes uniform numbers.
///
/// Code reference: guided-diffusion `create_named_schedule_sampler`.
#[derive(Debug, Clone, PartialEq)]
pub enum TimestepSampler {
    /// Every timestep is equally likely, with weight 1.
    Uniform {
        /// Number of timesteps `T`.
        n_steps: usize,
    },
    /// Timesteps are drawn in proportion to the root mean square of their recent losses.
    LossSecondMoment(LossSecondMoment),
    /// Timesteps are drawn in proportion to given weights, each with importance weight 1: the expectation is meant to change.
    ///
    /// Code reference: thuml/Diffusion-Tuning `train.py`.
    Weighted(WeightedTimesteps),
}

impl TimestepSampler {
    /// The sampler `uniform`, `loss-second-moment` or `power-P` over `n_steps` timesteps. `power-P` draws timestep `t` in proportion to
    /// `(t + 1)^P`, so that it prefers noise; `power-0` is `uniform`.
    ///
    /// # Errors
    /// Fails if the name is unknown or `n_steps` is 0.
    pub fn named(name: &str, n_steps: usize) -> Result<Self> {
        if n_steps == 0 {
            let (what, min) = ("a timestep sampler", 1);
            return Err(ScheduleError::TooFewSteps { what, n: 0, min });
        }
        match name {
            "uniform" => Ok(Self::Uniform { n_steps }),
            "loss-second-moment" => Ok(Self::LossSecondMoment(LossSecondMoment::new(n_steps)?)),
            _ => {
                let power = name.strip_prefix("power-").and_then(|p| p.parse().ok());
                let Some(power) = power.filter(|p: &f64| p.is_finite() && *p >= 0.0) else {
                    let name = name.to_owned();
                    return Err(ScheduleError::UnknownSampler { name });
                };
                let steps = (1..=n_steps).map(|t| (t as f64 / n_steps as f64).powf(power));
                let weights: Vec<f64> = steps.collect();
                Ok(Self::Weighted(WeightedTimesteps::new(&weights)?))
            }
        }
    }

    /// One timestep for each uniform number.
    ///
    /// # Units
    /// - `uniforms` in [0, 1); other values are clamped
    #[must_use]
    pub fn sample(&self, uniforms: &[f64]) -> Vec<TimestepDraw> {
        match self {
            Self::Uniform { n_steps } => uniforms
                .iter()
                .map(|u| TimestepDraw {
                    // The cast saturates at 0.
                    t: ((u * *n_steps as f64) as usize).min(n_steps.saturating_sub(1)),
                    weight: 1.0,
                })
                .collect(),
            Self::LossSecondMoment(history) => history.sample(uniforms),
            Self::Weighted(weighted) => uniforms
                .iter()
                .map(|&u| TimestepDraw {
                    t: weighted.sample(u),
                    weight: 1.0,
                })
                .collect(),
        }
    }

    /// Adds the (unweighted) loss of a timestep to the history; does nothing for samplers without one.
    ///
    /// # Errors
    /// Fails if `t` is out of range or `loss` is not finite.
    pub fn update(&mut self, t: usize, loss: f64) -> Result<()> {
        match self {
            Self::LossSecondMoment(history) => history.update(t, loss),
            Self::Uniform { n_steps } => check(t, *n_steps),
            Self::Weighted(weighted) => check(t, weighted.cumulative.len()),
        }
    }
}

fn check(t: usize, n_steps: usize) -> Result<()> {
    if t < n_steps {
        Ok(())
    } else {
        Err(ScheduleError::TimestepOutOfRange { t, n_steps })
    }
}

/// Draws timesteps in proportion to given weights, by inverting their cumulative sum.
///
/// For a loss `mean_t w_t l_t` with flat `l`, this sampler has the least variance: draw `t` here and multiply by the mean of `w`, instead of
/// drawing uniformly and multiplying by `w_t`. The expectation is the same.
/// ```text
/// E_{t ~ w / sum w}[ l_t ] * mean(w) = (1/T) sum_t w_t l_t
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct WeightedTimesteps {
    cumulative: Vec<f64>,
    last_possible: usize,
}

impl WeightedTimesteps {
    /// A sampler for timesteps `0..weights.len()`.
    ///
    /// # Errors
    /// Fails if a weight is negative or not finite, or if no weight is above zero.
    pub fn new(weights: &[f64]) -> Result<Self> {
        if let Some(index) = weights.iter().position(|w| !(w.is_finite() && *w >= 0.0)) {
            let value = weights[index];
            return Err(ScheduleError::BadWeight { index, value });
        }
        let Some(last_possible) = weights.iter().rposition(|w| *w > 0.0) else {
            return Err(ScheduleError::NoWeight { n: weights.len() });
        };
        let cumulative: Vec<f64> = weights
            .iter()
            .scan(0.0, |sum, weight| {
                *sum += weight;
                Some(*sum)
            })
            .collect();
        let total = cumulative[last_possible];
        if !total.is_finite() {
            return Err(ScheduleError::BadWeight {
                index: last_possible,
                value: total,
            });
        }
        Ok(Self {
            cumulative,
            last_possible,
        })
    }

    /// The timestep at the quantile `u` in [0, 1). A timestep of weight zero is never returned.
    #[must_use]
    pub fn sample(&self, u: f64) -> usize {
        // A quantile that is NaN or out of range gives the first or last timestep with weight above zero.
        let target = (u * self.total()).max(0.0);
        self.cumulative
            .partition_point(|&sum| sum <= target)
            .min(self.last_possible)
    }

    /// The mean weight over all timesteps, by which the loss at drawn timesteps is multiplied.
    #[must_use]
    pub fn mean(&self) -> f64 {
        self.total() / self.cumulative.len() as f64
    }

    /// The probability of timestep `t`; 0 if it is out of range.
    #[must_use]
    pub fn probability(&self, t: usize) -> f64 {
        let Some(upper) = self.cumulative.get(t) else {
            return 0.0;
        };
        let lower = if t == 0 { 0.0 } else { self.cumulative[t - 1] };
        (upper - lower) / self.total()
    }

    fn total(&self) -> f64 {
        self.cumulative[self.last_possible]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid(n: usize) -> Vec<f64> {
        (0..n).map(|i| (i as f64 + 0.5) / n as f64).collect()
    }

    #[test]
    fn uniform_sampler_covers_every_step_equally() {
        let sampler = TimestepSampler::named("uniform", 10).unwrap();
        let draws = sampler.sample(&grid(50));
        assert!(draws.iter().all(|draw| draw.weight == 1.0));
        assert!(draws.iter().map(|draw| draw.t).eq((0..50).map(|i| i / 5)));
        let ends = sampler.sample(&[0.0, 1.0, -3.0, f64::NAN, 1.0 - f64::EPSILON / 2.0]);
        assert_eq!(
            ends.iter().map(|draw| draw.t).collect::<Vec<_>>(),
            [0, 9, 0, 0, 9]
        );
    }

    #[test]
    fn a_power_prefers_noise_and_keeps_the_importance() {
        let draws = |name: &str, n_steps, uniforms: &[f64]| {
            let sampler = TimestepSampler::named(name, n_steps).unwrap();
            sampler.sample(uniforms)
        };
        // Weights 1, 4, 9 and 16, of 30.
        let mut counts = [0; 4];
        for draw in draws("power-2", 4, &grid(300)) {
            counts[draw.t] += 1;
            assert_eq!(draw.weight, 1.0);
        }
        assert_eq!(counts, [10, 40, 90, 160]);
        let uniforms: Vec<f64> = (0..5000).map(|i| f64::from(i) * 1.999e-4).collect();
        for n in [7, 10, 1000] {
            let all = draws("uniform", n, &uniforms);
            assert_eq!(draws("power-0", n, &uniforms), all, "{n}");
        }
        for wrong in ["power-", "power-x", "power--1", "power-inf", "power"] {
            assert!(TimestepSampler::named(wrong, 10).is_err(), "{wrong}");
        }
        let mut sampler = TimestepSampler::named("power-1", 10).unwrap();
        assert!(sampler.update(9, 1.0).is_ok() && sampler.update(10, 1.0).is_err());
    }

    #[test]
    fn unknown_names_and_steps_are_errors() {
        let error = TimestepSampler::named("random", 10).unwrap_err();
        assert!(error.to_string().contains("\"random\""));
        assert!(TimestepSampler::named("uniform", 0).is_err());
        let mut sampler = TimestepSampler::named("uniform", 10).unwrap();
        assert!(sampler.update(9, 1.0).is_ok());
        let error = sampler.update(10, 1.0).unwrap_err();
        assert_eq!(error.to_string(), "timestep 10 is outside 0..10");
    }

    #[test]
    fn weighted_draws_follow_the_weights() {
        let weights = [1.0, 0.0, 3.0, 4.0, 0.0];
        let sampler = WeightedTimesteps::new(&weights).unwrap();
        let mut counts = [0; 5];
        for u in grid(800) {
            counts[sampler.sample(u)] += 1;
        }
        assert_eq!(counts, [100, 0, 300, 400, 0]);
        assert_eq!(sampler.mean(), 1.6);
        assert_eq!(
            (0..6).map(|t| sampler.probability(t)).collect::<Vec<_>>(),
            [0.125, 0.0, 0.375, 0.5, 0.0, 0.0]
        );
    }

    #[test]
    fn steps_of_weight_zero_are_never_drawn_at_the_ends() {
        let sampler = WeightedTimesteps::new(&[0.0, 0.0, 2.0, 0.0]).unwrap();
        for u in [-1.0, 0.0, 0.5, 1.0 - f64::EPSILON / 2.0, 1.0, 2.0, f64::NAN] {
            assert_eq!(sampler.sample(u), 2, "quantile {u}");
        }
    }

    #[test]
    fn invalid_weights_are_refused() {
        assert_eq!(
            WeightedTimesteps::new(&[]),
            Err(ScheduleError::NoWeight { n: 0 })
        );
        assert_eq!(
            WeightedTimesteps::new(&[0.0; 3]),
            Err(ScheduleError::NoWeight { n: 3 })
        );
        for bad in [-1.0, f64::NAN, f64::INFINITY] {
            let error = WeightedTimesteps::new(&[1.0, bad]).unwrap_err();
            assert!(matches!(error, ScheduleError::BadWeight { index: 1, .. }));
        }
        assert!(WeightedTimesteps::new(&[f64::MAX, f64::MAX]).is_err());
    }
}
