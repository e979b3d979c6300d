//! Resampling of planes by two with a separable filter: a convolution of stride 2 with `filter x filter`, and its adjoint.

use crate::Real;
use crate::choice::Choice;
use crate::shared_mut::{SharedMut, filled};
use crate::threads::each_short_job;

/// Fewest elements of one job.
const ELEMENTS: usize = 1 << 14;

/// The sizes of a resampling by two, for each plane: the larger side is `h x w`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FilterShape {
    /// Height of the larger plane.
    pub h: usize,
    /// Width of the larger plane.
    pub w: usize,
    /// Length of the filter.
    pub k: usize,
    /// Zeros on each side of the larger plane.
    pub pad: usize,
}

impl FilterShape {
    /// Height of the smaller plane.
    pub fn small_h(&self) -> usize {
        (self.h + 2 * self.pad - self.k) / 2 + 1
    }

    /// Width of the smaller plane.
    pub fn small_w(&self) -> usize {
        (self.w + 2 * self.pad - self.k) / 2 + 1
    }
}

/// Each `h x w` plane convolved with `filter x filter` at every second pixel, times `factor`.
pub fn filter_down<T: Real>(shape: &FilterShape, x: &[T], filter: &[T], factor: f64) -> Vec<T> {
    let s = *shape;
    assert_eq!(filter.len(), s.k, "filter_down: a filter of another size");
    let (out_h, out_w) = (s.small_h(), s.small_w());
    let scaled = scaled(filter, factor);
    // Columns of the padded row, even ones first.
    let half = out_w + s.k / 2;
    // SAFETY: all rows and columns of the output are written.
    unsafe {
        planes(
            x,
            (s.h * s.w, out_h * out_w),
            [(s.pad + s.w).max(2 * half), 2 * half],
            #[inline(always)]
            |x, y, row, columns| {
                let (even, odd) = columns.split_at_mut(half);
                row.fill(T::default());
                for oy in 0..out_h {
                    let inner = &mut row[s.pad..s.pad + s.w];
                    inner.fill(T::default());
                    for (j, &f) in scaled.iter().enumerate() {
                        let from = 2 * oy + j;
                        if from >= s.pad && from < s.h + s.pad {
                            add(inner, &x[(from - s.pad) * s.w..][..s.w], f);
                        }
                    }
                    for ((pair, even), odd) in row.chunks_exact(2).zip(&mut *even).zip(&mut *odd) {
                        (*even, *odd) = (pair[0], pair[1]);
                    }
                    let y = std::slice::from_raw_parts_mut(y.add(oy * out_w), out_w);
                    y.fill(T::default());
                    for (j, &f) in filter.iter().enumerate() {
                        let columns = if j % 2 == 0 { &*even } else { &*odd };
                        add(y, &columns[j / 2..][..out_w], f);
                    }
                }
            },
        )
    }
}

/// The adjoint of [`filter_down`]: from smaller planes to those of `h x w`.
pub fn filter_up<T: Real>(shape: &FilterShape, x: &[T], filter: &[T], factor: f64) -> Vec<T> {
    let s = *shape;
    assert_eq!(filter.len(), s.k, "filter_up: a filter of another size");
    let (in_h, in_w) = (s.small_h(), s.small_w());
    let scaled = scaled(filter, factor);
    // Pairs of columns of the padded output; before the row, zeros that the filter reaches.
    let (pairs, before) = ((s.pad + s.w).div_ceil(2), s.k / 2);
    // SAFETY: all rows and columns of the output are written.
    unsafe {
        planes(
            x,
            (in_h * in_w, s.h * s.w),
            [before + in_w.max(pairs), 4 * pairs],
            #[inline(always)]
            |x, y, row, columns| {
                let (halves, joined) = columns.split_at_mut(2 * pairs);
                let (even, odd) = halves.split_at_mut(pairs);
                row.fill(T::default());
                for oy in 0..s.h {
                    let inner = &mut row[before..before + in_w];
                    inner.fill(T::default());
                    let place = oy + s.pad;
                    for j in (place % 2..s.k.min(place + 1)).step_by(2) {
                        let from = (place - j) / 2;
                        if from < in_h {
                            add(inner, &x[from * in_w..][..in_w], scaled[j]);
                        }
                    }
                    even.fill(T::default());
                    odd.fill(T::default());
                    for (j, &f) in filter.iter().enumerate() {
                        let to = if j % 2 == 0 { &mut *even } else { &mut *odd };
                        add(to, &row[before - j / 2..][..pairs], f);
                    }
                    for ((pair, &even), &odd) in joined.chunks_exact_mut(2).zip(&*even).zip(&*odd) {
                        (pair[0], pair[1]) = (even, odd);
                    }
                    std::slice::from_raw_parts_mut(y.add(oy * s.w), s.w)
                        .copy_from_slice(&joined[s.pad..s.pad + s.w]);
                }
            },
        )
    }
}

