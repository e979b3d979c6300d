//! Group normalisation with an affine map per image and channel, and SiLU, in one pass each way.

use crate::Real;
use crate::choice::Choice;
use crate::shared_mut::{SharedMut, filled};
use rayon::prelude::*;

/// What follows the affine map of a norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    None,
    /// `x * sigmoid(x)`.
    Silu,
}

/// The shape of a normalised tensor `[batch, channels, plane]`; any batch.
#[derive(Clone, Copy, Debug)]
pub struct NormShape {
    /// Channels of one image.
    pub channels: usize,
    /// Elements of one channel.
    pub plane: usize,
    /// Groups of channels that are normalised together; divides the channels.
    pub groups: usize,
}

impl NormShape {
    fn check<T>(&self, x: &[T], a: &[T], b: &[T]) {
        assert!(
            self.channels.is_multiple_of(self.groups)
                && a.len().is_multiple_of(self.channels)
                && a.len() == b.len()
                && a.len() * self.plane == x.len(),
            "norm: sizes do not fit"
        );
    }
}

/// Mean and reciprocal standard deviation of each group of each image.
pub type Statistics = Vec<(f64, f64)>;

/// Elements that are summed in the type of the data; the sums of runs are added in f64.
const RUN: usize = 256;

/// The sum of a slice: short runs in its own type, which vectorises, added in f64.
pub(crate) fn sum<T: Real>(x: &[T]) -> f64 {
    Choice::get().simd.vectorise(
        #[inline(always)]
        || fold(x, Term::Value),
    )
}

/// The sum of each plane of this many elements.
pub fn plane_sums<T: Real>(x: &[T], plane: usize) -> Vec<T> {
    let planes = x.chunks_exact(plane.max(1));
    planes.map(|plane| T::from_f64(sum(plane))).collect()
}

/// What [`fold`] sums. An enum, because a closure would be a call inside the loop.
#[derive(Clone, Copy)]
enum Term<T> {
    Value,
    SquareAround(T),
}

#[inline(always)]
fn fold<T: Real>(x: &[T], term: Term<T>) -> f64 {
    let (centre, square) = match term {
        Term::Value => (T::default(), false),
        Term::SquareAround(centre) => (centre, true),
    };
    let mut total = 0.0;
    for run in x.chunks(RUN) {
        let mut lanes = [T::default(); 16];
        let (chunks, rest) = run.as_chunks::<16>();
        if square {
            for chunk in chunks {
                for i in 0..16 {
                    let v = chunk[i] - centre;
                    lanes[i] += v * v;
                }
            }
            for (lane, &value) in lanes.iter_mut().zip(rest) {
                *lane += (value - centre) * (value - centre);
            }
        } else {
            for chunk in chunks {
                for i in 0..16 {
                    lanes[i] += chunk[i];
                }
            }
            for (lane, &value) in lanes.iter_mut().zip(rest) {
                *lane += value;
            }
        }
        total += total_of(lanes);
    }
    total
}

/// The sum of `du (x - centre)` over one run. A loop of its own: two sums in one loop do not vectorise.
#[inline(always)]
fn fold_product<T: Real>(du: &[T], x: &[T], centre: T) -> f64 {
    let mut lanes = [T::default(); 16];
    let ((dus, du_rest), (xs, x_rest)) = (du.as_chunks::<16>(), x.as_chunks::<16>());
    for (du, x) in dus.iter().zip(xs) {
        for i in 0..16 {
            lanes[i] += du[i] * (x[i] - centre);
        }
    }
    for ((lane, &du), &x) in lanes.iter_mut().zip(du_rest).zip(x_rest) {
        *lane += du * (x - centre);
    }
    total_of(lanes)
}

#[inline(always)]
fn total_of<T: Real>(lanes: [T; 16]) -> f64 {
    let mut total = 0.0;
    for lane in lanes {
        total += lane.to_f64();
    }
    total
}

#[inline(always)]
fn statistics<T: Real>(x: &[T], eps: f64) -> (f64, f64) {
    let n = x.len() as f64;
    let mean = fold(x, Term::Value) / n;
    let variance = fold(x, Term::SquareAround(T::from_f64(mean))) / n;
    (mean, 1.0 / (variance + eps).sqrt())
}

