//! Changes of resolution by two with a separable filter, plane by plane.

use crate::Real;
use crate::choice::Choice;
use crate::shared_mut::{SharedMut, filled};
use rayon::prelude::*;

/// Fewest elements of one job.
const PLANES: usize = 1 << 14;

/// A filter along both axes of planes, and the sizes before and after.
#[derive(Clone, Debug, PartialEq)]
pub struct FilterShape {
    /// The filter along one axis, first tap first.
    pub taps: Vec<f64>,
    /// Where the first tap lies before pixel 0 of the large plane.
    pub pad: usize,
    /// Height and width of the input.
    pub from: [usize; 2],
    /// Height and width of the result.
    pub to: [usize; 2],
}

/// Correlates with the filter and keeps every second pixel; outside of the plane are zeros.
///
/// ```text
/// y_i = sum_k taps_k x_(2i + k - pad)       along each axis
/// ```
pub fn filter_down<T: Real>(shape: &FilterShape, x: &[T]) -> Vec<T> {
    let [rows, columns] = [0, 1].map(|axis| down(shape, axis));
    separable(shape, &rows, &columns, x)
}

/// Spreads every pixel with the filter over a plane of about twice the size: the adjoint of [`filter_down`].
///
/// ```text
/// y_j = sum_(2i + k - pad = j) taps_k x_i   along each axis
/// ```
pub fn filter_up<T: Real>(shape: &FilterShape, x: &[T]) -> Vec<T> {
    let [rows, columns] = [0, 1].map(|axis| up(shape, axis));
    separable(shape, &rows, &columns, x)
}

/// For each place of the result, the places of the input that reach it and their factors.
type Terms<T> = Vec<Vec<(usize, T)>>;

fn down<T: Real>(shape: &FilterShape, axis: usize) -> Terms<T> {
    let (from, to) = (shape.from[axis], shape.to[axis]);
    let of = |i: usize| {
        let taps = shape.taps.iter().enumerate();
        let terms = taps.filter_map(|(k, &tap)| {
            let place = (2 * i + k).checked_sub(shape.pad)?;
            (place < from).then(|| (place, T::from_f64(tap)))
        });
        terms.collect()
    };
    (0..to).map(of).collect()
}

fn up<T: Real>(shape: &FilterShape, axis: usize) -> Terms<T> {
    let (from, to) = (shape.from[axis], shape.to[axis]);
    let of = |j: usize| {
        let taps = shape.taps.iter().enumerate();
        let terms = taps.filter_map(|(k, &tap)| {
            let twice = (j + shape.pad).checked_sub(k)?;
            (twice.is_multiple_of(2) && twice / 2 < from).then(|| (twice / 2, T::from_f64(tap)))
        });
        terms.collect()
    };
    (0..to).map(of).collect()
}

fn separable<T: Real>(shape: &FilterShape, rows: &Terms<T>, columns: &Terms<T>, x: &[T]) -> Vec<T> {
    let [h, w] = shape.from;
    let [out_h, out_w] = shape.to;
    let (n_in, n_out) = ((h * w).max(1), out_h * out_w);
    let simd = Choice::get().simd;
    // SAFETY: the jobs cover all planes, and each writes all elements of its own.
    unsafe {
        filled(x.len() / n_in * n_out, |y: SharedMut<'_, T>| {
            x.par_chunks_exact(n_in)
                .enumerate()
                .with_min_len(PLANES.div_ceil(n_out.max(1)))
                .for_each_init(
                    || vec![T::default(); w],
                    |line, (i, x)| {
                        let y = y.slice(i * n_out, n_out);
                        simd.vectorise(
                            #[inline(always)]
                            || plane(rows, columns, x, w, line, y),
                        );
                    },
                );
        })
    }
}

/// Each row of the result: a weighted sum of rows of `x` in `line`, then of the places of that sum.
#[inline(always)]
fn plane<T: Real>(
    rows: &Terms<T>,
    columns: &Terms<T>,
    x: &[T],
    w: usize,
    line: &mut [T],
    y: &mut [T],
) {
    for (terms, y) in rows.iter().zip(y.chunks_exact_mut(columns.len().max(1))) {
        line.fill(T::default());
        for &(row, factor) in terms {
            for (sum, &x) in line.iter_mut().zip(&x[row * w..(row + 1) * w]) {
                *sum += factor * x;
            }
        }
        for (y, terms) in y.iter_mut().zip(columns) {
            let mut sum = T::default();
            for &(place, factor) in terms {
                sum += factor * line[place];
            }
            *y = sum;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(taps: &[f64], pad: usize, from: [usize; 2], to: [usize; 2]) -> FilterShape {
        FilterShape {
            taps: taps.to_vec(),
            pad,
            from,
            to,
        }
    }

    #[test]
    fn a_box_pools_and_repeats() {
        let x: Vec<f64> = (0..24).map(f64::from).collect();
        let halves = shape(&[0.5, 0.5], 0, [4, 6], [2, 3]);
        assert_eq!(
            filter_down(&halves, &x),
            crate::pool_2x(&x, 4, 6, 0.25),
            "pooling"
        );
        let ones = shape(&[1.0, 1.0], 0, [4, 6], [8, 12]);
        assert_eq!(filter_up(&ones, &x), crate::upsample_2x(&x, 4, 6));
    }

    #[test]
    fn a_filter_of_four_reaches_one_pixel_beyond_and_finds_zeros_there() {
        let taps = [1.0, 3.0, 3.0, 1.0];
        let x = [1.0f64, 2.0, 4.0, 8.0];
        let line = shape(&taps, 1, [1, 4], [1, 2]);
        // A single row meets the taps 3 of the other axis.
        assert_eq!(filter_down(&line, &x), [3.0 * 13.0, 3.0 * 38.0]);
        let line = shape(&taps, 1, [1, 2], [2, 4]);
        let row = [3.0, 3.0 + 2.0, 1.0 + 6.0, 6.0];
        let expected: Vec<f64> = [row, row].concat().iter().map(|v| 3.0 * v).collect();
        assert_eq!(filter_up(&line, &x[..2]), expected);
    }
}
