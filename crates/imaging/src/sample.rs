//! The arithmetic of resampling for each type of samples.

use crate::filter::{PRECISION, Taps, fixed_point};

/// A type of samples: how Pillow weights, adds and rounds it.
pub(crate) trait Sample: Copy {
    /// A weight.
    type Weight: Copy;
    /// A sum of weighted samples.
    type Sum: Copy;
    /// The sum of no samples.
    const START: Self::Sum;

    /// Weights in the form that sums need.
    fn weights(taps: Vec<Taps<f64>>) -> Vec<Taps<Self::Weight>>;

    /// Adds this sample to a sum.
    fn add_to(self, sum: Self::Sum, weight: Self::Weight) -> Self::Sum;

    /// Rounds a sum to a sample.
    fn from_sum(sum: Self::Sum) -> Self;
}

impl Sample for u8 {
    type Weight = i32;
    type Sum = i32;
    /// One half in fixed point, so that the final shift rounds.
    const START: i32 = 1 << (PRECISION - 1);

    fn weights(taps: Vec<Taps<f64>>) -> Vec<Taps<i32>> {
        fixed_point(taps)
    }

    #[inline]
    fn add_to(self, sum: i32, weight: i32) -> i32 {
        sum + i32::from(self) * weight
    }

    #[inline]
    fn from_sum(sum: i32) -> Self {
        (sum >> PRECISION).clamp(0, 255) as Self
    }
}

impl Sample for u16 {
    type Weight = f64;
    type Sum = f64;
    const START: f64 = 0.0;

    fn weights(taps: Vec<Taps<f64>>) -> Vec<Taps<f64>> {
        taps
    }

    #[inline]
    fn add_to(self, sum: f64, weight: f64) -> f64 {
        sum + f64::from(self) * weight
    }

    #[inline]
    fn from_sum(sum: f64) -> Self {
        // Casts truncate and clamp.
        (sum + 0.5) as Self
    }
}

impl Sample for f32 {
    type Weight = f64;
    type Sum = f64;
    const START: f64 = 0.0;

    fn weights(taps: Vec<Taps<f64>>) -> Vec<Taps<f64>> {
        taps
    }

    #[inline]
    fn add_to(self, sum: f64, weight: f64) -> f64 {
        sum + f64::from(self) * weight
    }

    #[inline]
    fn from_sum(sum: f64) -> Self {
        sum as Self
    }
}