/// `act(a * normalised(x) + b)` with `a` and `b` `[batch, channels]`, and the statistics that [`norm_act_gradient`] needs.
pub fn norm_act<T: Real>(
    shape: &NormShape,
    x: &[T],
    a: &[T],
    b: &[T],
    eps: f64,
    activation: Activation,
) -> (Vec<T>, Statistics) {
    let per_group = shape.channels / shape.groups;
    let len = per_group * shape.plane;
    let simd = Choice::get().simd;
    shape.check(x, a, b);
    let mut statistics = Vec::new();
    // SAFETY: the jobs cover all groups, and each writes all of its own.
    let y = unsafe {
        filled(x.len(), |y: SharedMut<'_, T>| {
            x.par_chunks(len.max(1))
                .enumerate()
                .map(|(job, x)| {
                    let channels = job * per_group..(job + 1) * per_group;
                    let y = y.as_mut_ptr().wrapping_add(job * len);
                    let (a, b) = (&a[channels.clone()], &b[channels]);
                    simd.vectorise(
                        #[inline(always)]
                        || forward_group(x, a, b, eps, activation, y),
                    )
                })
                .collect_into_vec(&mut statistics);
        })
    };
    (y, statistics)
}

/// One group of one image.
///
/// # Safety
/// `y` has room for as many elements as `x`; all of them are written.
#[inline(always)]
unsafe fn forward_group<T: Real>(
    x: &[T],
    a: &[T],
    b: &[T],
    eps: f64,
    activation: Activation,
    y: *mut T,
) -> (f64, f64) {
    let (mean, rstd) = statistics(x, eps);
    let plane = x.len() / a.len();
    for (c, x) in x.chunks_exact(plane).enumerate() {
        let scale = T::from_f64(a[c].to_f64() * rstd);
        let shift = T::from_f64(b[c].to_f64() - a[c].to_f64() * rstd * mean);
        let y = y.wrapping_add(c * plane);
        match activation {
            Activation::None => {
                for (i, &x) in x.iter().enumerate() {
                    // SAFETY: the caller's promise.
                    unsafe { y.add(i).write(x * scale + shift) };
                }
            }
            Activation::Silu => {
                for (i, &x) in x.iter().enumerate() {
                    let u = x * scale + shift;
                    // SAFETY: the caller's promise.
                    unsafe { y.add(i).write(u * u.sigmoid()) };
                }
            }
        }
    }
    (mean, rstd)
}

/// The gradients of `x`, `a` and `b`, one after the other, from that of the result of [`norm_act`].
pub fn norm_act_gradient<T: Real>(
    shape: &NormShape,
    x: &[T],
    a: &[T],
    b: &[T],
    statistics: &Statistics,
    activation: Activation,
    dy: &[T],
) -> Vec<T> {
    let per_group = shape.channels / shape.groups;
    let len = per_group * shape.plane;
    let simd = Choice::get().simd;
    shape.check(x, a, b);
    assert_eq!(x.len(), dy.len(), "norm: sizes do not fit");
    if x.is_empty() {
        return vec![T::default(); 2 * a.len()];
    }
    assert_eq!(statistics.len() * len, x.len(), "norm: sizes do not fit");
    // SAFETY: the jobs cover all groups and their channels, and each writes all of its own.
    unsafe {
        filled(x.len() + 2 * a.len(), |all: SharedMut<'_, T>| {
            x.par_chunks(len.max(1))
                .zip(dy.par_chunks(len.max(1)))
                .enumerate()
                .for_each(|(job, (x, dy))| {
                    let first = job * per_group;
                    let group = Group {
                        x,
                        dy,
                        a: &a[first..first + per_group],
                        b: &b[first..first + per_group],
                        mean: statistics[job].0,
                        rstd: statistics[job].1,
                    };
                    let da = all
                        .as_mut_ptr()
                        .wrapping_add(statistics.len() * len + first);
                    let to = [
                        all.as_mut_ptr().wrapping_add(job * len),
                        da,
                        da.wrapping_add(a.len()),
                    ];
                    simd.vectorise(
                        #[inline(always)]
                        || group.backward(activation, to),
                    );
                });
        })
    }
}

