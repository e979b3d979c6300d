//! Learning rates over the steps of a run.

use std::f64::consts::PI;

use crate::error::{Result, check_range};

/// The decay of a learning rate after its warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Decay {
    /// No decay.
    #[default]
    Constant,
    /// `1 - step / steps`, then 0: the annealing of guided-diffusion.
    Linear {
        /// The step at which it is 0, > 0.
        steps: u64,
    },
    /// Half a cosine from 1 at step 0 down to `floor` at `steps`, and `floor` from there on.
    Cosine {
        /// The step at which `floor` is reached, > 0.
        steps: u64,
        /// The final factor, in [0, 1].
        floor: f64,
    },
    /// Times `factor` after every `every` steps: torch's `StepLR`.
    Step {
        /// Steps of one rate, > 0.
        every: u64,
        /// In [0, 1].
        factor: f64,
    },
}

/// The learning rate of every step, a pure function, so that a resumed run needs no state.
///
/// ```text
/// lr(step) = base * min(1, (step + 1) / warmup_steps) * decay(step)          step = updates made before
/// ```
/// Choice: guided-diffusion anneals after its step and before it counts it, so its update `step` has the factor of `step - 1`;
/// here, as in the parity fixtures, update `step` has the factor of `step`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LearningRate {
    /// The rate after warm-up and before decay, >= 0.
    pub base: f64,
    /// Steps over which the rate rises linearly from `base / warmup_steps` to `base`; 0 or 1 for none.
    pub warmup_steps: u64,
    /// The decay after the warm-up.
    pub decay: Decay,
}

impl LearningRate {
    /// The same rate for every step.
    #[must_use]
    pub fn constant(base: f64) -> Self {
        Self {
            base,
            warmup_steps: 0,
            decay: Decay::Constant,
        }
    }

    /// The learning rate of the update that follows `step` earlier ones.
    #[must_use]
    pub fn at(&self, step: u64) -> f64 {
        let share = |steps: u64| {
            if step >= steps {
                1.0
            } else {
                step as f64 / steps as f64
            }
        };
        let warmup = if step < self.warmup_steps {
            (step + 1) as f64 / self.warmup_steps as f64
        } else {
            1.0
        };
        let decay = match self.decay {
            Decay::Constant => 1.0,
            Decay::Linear { steps } => 1.0 - share(steps),
            Decay::Cosine { steps, floor } => {
                floor + (1.0 - floor) * 0.5 * (1.0 + (PI * share(steps)).cos())
            }
            Decay::Step { every, factor } => factor.powf((step / every.max(1)) as f64),
        };
        self.base * warmup * decay
    }

    /// Whether every number is in its range.
    ///
    /// # Errors
    /// A number is outside its range; the message names both.
    pub fn check(&self) -> Result<()> {
        let inside = self.base >= 0.0 && self.base.is_finite();
        check_range(inside, "learning rate", self.base, "[0, inf)")?;
        match self.decay {
            Decay::Constant => Ok(()),
            Decay::Linear { steps } => {
                check_range(steps > 0, "decay steps", steps as f64, "[1, inf)")
            }
            Decay::Cosine { steps, floor } => {
                check_range(steps > 0, "decay steps", steps as f64, "[1, inf)")?;
                check_range((0.0..=1.0).contains(&floor), "decay floor", floor, "[0, 1]")
            }
            Decay::Step { every, factor } => {
                check_range(every > 0, "decay steps", every as f64, "[1, inf)")?;
                check_range(
                    (0.0..=1.0).contains(&factor),
                    "decay factor",
                    factor,
                    "[0, 1]",
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(warmup_steps: u64, decay: Decay) -> LearningRate {
        LearningRate {
            base: 0.5,
            warmup_steps,
            decay,
        }
    }

    #[test]
    fn warm_up_rises_to_the_base_and_stays() {
        let lr = rate(4, Decay::Constant);
        let got: Vec<f64> = (0..6).map(|step| lr.at(step)).collect();
        assert_eq!(got, [0.125, 0.25, 0.375, 0.5, 0.5, 0.5]);
        assert_eq!(LearningRate::constant(0.5).at(0), 0.5);
        assert_eq!(rate(1, Decay::Constant).at(0), 0.5);
    }

    #[test]
    fn linear_decay_ends_at_zero() {
        let lr = rate(0, Decay::Linear { steps: 4 });
        let got: Vec<f64> = (0..6).map(|step| lr.at(step)).collect();
        assert_eq!(got, [0.5, 0.375, 0.25, 0.125, 0.0, 0.0]);
    }

    #[test]
    fn step_decay_is_that_of_torch() {
        let decay = Decay::Step {
            every: 3,
            factor: 0.1,
        };
        let lr = rate(0, decay);
        let got: Vec<f64> = (0..7).map(|step| lr.at(step)).collect();
        for (got, expected) in got.iter().zip([0.5, 0.5, 0.5, 0.05, 0.05, 0.05, 0.005]) {
            assert!((got - expected).abs() < 1e-15, "{got} {expected}");
        }
        let broken = Decay::Step {
            every: 0,
            factor: 0.1,
        };
        assert!(rate(0, broken).check().is_err());
    }

    #[test]
    fn cosine_decay_falls_to_its_floor() {
        let decay = Decay::Cosine {
            steps: 100,
            floor: 0.1,
        };
        let lr = rate(0, decay);
        assert_eq!(lr.at(0), 0.5);
        assert!((lr.at(50) - 0.275).abs() < 1e-15);
        assert!((lr.at(100) - 0.05).abs() < 1e-15 && lr.at(u64::MAX) == lr.at(100));
        assert!((0..100).all(|step| lr.at(step) > lr.at(step + 1)));
        let warm = rate(10, decay);
        assert_eq!(warm.at(4), lr.at(4) * 0.5);
        assert_eq!(warm.at(60), lr.at(60));
    }

    #[test]
    fn numbers_outside_their_range_are_named() {
        for (lr, message) in [
            (
                LearningRate::constant(-1.0),
                "learning rate = -1 is outside [0, inf)",
            ),
            (
                LearningRate::constant(f64::NAN),
                "learning rate = NaN is outside [0, inf)",
            ),
            (
                rate(0, Decay::Linear { steps: 0 }),
                "decay steps = 0 is outside [1, inf)",
            ),
            (
                rate(
                    0,
                    Decay::Cosine {
                        steps: 1,
                        floor: 1.5,
                    },
                ),
                "decay floor = 1.5 is outside [0, 1]",
            ),
        ] {
            assert_eq!(lr.check().unwrap_err().to_string(), message);
        }
        assert!(rate(5, Decay::Linear { steps: 3 }).check().is_ok());
    }
}