fn scaled<T: Real>(filter: &[T], factor: f64) -> Vec<T> {
    let factor = T::from_f64(factor);
    filter.iter().map(|&f| f * factor).collect()
}

/// `to += factor * from`.
#[inline(always)]
fn add<T: Real>(to: &mut [T], from: &[T], factor: T) {
    for (to, &from) in to.iter_mut().zip(from) {
        *to += from * factor;
    }
}

/// Runs `f` on each plane of `n_in` elements to fill one of `n_out`, with two buffers of these lengths.
///
/// # Safety
/// `f` writes `n_out` elements from its pointer on, without reading them first.
unsafe fn planes<T: Real>(
    x: &[T],
    (n_in, n_out): (usize, usize),
    buffers: [usize; 2],
    f: impl Fn(&[T], *mut T, &mut [T], &mut [T]) + Sync,
) -> Vec<T> {
    assert!(
        x.len().is_multiple_of(n_in.max(1)),
        "resampling: a plane is incomplete"
    );
    let simd = Choice::get().simd;
    // SAFETY: the jobs cover all planes, and each fills its own by the caller's promise.
    unsafe {
        filled(x.len() / n_in.max(1) * n_out, |y: SharedMut<'_, T>| {
            let at_least = ELEMENTS.div_ceil(n_in.max(n_out).max(1));
            each_short_job(x.len() / n_in.max(1), at_least, |i| {
                let x = &x[i * n_in..][..n_in];
                let y = y.as_mut_ptr().wrapping_add(i * n_out);
                T::with_scratch(buffers, |first, second| {
                    simd.vectorise(
                        #[inline(always)]
                        || f(x, y, first, second),
                    );
                });
            });
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every product of the definition, as `(pixel of the larger plane, pixel of the smaller plane, weight)`.
    fn products(s: &FilterShape, filter: &[f64]) -> Vec<(usize, usize, f64)> {
        let mut all = Vec::new();
        for (i, a) in filter.iter().enumerate() {
            for (j, b) in filter.iter().enumerate() {
                for y in 0..s.small_h() {
                    for x in 0..s.small_w() {
                        let (row, column) = (2 * y + i, 2 * x + j);
                        if (s.pad..s.h + s.pad).contains(&row)
                            && (s.pad..s.w + s.pad).contains(&column)
                        {
                            let large = (row - s.pad) * s.w + column - s.pad;
                            all.push((large, y * s.small_w() + x, a * b));
                        }
                    }
                }
            }
        }
        all
    }

    #[test]
    fn both_directions_equal_the_definition() {
        for (filter, pad) in [
            (&[0.5, 0.5][..], 0),
            (&[0.1, 0.4, 0.3, 0.2], 1),
            (&[0.1, 0.4, 0.3, 0.2], 0),
            (&[0.2, 0.7, 0.1], 1),
            (&[0.1, 0.3, 0.2, 0.1, 0.2, 0.05], 2),
            (&[0.3, 0.7], 3),
        ] {
            for (h, w) in [(8, 8), (6, 9), (5, 12), (7, 40)] {
                let k = filter.len();
                let s = FilterShape { h, w, k, pad };
                let (large, small) = (h * w, s.small_h() * s.small_w());
                let wave = |n: usize| (0..n).map(|i| (0.7 * i as f64).sin()).collect::<Vec<_>>();
                let (x, y) = (wave(3 * large), wave(3 * small));
                let (mut down, mut up) = (vec![0.0; 3 * small], vec![0.0; 3 * large]);
                for plane in 0..3 {
                    for (i, o, weight) in products(&s, filter) {
                        let (i, o) = (plane * large + i, plane * small + o);
                        down[o] += 1.5 * weight * x[i];
                        up[i] += 1.5 * weight * y[o];
                    }
                }
                let close = |got: Vec<f64>, want: Vec<f64>| {
                    got.len() == want.len()
                        && got.iter().zip(&want).all(|(a, b)| (a - b).abs() < 1e-13)
                };
                assert!(close(filter_down(&s, &x, filter, 1.5), down), "{s:?}");
                assert!(close(filter_up(&s, &y, filter, 1.5), up), "{s:?}");
            }
        }
    }
}