/// The backward pass of one group of one image.
struct Group<'a, T> {
    x: &'a [T],
    dy: &'a [T],
    a: &'a [T],
    b: &'a [T],
    mean: f64,
    rstd: f64,
}

impl<T: Real> Group<'_, T> {
    /// Writes the gradients of `x`, `a` and `b`.
    ///
    /// # Safety
    /// There is room for as many elements as `x`, `a` and `b` have; all of them are written.
    #[inline(always)]
    unsafe fn backward(&self, activation: Activation, [dx, da, db]: [*mut T; 3]) {
        let Self { mean, rstd, .. } = *self;
        let plane = self.x.len() / self.a.len();
        let (mut sum_du, mut sum_du_x) = (0.0, 0.0);
        for (c, (x, dy)) in self
            .x
            .chunks_exact(plane)
            .zip(self.dy.chunks_exact(plane))
            .enumerate()
        {
            let scale = T::from_f64(self.a[c].to_f64() * rstd);
            let shift = T::from_f64(self.b[c].to_f64() - self.a[c].to_f64() * rstd * mean);
            // SAFETY: the caller's promise.
            let (total, total_x) = unsafe {
                match activation {
                    Activation::None => Self::affine::<false>(
                        x,
                        dy,
                        scale,
                        shift,
                        T::from_f64(mean),
                        dx.wrapping_add(c * plane),
                    ),
                    Activation::Silu => Self::affine::<true>(
                        x,
                        dy,
                        scale,
                        shift,
                        T::from_f64(mean),
                        dx.wrapping_add(c * plane),
                    ),
                }
            };
            let total_x = total_x * rstd;
            // SAFETY: the caller's promise.
            unsafe {
                da.add(c).write(T::from_f64(total_x));
                db.add(c).write(T::from_f64(total));
            }
            sum_du += self.a[c].to_f64() * total;
            sum_du_x += self.a[c].to_f64() * total_x;
        }
        let n = self.x.len() as f64;
        // dx = rstd (a du - mean(a du) - normalised(x) mean(a du normalised(x)))
        let slope = -rstd * rstd * sum_du_x / n;
        let (slope, offset) = (
            T::from_f64(slope),
            T::from_f64(-rstd * sum_du / n - slope * mean),
        );
        // SAFETY: written above.
        let dx = unsafe { std::slice::from_raw_parts_mut(dx, self.x.len()) };
        for (c, (dx, x)) in dx
            .chunks_exact_mut(plane)
            .zip(self.x.chunks_exact(plane))
            .enumerate()
        {
            let scale = T::from_f64(self.a[c].to_f64() * rstd);
            for (dx, &x) in dx.iter_mut().zip(x) {
                *dx = *dx * scale + x * slope + offset;
            }
        }
    }

    /// The gradient `du` of the affine map's output for one channel, the sum of it, and that of
    /// `du (x - centre)`.
    ///
    /// # Safety
    /// `du` has room for as many elements as `x`.
    #[inline(always)]
    unsafe fn affine<const SILU: bool>(
        x: &[T],
        dy: &[T],
        scale: T,
        shift: T,
        centre: T,
        du: *mut T,
    ) -> (f64, f64) {
        let (mut total, mut total_x) = (0.0, 0.0);
        let one = T::from_f64(1.0);
        for (i, (x, dy)) in x.chunks(RUN).zip(dy.chunks(RUN)).enumerate() {
            let du = du.wrapping_add(i * RUN);
            for (j, (&x, &dy)) in x.iter().zip(dy).enumerate() {
                let value = if SILU {
                    let u = x * scale + shift;
                    let s = u.sigmoid();
                    dy * s * (one + u * (one - s))
                } else {
                    dy
                };
                // SAFETY: the caller's promise.
                unsafe { du.add(j).write(value) };
            }
            // SAFETY: written just now.
            let du = unsafe { std::slice::from_raw_parts(du, x.len()) };
            total += fold(du, Term::Value);
            total_x += fold_product(du, x, centre);
        }
        (total, total_x)
    }
}
