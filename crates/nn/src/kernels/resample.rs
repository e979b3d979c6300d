//! Nearest enlargement by two and 2x2 averaging of planes; each is the other's adjoint up to a factor.

use super::Real;
use rayon::prelude::*;

/// Every pixel of each `h x w` plane becomes a square of four.
pub(crate) fn up<T: Real>(x: &[T], h: usize, w: usize) -> Vec<T> {
    let mut y = vec![T::default(); x.len() * 4];
    y.par_chunks_mut((4 * h * w).max(1))
        .zip(x.par_chunks((h * w).max(1)))
        .for_each(|(y, x)| {
            for (two_rows, row) in y.chunks_exact_mut(4 * w).zip(x.chunks_exact(w)) {
                let (first, second) = two_rows.split_at_mut(2 * w);
                for (pair, &value) in first.chunks_exact_mut(2).zip(row) {
                    pair.fill(value);
                }
                second.copy_from_slice(first);
            }
        });
    y
}

/// Sum of each 2x2 square times `factor`; an odd last row or column is left out.
pub(crate) fn down<T: Real>(x: &[T], h: usize, w: usize, factor: f64) -> Vec<T> {
    let (out_h, out_w, factor) = (h / 2, w / 2, T::of(factor));
    let planes = x.len() / (h * w).max(1);
    let mut y = vec![T::default(); planes * out_h * out_w];
    y.par_chunks_mut((out_h * out_w).max(1))
        .zip(x.par_chunks((h * w).max(1)))
        .for_each(|(y, x)| {
            for (row, y) in y.chunks_exact_mut(out_w.max(1)).enumerate() {
                let (first, second) = (&x[2 * row * w..][..w], &x[(2 * row + 1) * w..][..w]);
                for (i, y) in y.iter_mut().enumerate() {
                    *y = (first[2 * i] + first[2 * i + 1] + second[2 * i] + second[2 * i + 1])
                        * factor;
                }
            }
        });
    y
}

/// The adjoint of [`down`] for planes of `h x w`, from gradients of `h/2 x w/2`.
pub(crate) fn down_gradient<T: Real>(dy: &[T], h: usize, w: usize, factor: f64) -> Vec<T> {
    let (out_h, out_w, factor) = (h / 2, w / 2, T::of(factor));
    let planes = dy.len() / (out_h * out_w).max(1);
    let mut dx = vec![T::default(); planes * h * w];
    dx.par_chunks_mut((h * w).max(1))
        .zip(dy.par_chunks((out_h * out_w).max(1)))
        .for_each(|(dx, dy)| {
            for (row, dy) in dy.chunks_exact(out_w.max(1)).enumerate() {
                for (i, &dy) in dy.iter().enumerate() {
                    for at in [2 * row * w + 2 * i, (2 * row + 1) * w + 2 * i] {
                        dx[at] = dy * factor;
                        dx[at + 1] = dy * factor;
                    }
                }
            }
        });
    dx
}
