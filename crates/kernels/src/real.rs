//! The scalar types of the kernels.

use crate::Element;
use crate::simd::Fused;
use std::cell::RefCell;
use std::ops::{Add, AddAssign, Div, Mul, MulAssign, Sub};

/// A scalar type that the kernels are compiled for: f32 to work with, f64 to check against.
///
/// Implemented for these two only.
pub trait Real: Scalar + Element<Real = Self> {}

impl Real for f32 {}
impl Real for f64 {}

/// What kernels need of a scalar. Public in a private module, which seals [`Real`].
pub trait Scalar:
    Copy
    + Default
    + PartialOrd
    + Send
    + Sync
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + AddAssign
    + MulAssign
    + 'static
{
    /// `x`, rounded.
    fn from_f64(x: f64) -> Self;
    /// The same number as f64.
    fn to_f64(self) -> f64;
    /// `1 / (1 + exp(-x))`, for all finite and infinite x without overflow.
    fn sigmoid(self, fused: Fused) -> Self;
    /// The exponential.
    fn exp(self) -> Self;
    /// The slice itself if its type has the fast kernels.
    fn as_f32(x: &[Self]) -> Option<&[f32]>;
    /// The result of a fast kernel.
    fn from_f32(x: Vec<f32>) -> Vec<Self>;
    /// Calls `f` with two buffers of the calling thread, of these lengths and with arbitrary content.
    /// Kept between calls: fresh pages for every block would cost more than the arithmetic.
    fn with_scratch<R>(lengths: [usize; 2], f: impl FnOnce(&mut [Self], &mut [Self]) -> R) -> R;
}

/// The buffers of one thread.
struct Scratch<T>(RefCell<[Vec<T>; 2]>);

impl<T: Copy + Default> Scratch<T> {
    const fn new() -> Self {
        Self(RefCell::new([Vec::new(), Vec::new()]))
    }

    fn lend<R>(&self, lengths: [usize; 2], f: impl FnOnce(&mut [T], &mut [T]) -> R) -> R {
        let mut buffers = self.0.take();
        for (buffer, length) in buffers.iter_mut().zip(lengths) {
            if buffer.len() < length {
                buffer.resize(length, T::default());
            }
        }
        let [first, second] = &mut buffers;
        let result = f(&mut first[..lengths[0]], &mut second[..lengths[1]]);
        self.0.replace(buffers);
        result
    }
}

thread_local! {
    static SCRATCH_F32: Scratch<f32> = const { Scratch::new() };
    static SCRATCH_F64: Scratch<f64> = const { Scratch::new() };
}

impl Scalar for f32 {
    #[expect(clippy::cast_possible_truncation, reason = "rounds to f32")]
    #[inline]
    fn from_f64(x: f64) -> Self {
        x as f32
    }
    #[inline]
    fn to_f64(self) -> f64 {
        f64::from(self)
    }
    #[inline(always)]
    fn sigmoid(self, fused: Fused) -> Self {
        sigmoid_f32(self, fused)
    }
    #[inline(always)]
    fn exp(self) -> Self {
        exp_f32(self)
    }
    #[inline]
    fn as_f32(x: &[Self]) -> Option<&[f32]> {
        Some(x)
    }
    #[inline]
    fn from_f32(x: Vec<f32>) -> Vec<Self> {
        x
    }
    #[inline]
    fn with_scratch<R>(lengths: [usize; 2], f: impl FnOnce(&mut [Self], &mut [Self]) -> R) -> R {
        SCRATCH_F32.with(|scratch| scratch.lend(lengths, f))
    }
}

impl Scalar for f64 {
    #[inline]
    fn from_f64(x: f64) -> Self {
        x
    }
    #[inline]
    fn to_f64(self) -> f64 {
        self
    }
    #[inline]
    fn sigmoid(self, _: Fused) -> Self {
        1.0 / (1.0 + f64::exp(-self))
    }
    #[inline]
    fn exp(self) -> Self {
        f64::exp(self)
    }
    #[inline]
    fn as_f32(_: &[Self]) -> Option<&[f32]> {
        None
    }
    #[inline]
    fn from_f32(x: Vec<f32>) -> Vec<Self> {
        x.into_iter().map(f64::from).collect()
    }
    #[inline]
    fn with_scratch<R>(lengths: [usize; 2], f: impl FnOnce(&mut [Self], &mut [Self]) -> R) -> R {
        SCRATCH_F64.with(|scratch| scratch.lend(lengths, f))
    }
}

/// `ln(2)` in two parts, so that `x - n ln(2)` is exact.
const LN2_HI: f32 = 0.693_359_4;
const LN2_LO: f32 = -2.121_944_4e-4;
/// Adding and taking away 1.5 * 2^23 rounds to the nearest integer and leaves it in the low bits.
const ROUND: f32 = 12_582_912.0;

