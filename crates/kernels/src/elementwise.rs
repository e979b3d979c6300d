//! Sums, products and activations, element by element.

use crate::Real;
use crate::choice::Choice;
use crate::shared_mut::{SharedMut, filled};
use rayon::prelude::*;

/// Elements of one job.
const CHUNK: usize = 1 << 15;

/// `a + b`.
pub fn add<T: Real>(a: &[T], b: &[T]) -> Vec<T> {
    zip(
        a,
        b,
        #[inline(always)]
        |a, b| a + b,
    )
}

/// `factor (a + b)`.
pub fn add_scaled<T: Real>(a: &[T], b: &[T], factor: f64) -> Vec<T> {
    let factor = T::from_f64(factor);
    zip(
        a,
        b,
        #[inline(always)]
        |a, b| (a + b) * factor,
    )
}

/// `factor x`.
pub fn scale<T: Real>(x: &[T], factor: f64) -> Vec<T> {
    let factor = T::from_f64(factor);
    zip(
        x,
        x,
        #[inline(always)]
        |x, _| x * factor,
    )
}

/// `a * b`.
pub fn mul<T: Real>(a: &[T], b: &[T]) -> Vec<T> {
    zip(
        a,
        b,
        #[inline(always)]
        |a, b| a * b,
    )
}

/// `max(x, 0)`; NaN stays NaN.
pub fn relu<T: Real>(x: &[T]) -> Vec<T> {
    zip(
        x,
        x,
        #[inline(always)]
        |x, _| if x < T::default() { T::default() } else { x },
    )
}

/// The gradient of [`relu`]: `dy` where `x` is positive.
pub fn relu_gradient<T: Real>(x: &[T], dy: &[T]) -> Vec<T> {
    zip(
        x,
        dy,
        #[inline(always)]
        |x, dy| if x > T::default() { dy } else { T::default() },
    )
}

/// `x * sigmoid(x)`.
pub fn silu<T: Real>(x: &[T]) -> Vec<T> {
    zip(
        x,
        x,
        #[inline(always)]
        |x, _| x * x.sigmoid(),
    )
}

/// The gradient of [`silu`].
pub fn silu_gradient<T: Real>(x: &[T], dy: &[T]) -> Vec<T> {
    let one = T::from_f64(1.0);
    zip(
        x,
        dy,
        #[inline(always)]
        |x, dy| {
            let s = x.sigmoid();
            dy * s * (one + x * (one - s))
        },
    )
}

/// GELU by its approximation with tanh.
///
/// Source: PyTorch `gelu(approximate="tanh")`.
/// ```text
/// x sigmoid(2 u)        u = sqrt(2 / pi) (x + 0.044715 x^3)
/// ```
pub fn gelu<T: Real>(x: &[T]) -> Vec<T> {
    zip(
        x,
        x,
        #[inline(always)]
        |x, _| x * gelu_gate(x).0,
    )
}

/// The gradient of [`gelu`].
pub fn gelu_gradient<T: Real>(x: &[T], dy: &[T]) -> Vec<T> {
    let one = T::from_f64(1.0);
    zip(
        x,
        dy,
        #[inline(always)]
        |x, dy| {
            let (s, slope) = gelu_gate(x);
            dy * s * (one + x * (one - s) * slope)
        },
    )
}

/// `sigmoid(2 u)`, and the derivative of `2 u`.
#[inline(always)]
fn gelu_gate<T: Real>(x: T) -> (T, T) {
    const LINEAR: f64 = 2.0 * std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::FRAC_1_SQRT_2;
    const CUBIC: f64 = LINEAR * 0.044715;
    let square = x * x;
    let s = (x * (T::from_f64(LINEAR) + square * T::from_f64(CUBIC))).sigmoid();
    let slope = T::from_f64(LINEAR) + square * T::from_f64(3.0 * CUBIC);
    (s, slope)
}

fn zip<T: Real>(a: &[T], b: &[T], f: impl Fn(T, T) -> T + Copy + Send + Sync) -> Vec<T> {
    assert_eq!(a.len(), b.len(), "sizes do not fit");
    let simd = Choice::get().simd;
    // SAFETY: the jobs cover all elements, and each writes all of its own.
    unsafe {
        filled(a.len(), |y: SharedMut<'_, T>| {
            a.par_chunks(CHUNK)
                .zip(b.par_chunks(CHUNK))
                .enumerate()
                .for_each(|(i, (a, b))| {
                    let y = y.as_mut_ptr().wrapping_add(i * CHUNK);
                    simd.vectorise(
                        #[inline(always)]
                        move || {
                            for (j, (&a, &b)) in a.iter().zip(b).enumerate() {
                                y.add(j).write(f(a, b));
                            }
                        },
                    );
                });
        })
    }
}
