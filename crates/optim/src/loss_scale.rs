//! The factor that keeps small gradients above the smallest half numbers.

use crate::error::{Result, check_range};

/// The largest factor.
const MOST: f64 = 16_777_216.0;

/// Dynamic loss scaling: the loss is multiplied by a factor before its gradient is taken, and the gradient divided by it after. A gradient
/// that overflows halves the factor; many steps without an overflow double it.
///
/// Code reference: torch `GradScaler`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LossScale {
    scale: f64,
    good_steps: u64,
    growth_interval: u64,
}

impl LossScale {
    /// Begins with `scale`, which doubles after `growth_interval` steps without an overflow.
    ///
    /// # Errors
    /// `scale` is outside 1 to 2^24, or `growth_interval` is 0.
    pub fn new(scale: f64, growth_interval: u64) -> Result<Self> {
        check_range(
            (1.0..=MOST).contains(&scale),
            "loss scale",
            scale,
            "[1, 2^24]",
        )?;
        let interval = growth_interval as f64;
        check_range(growth_interval > 0, "growth interval", interval, "[1, inf)")?;
        Ok(Self {
            scale,
            good_steps: 0,
            growth_interval,
        })
    }

    /// Continues from a saved scale and number of good steps.
    #[must_use]
    pub fn continued(&self, scale: f64, good_steps: u64) -> Self {
        Self {
            scale,
            good_steps,
            ..*self
        }
    }

    /// The factor of the loss.
    #[must_use]
    pub fn scale(&self) -> f64 {
        self.scale
    }

    /// Steps since it last changed.
    #[must_use]
    pub fn good_steps(&self) -> u64 {
        self.good_steps
    }

    /// Steps without an overflow after which it doubles.
    #[must_use]
    pub fn growth_interval(&self) -> u64 {
        self.growth_interval
    }

    /// After a finite gradient.
    pub(crate) fn went_well(&mut self) {
        self.good_steps += 1;
        if self.good_steps >= self.growth_interval {
            self.scale = (self.scale * 2.0).min(MOST);
            self.good_steps = 0;
        }
    }

    /// After a gradient that was not finite.
    pub(crate) fn overflowed(&mut self) {
        self.scale = (self.scale / 2.0).max(1.0);
        self.good_steps = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overflows_halve_and_long_times_without_double() {
        let mut scale = LossScale::new(8.0, 3).unwrap();
        scale.overflowed();
        assert_eq!((scale.scale(), scale.good_steps()), (4.0, 0));
        for _ in 0..2 {
            scale.went_well();
        }
        assert_eq!((scale.scale(), scale.good_steps()), (4.0, 2));
        scale.overflowed();
        assert_eq!((scale.scale(), scale.good_steps()), (2.0, 0));
        for _ in 0..3 {
            scale.went_well();
        }
        assert_eq!((scale.scale(), scale.good_steps()), (4.0, 0));
        for _ in 0..5 {
            scale.overflowed();
        }
        assert_eq!(scale.scale(), 1.0);
        let mut scale = scale.continued(MOST, 2);
        scale.went_well();
        assert_eq!(scale.scale(), MOST);
        assert!(LossScale::new(0.5, 3).is_err() && LossScale::new(2.0, 0).is_err());
    }
}
