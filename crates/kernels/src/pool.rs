//! Maxima and means over windows. Padding is ignored: it is never the maximum, and a mean does not count it.

use crate::Real;
use crate::choice::Choice;
use crate::threads::each_chunk_mut;
use std::ops::Range;

/// What a window is reduced to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolKind {
    /// Its largest element.
    Max,
    /// The mean of its elements inside the image.
    Average,
}

/// The shapes of a pooling by square windows; any number of planes.
#[derive(Clone, Copy, Debug)]
pub struct PoolShape {
    /// Maximum or mean.
    pub kind: PoolKind,
    /// Height of a plane.
    pub h: usize,
    /// Width of a plane.
    pub w: usize,
    /// Side of a window.
    pub k: usize,
    /// Distance between two windows.
    pub stride: usize,
    /// Padding on each side, smaller than `k`, so that no window is all padding.
    pub pad: usize,
}

impl PoolShape {
    /// Height of the output.
    pub fn out_h(&self) -> usize {
        (self.h + 2 * self.pad - self.k) / self.stride + 1
    }

    /// Width of the output.
    pub fn out_w(&self) -> usize {
        (self.w + 2 * self.pad - self.k) / self.stride + 1
    }

    /// The part of window `i` inside a side of this length.
    fn window(&self, i: usize, side: usize) -> Range<usize> {
        let start = (i * self.stride).saturating_sub(self.pad);
        start..(i * self.stride + self.k - self.pad).min(side)
    }

    /// The outputs whose tap `kx` lies inside a row, and the position that the first of them reads.
    fn reached(&self, kx: usize) -> (Range<usize>, usize) {
        let out_w = self.out_w();
        let start = self.pad.saturating_sub(kx).div_ceil(self.stride).min(out_w);
        let end = (self.w + self.pad)
            .saturating_sub(kx)
            .div_ceil(self.stride)
            .clamp(start, out_w);
        (
            start..end,
            (start * self.stride + kx).saturating_sub(self.pad),
        )
    }

    /// The reciprocal of the number of elements of a window.
    fn share<T: Real>(&self, rows: &Range<usize>, column: usize) -> T {
        let n = rows.len() * self.window(column, self.w).len();
        T::from_f64(1.0 / n as f64)
    }
}

/// `[planes, h, w]` to `[planes, out_h, out_w]`: combines the rows of a window first, whole rows at a time, then its columns.
pub fn pool<T: Real>(shape: &PoolShape, x: &[T]) -> Vec<T> {
    let (out_h, out_w) = (shape.out_h(), shape.out_w());
    let mut y = vec![T::default(); x.len() / (shape.h * shape.w).max(1) * out_h * out_w];
    let simd = Choice::get().simd;
    let n_in = shape.h * shape.w;
    each_chunk_mut(&mut y, out_h * out_w, |i, y| {
        let x = &x[i * n_in..][..n_in];
        simd.vectorise(
            #[inline(always)]
            || match shape.kind {
                // NaN stays NaN, as in PyTorch.
                PoolKind::Max => plane(
                    shape,
                    x,
                    y,
                    T::from_f64(f64::NEG_INFINITY),
                    #[inline(always)]
                    |a, b| {
                        if b > a || b.partial_cmp(&b).is_none() {
                            b
                        } else {
                            a
                        }
                    },
                ),
                PoolKind::Average => plane(
                    shape,
                    x,
                    y,
                    T::default(),
                    #[inline(always)]
                    |a, b| a + b,
                ),
            },
        );
        if shape.kind == PoolKind::Average {
            for (i, to) in y.chunks_exact_mut(out_w).enumerate() {
                let rows = shape.window(i, shape.h);
                for (column, to) in to.iter_mut().enumerate() {
                    *to *= shape.share(&rows, column);
                }
            }
        }
    });
    y
}

