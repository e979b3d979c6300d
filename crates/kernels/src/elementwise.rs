//! Sums, products and activations, element by element.

use crate::choice::Choice;
use crate::real::Scalar;
use crate::shared_mut::{SharedMut, filled};
use crate::simd::Fused;
use crate::threads::{each_chunk_mut, each_job, each_short_job};
use crate::{Element, Real};

/// Elements of one job.
const CHUNK: usize = 1 << 15;

/// `a + b`.
pub fn add<E: Element>(a: &[E], b: &[E]) -> Vec<E> {
    zip(
        a,
        b,
        #[inline(always)]
        |_, a, b| a + b,
    )
}

/// `y += x`.
pub(crate) fn add_to<E: Element>(y: &mut [E], x: &[E]) {
    assert_eq!(y.len(), x.len(), "sizes do not fit");
    let simd = Choice::get().simd;
    each_chunk_mut(y, CHUNK, |i, y| {
        let x = &x[i * CHUNK..][..y.len()];
        simd.vectorise(
            #[inline(always)]
            || {
                for (y, x) in y.iter_mut().zip(x) {
                    *y = E::of(x.real() + y.real());
                }
            },
        );
    });
}

/// `factor (a + b)`.
pub fn add_scaled<E: Element>(a: &[E], b: &[E], factor: f64) -> Vec<E> {
    let factor = E::Real::from_f64(factor);
    zip(
        a,
        b,
        #[inline(always)]
        |_, a, b| (a + b) * factor,
    )
}

/// `factor x`.
pub fn scale<E: Element>(x: &[E], factor: f64) -> Vec<E> {
    let factor = E::Real::from_f64(factor);
    zip(
        x,
        x,
        #[inline(always)]
        |_, x, _| x * factor,
    )
}

/// `scale x + offset`.
pub fn affine<E: Element>(x: &[E], scale: f64, offset: f64) -> Vec<E> {
    let (scale, offset) = (E::Real::from_f64(scale), E::Real::from_f64(offset));
    zip(
        x,
        x,
        #[inline(always)]
        |_, x, _| x * scale + offset,
    )
}

/// `x + e` with one number for each plane of `x`, which has as many planes as `e` has numbers.
pub fn add_per_plane<E: Element>(x: &[E], e: &[E::Real]) -> Vec<E> {
    if x.is_empty() {
        return Vec::new();
    }
    let plane = x.len() / e.len().max(1);
    assert_eq!(x.len(), plane * e.len(), "sizes do not fit");
    let simd = Choice::get().simd;
    // SAFETY: the jobs cover all planes, and each writes all of its own.
    unsafe {
        filled(x.len(), |y: SharedMut<'_, E>| {
            each_short_job(e.len(), CHUNK.div_ceil(plane), |i| {
                let (x, e) = (&x[i * plane..][..plane], e[i]);
                let y = y.as_mut_ptr().wrapping_add(i * plane);
                simd.vectorise(
                    #[inline(always)]
                    move || {
                        for (j, &x) in x.iter().enumerate() {
                            y.add(j).write(E::of(x.real() + e));
                        }
                    },
                );
            });
        })
    }
}

/// `a * b`.
pub fn mul<E: Element>(a: &[E], b: &[E]) -> Vec<E> {
    zip(
        a,
        b,
        #[inline(always)]
        |_, a, b| a * b,
    )
}

/// `max(x, 0)`; NaN stays NaN.
pub fn relu<E: Element>(x: &[E]) -> Vec<E> {
    zip(
        x,
        x,
        #[inline(always)]
        |_, x, _| {
            if x < E::Real::default() {
                E::Real::default()
            } else {
                x
            }
        },
    )
}

/// The gradient of [`relu`]: `dy` where `x` is positive.
pub fn relu_gradient<E: Element>(x: &[E], dy: &[E]) -> Vec<E> {
    zip(
        x,
        dy,
        #[inline(always)]
        |_, x, dy| {
            if x > E::Real::default() {
                dy
            } else {
                E::Real::default()
            }
        },
    )
}

/// `x * sigmoid(x)`.
pub fn silu<E: Element>(x: &[E]) -> Vec<E> {
    zip(
        x,
        x,
        #[inline(always)]
        |fused, x, _| x * x.sigmoid(fused),
    )
}

/// The gradient of [`silu`].
pub fn silu_gradient<E: Element>(x: &[E], dy: &[E]) -> Vec<E> {
    let one = E::Real::from_f64(1.0);
    zip(
        x,
        dy,
        #[inline(always)]
        |fused, x, dy| {
            let s = x.sigmoid(fused);
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
pub fn gelu<E: Element>(x: &[E]) -> Vec<E> {
    zip(
        x,
        x,
        #[inline(always)]
        |fused, x, _| x * gelu_gate(x, fused).0,
    )
}

/// The gradient of [`gelu`].
pub fn gelu_gradient<E: Element>(x: &[E], dy: &[E]) -> Vec<E> {
    let one = E::Real::from_f64(1.0);
    zip(
        x,
        dy,
        #[inline(always)]
        |fused, x, dy| {
            let (s, slope) = gelu_gate(x, fused);
            dy * s * (one + x * (one - s) * slope)
        },
    )
}

/// `sigmoid(2 u)`, and the derivative of `2 u`.
#[inline(always)]
fn gelu_gate<T: Real>(x: T, fused: Fused) -> (T, T) {
    const LINEAR: f64 = 2.0 * std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::FRAC_1_SQRT_2;
    const CUBIC: f64 = LINEAR * 0.044715;
    let square = x * x;
    let s = (x * (T::from_f64(LINEAR) + square * T::from_f64(CUBIC))).sigmoid(fused);
    let slope = T::from_f64(LINEAR) + square * T::from_f64(3.0 * CUBIC);
    (s, slope)
}

fn zip<E: Element>(
    a: &[E],
    b: &[E],
    f: impl Fn(Fused, E::Real, E::Real) -> E::Real + Copy + Send + Sync,
) -> Vec<E> {
    assert_eq!(a.len(), b.len(), "sizes do not fit");
    let simd = Choice::get().simd;
    // SAFETY: the jobs cover all elements, and each writes all of its own.
    unsafe {
        filled(a.len(), |y: SharedMut<'_, E>| {
            each_job(a.len().div_ceil(CHUNK), |i| {
                let range = i * CHUNK..a.len().min((i + 1) * CHUNK);
                let (a, b) = (&a[range.clone()], &b[range]);
                let y = y.as_mut_ptr().wrapping_add(i * CHUNK);
                simd.vectorise_fused(
                    #[inline(always)]
                    move |fused| {
                        for (j, (&a, &b)) in a.iter().zip(b).enumerate() {
                            y.add(j).write(E::of(f(fused, a.real(), b.real())));
                        }
                    },
                );
            });
        })
    }
}