/// `1 / (1 + exp(-x))` without branches or calls, as [`exp_f32`] but with a single factor 2^n: where that overflows to infinity, from
/// x = -88.4 down, the result is 0 instead of a number below 5e-39.
#[inline(always)]
fn sigmoid_f32(x: f32, fused: Fused) -> f32 {
    // The comparisons let NaN through. 127.5 ln(2) and more gives n = 128.
    let y = -x;
    let y = if y > 89.0 { 89.0 } else { y };
    let y = if y < -87.0 { -87.0 } else { y };
    let shifted = fused.mul_add(y, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = fused.mul_add(-n, LN2_LO, fused.mul_add(-n, LN2_HI, y));
    let high = fused.mul_add(1.987_569_1e-4, r, 1.398_2e-3);
    let high = fused.mul_add(high, r, 8.333_452e-3);
    let high = fused.mul_add(high, r, 4.166_579_6e-2);
    let high = fused.mul_add(high, r, 1.666_666_5e-1);
    let high = fused.mul_add(high, r, 0.5);
    let poly = fused.mul_add(high, r * r, r) + 1.0;
    let n = shifted.to_bits().wrapping_sub(ROUND.to_bits());
    let power = f32::from_bits(n.wrapping_add(127) << 23);
    1.0 / fused.mul_add(poly, power, 1.0)
}

/// `exp` without branches or calls, so that loops over it become vector code; within 2 units in the
/// last place where the result is a normal number, 0 below that, and infinity above the range.
#[inline(always)]
pub(crate) fn exp_f32(x: f32) -> f32 {
    // exp(x) = 2^n exp(r) with |r| <= ln(2)/2.
    let clamped = x.clamp(-87.3, 88.72);
    let shifted = clamped * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = clamped - n * LN2_HI - n * LN2_LO;
    let r2 = r * r;
    let high = ((1.987_569_1e-4 * r + 1.398_2e-3) * r + 8.333_452e-3) * r + 4.166_579_6e-2;
    let poly = ((high * r + 1.666_666_5e-1) * r + 0.5) * r2 + r + 1.0;
    // 2^n in two factors: n = 128 has no exponent of its own.
    let n = shifted
        .to_bits()
        .wrapping_sub(ROUND.to_bits())
        .cast_signed();
    let (half, rest) = (n >> 1, n - (n >> 1));
    let power = |n: i32| f32::from_bits((n.wrapping_add(127) << 23).cast_unsigned());
    let result = poly * power(half) * power(rest);
    let low = if x < -87.3 { 0.0 } else { result };
    let high = if x > 88.72 { f32::INFINITY } else { low };
    if x.is_nan() { x } else { high }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::Simd;

    #[test]
    fn exp_is_within_two_units_in_the_last_place() {
        let mut worst = 0.0f64;
        let mut x = -87.0f32;
        while x < 88.7 {
            let want = f64::from(x).exp();
            worst = worst.max((f64::from(exp_f32(x)) - want).abs() / want);
            x += 0.000_91;
        }
        assert!(worst < 2.4e-7, "relative error {worst:e}");
    }

    #[test]
    fn exp_and_sigmoid_hold_at_the_ends_of_the_range() {
        assert_eq!(exp_f32(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp_f32(-200.0), 0.0);
        assert_eq!(exp_f32(f32::INFINITY), f32::INFINITY);
        assert_eq!(exp_f32(0.0), 1.0);
        assert!(exp_f32(88.7).is_finite());
        assert!(exp_f32(f32::NAN).is_nan());
    }

    #[test]
    fn sigmoid_is_accurate_and_holds_at_the_ends_of_the_range() {
        for simd in Simd::available() {
            simd.vectorise_fused(|fused| {
                let mut worst = 0.0f64;
                let mut x = -88.0f32;
                while x < 100.0 {
                    let want = f64::from(x).sigmoid(fused);
                    worst = worst.max((f64::from(x.sigmoid(fused)) - want).abs() / want);
                    x += 0.000_91;
                }
                assert!(worst < 2.4e-7, "{simd:?}: relative error {worst:e}");
                for (x, want) in [
                    (-88.5, 0.0),
                    (-1e30, 0.0),
                    (f32::NEG_INFINITY, 0.0),
                    (0.0, 0.5),
                    (1e30, 1.0),
                    (f32::INFINITY, 1.0),
                ] {
                    assert!((x.sigmoid(fused) - want).abs() < 1e-38, "{simd:?}: {x}");
                }
                assert!(f32::NAN.sigmoid(fused).is_nan());
            });
        }
    }
}