/// Pools one plane with an operation and its neutral element.
#[inline(always)]
fn plane<T: Real>(
    shape: &PoolShape,
    x: &[T],
    y: &mut [T],
    neutral: T,
    combine: impl Fn(T, T) -> T + Copy,
) {
    let w = shape.w;
    T::with_scratch([w, 0], |line, _| {
        for (i, to) in y.chunks_exact_mut(shape.out_w()).enumerate() {
            let rows = shape.window(i, shape.h);
            line.copy_from_slice(&x[rows.start * w..][..w]);
            for row in rows.skip(1) {
                for (sum, &v) in line.iter_mut().zip(&x[row * w..][..w]) {
                    *sum = combine(*sum, v);
                }
            }
            to.fill(neutral);
            for kx in 0..shape.k {
                let (outputs, first) = shape.reached(kx);
                if outputs.is_empty() {
                    continue;
                }
                let to = &mut to[outputs];
                if shape.stride == 1 {
                    for (to, &v) in to.iter_mut().zip(&line[first..]) {
                        *to = combine(*to, v);
                    }
                } else {
                    for (to, &v) in to
                        .iter_mut()
                        .zip(line[first..].iter().step_by(shape.stride))
                    {
                        *to = combine(*to, v);
                    }
                }
            }
        }
    });
}

/// The gradient of `x`, from `dy` shaped like the output. The first of equal maxima takes all of it.
pub fn pool_gradient<T: Real>(shape: &PoolShape, x: &[T], dy: &[T]) -> Vec<T> {
    let (out_h, out_w) = (shape.out_h(), shape.out_w());
    let mut dx = vec![T::default(); x.len()];
    let (n_in, n_out) = (shape.h * shape.w, out_h * out_w);
    each_chunk_mut(&mut dx, n_in, |i, dx| {
        let (x, dy) = (&x[i * n_in..][..n_in], &dy[i * n_out..][..n_out]);
        for (i, &dy) in dy.iter().enumerate() {
            let rows = shape.window(i / out_w, shape.h);
            let columns = shape.window(i % out_w, shape.w);
            let places = rows
                .clone()
                .flat_map(|row| columns.clone().map(move |column| row * shape.w + column));
            match shape.kind {
                PoolKind::Max => {
                    let mut best = rows.start * shape.w + columns.start;
                    for place in places {
                        if x[place] > x[best] {
                            best = place;
                        }
                    }
                    dx[best] += dy;
                }
                PoolKind::Average => {
                    let share: T = shape.share(&rows, i % out_w);
                    places.for_each(|place| dx[place] += dy * share);
                }
            }
        }
    });
    dx
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(kind: PoolKind, k: usize, stride: usize, pad: usize) -> PoolShape {
        PoolShape {
            kind,
            h: 3,
            w: 4,
            k,
            stride,
            pad,
        }
    }

    const X: [f64; 12] = [
        1.0, 5.0, -2.0, 0.0, //
        3.0, -4.0, -6.0, 8.0, //
        -1.0, 2.0, 7.0, -3.0,
    ];

    #[test]
    fn maxima_and_means_of_windows_that_reach_over_the_border() {
        assert_eq!(
            pool(&shape(PoolKind::Max, 3, 1, 1), &X),
            [5., 5., 8., 8., 5., 7., 8., 8., 3., 7., 8., 8.]
        );
        assert_eq!(pool(&shape(PoolKind::Max, 3, 2, 0), &X), [7.0]);
        // Only elements inside the image count: the corner is the mean of four, the middle that of nine.
        let mean = pool(&shape(PoolKind::Average, 3, 1, 1), &X);
        assert_eq!((mean[0], mean[5]), (1.25, 5.0 / 9.0));
        assert_eq!(pool(&shape(PoolKind::Average, 2, 2, 0), &X), [1.25, 0.0]);
        // Padding is never the maximum, not even of negative numbers.
        assert_eq!(
            pool(&shape(PoolKind::Max, 3, 2, 1), &X.map(|x| x - 10.0)),
            [-5.0, -2.0, -7.0, -2.0]
        );
    }
}
