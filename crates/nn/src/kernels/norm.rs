//! Group normalisation with an affine map per image and channel, and SiLU, in one pass each way.

use super::{Real, SharedMut};
use rayon::prelude::*;

/// What follows the affine map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    None,
    /// `x * sigmoid(x)`.
    Silu,
}

/// `x` is `[batch, channels, plane]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NormShape {
    pub(crate) channels: usize,
    pub(crate) plane: usize,
    pub(crate) groups: usize,
}

/// Mean and reciprocal standard deviation of each (image, group).
pub(crate) type Statistics = Vec<(f64, f64)>;

/// Sum of a slice: short runs in its own type, which vectorises, added up in f64.
pub(crate) fn sum<T: Real>(x: &[T]) -> f64 {
    fold(x, |v| v)
}

fn fold<T: Real>(x: &[T], f: impl Fn(T) -> T) -> f64 {
    let mut total = 0.0;
    for run in x.chunks(256) {
        let mut lanes = [T::default(); 16];
        let mut chunks = run.chunks_exact(16);
        for chunk in &mut chunks {
            for (lane, &value) in lanes.iter_mut().zip(chunk) {
                *lane += f(value);
            }
        }
        for (lane, &value) in lanes.iter_mut().zip(chunks.remainder()) {
            *lane += f(value);
        }
        total += lanes.iter().map(|lane| lane.f64()).sum::<f64>();
    }
    total
}

fn statistics<T: Real>(x: &[T], eps: f64) -> (f64, f64) {
    let n = x.len() as f64;
    let mean = sum(x) / n;
    let centre = T::of(mean);
    let variance = fold(x, |v| (v - centre) * (v - centre)) / n;
    (mean, 1.0 / (variance + eps).sqrt())
}

/// `act(a * normalised(x) + b)` with `a` and `b` `[batch, channels]`, and the statistics.
pub(crate) fn forward<T: Real>(
    shape: &NormShape,
    x: &[T],
    a: &[T],
    b: &[T],
    eps: f64,
    activation: Activation,
) -> (Vec<T>, Statistics) {
    let (plane, per_group) = (shape.plane, shape.channels / shape.groups);
    let mut y = vec![T::default(); x.len()];
    let statistics = y
        .par_chunks_mut(per_group * plane)
        .zip(x.par_chunks(per_group * plane))
        .enumerate()
        .map(|(job, (y, x))| {
            let (mean, rstd) = statistics(x, eps);
            for c in 0..per_group {
                let channel = job * per_group + c;
                let scale = T::of(a[channel].f64() * rstd);
                let shift = T::of(b[channel].f64() - a[channel].f64() * rstd * mean);
                let (y, x) = (&mut y[c * plane..][..plane], &x[c * plane..][..plane]);
                match activation {
                    Activation::None => {
                        for (y, &x) in y.iter_mut().zip(x) {
                            *y = x * scale + shift;
                        }
                    }
                    Activation::Silu => {
                        for (y, &x) in y.iter_mut().zip(x) {
                            let u = x * scale + shift;
                            *y = u * u.sigmoid();
                        }
                    }
                }
            }
            (mean, rstd)
        })
        .collect();
    (y, statistics)
}

/// Gradients of `x`, `a` and `b`.
pub(crate) fn backward<T: Real>(
    shape: &NormShape,
    x: &[T],
    a: &[T],
    b: &[T],
    statistics: &Statistics,
    activation: Activation,
    dy: &[T],
) -> (Vec<T>, Vec<T>, Vec<T>) {
    let (plane, per_group) = (shape.plane, shape.channels / shape.groups);
    let mut dx = vec![T::default(); x.len()];
    let mut da = vec![T::default(); a.len()];
    let mut db = vec![T::default(); b.len()];
    let (shared_a, shared_b) = (SharedMut::new(&mut da), SharedMut::new(&mut db));
    dx.par_chunks_mut(per_group * plane)
        .zip(x.par_chunks(per_group * plane))
        .zip(dy.par_chunks(per_group * plane))
        .enumerate()
        .for_each(|(job, ((dx, x), dy))| {
            let (mean, rstd) = statistics[job];
            // SAFETY: each job owns the channels of its own group.
            let (da, db) = unsafe {
                (
                    shared_a.slice(job * per_group, per_group),
                    shared_b.slice(job * per_group, per_group),
                )
            };
            let (mut sum_du, mut sum_du_x) = (0.0, 0.0);
            for c in 0..per_group {
                let channel = job * per_group + c;
                let (dx, x, dy) = (
                    &mut dx[c * plane..][..plane],
                    &x[c * plane..][..plane],
                    &dy[c * plane..][..plane],
                );
                match activation {
                    Activation::None => dx.copy_from_slice(dy),
                    Activation::Silu => {
                        let scale = T::of(a[channel].f64() * rstd);
                        let shift = T::of(b[channel].f64() - a[channel].f64() * rstd * mean);
                        let one = T::of(1.0);
                        for ((du, &x), &dy) in dx.iter_mut().zip(x).zip(dy) {
                            let u = x * scale + shift;
                            let s = u.sigmoid();
                            *du = dy * s * (one + u * (one - s));
                        }
                    }
                }
                // dx holds the gradient of the affine map's output here.
                let centre = T::of(mean);
                let total = sum(dx);
                let mut total_x = 0.0;
                for (du, x) in dx.chunks(256).zip(x.chunks(256)) {
                    let mut lanes = [T::default(); 16];
                    for (i, (&du, &x)) in du.iter().zip(x).enumerate() {
                        lanes[i % 16] += du * (x - centre);
                    }
                    total_x += lanes.iter().map(|lane| lane.f64()).sum::<f64>();
                }
                total_x *= rstd;
                db[c] = T::of(total);
                da[c] = T::of(total_x);
                sum_du += a[channel].f64() * total;
                sum_du_x += a[channel].f64() * total_x;
            }
            let n = (per_group * plane) as f64;
            // dx = rstd (a du - mean(a du) - normalised(x) mean(a du normalised(x)))
            let slope = -rstd * rstd * sum_du_x / n;
            let (slope_t, offset) = (T::of(slope), T::of(-rstd * sum_du / n - slope * mean));
            for c in 0..per_group {
                let scale = T::of(a[job * per_group + c].f64() * rstd);
                let (dx, x) = (&mut dx[c * plane..][..plane], &x[c * plane..][..plane]);
                for (dx, &x) in dx.iter_mut().zip(x) {
                    *dx = *dx * scale + x * slope_t + offset;
                }
            }
        });
    (dx, da, db)
}
