//! Nearest-neighbour upsampling by two and 2x2 pooling of planes; each is the adjoint of the other up to a factor.

use crate::Element;
use crate::choice::Choice;
use crate::real::Scalar;
use crate::shared_mut::{SharedMut, filled};
use crate::threads::each_short_job;

/// Fewest elements of one job.
const PLANES: usize = 1 << 14;

/// Repeats every pixel of each `h x w` plane in a 2x2 square.
pub fn upsample_2x<E: Element>(x: &[E], h: usize, w: usize) -> Vec<E> {
    // SAFETY: the two rows of four pixels per pixel are written, for all rows.
    unsafe {
        planes(
            x,
            h * w,
            4 * h * w,
            #[inline(always)]
            |x, y| {
                for (row, x) in x.chunks_exact(w).enumerate() {
                    let (first, second) = (
                        y.wrapping_add(4 * w * row),
                        y.wrapping_add(4 * w * row + 2 * w),
                    );
                    for (i, &value) in x.iter().enumerate() {
                        first.add(2 * i).write(value);
                        first.add(2 * i + 1).write(value);
                        second.add(2 * i).write(value);
                        second.add(2 * i + 1).write(value);
                    }
                }
            },
        )
    }
}

/// The sum of each 2x2 square times `factor`; an odd last row or column is ignored.
pub fn pool_2x<E: Element>(x: &[E], h: usize, w: usize, factor: f64) -> Vec<E> {
    let (out_h, out_w, factor) = (h / 2, w / 2, E::Real::from_f64(factor));
    // SAFETY: all rows and columns of the output are written.
    unsafe {
        planes(
            x,
            h * w,
            out_h * out_w,
            #[inline(always)]
            |x, y| {
                for row in 0..out_h {
                    let (first, second) = (
                        &x[2 * row * w..][..2 * out_w],
                        &x[(2 * row + 1) * w..][..2 * out_w],
                    );
                    let y = y.wrapping_add(row * out_w);
                    for (i, (a, b)) in first
                        .chunks_exact(2)
                        .zip(second.chunks_exact(2))
                        .enumerate()
                    {
                        let sum = a[0].real() + a[1].real() + b[0].real() + b[1].real();
                        y.add(i).write(E::of(sum * factor));
                    }
                }
            },
        )
    }
}

/// The adjoint of [`pool_2x`] for planes of `h x w`, from gradients of `h/2 x w/2`.
pub fn pool_2x_gradient<E: Element>(dy: &[E], h: usize, w: usize, factor: f64) -> Vec<E> {
    let (out_h, out_w, factor) = (h / 2, w / 2, E::Real::from_f64(factor));
    // SAFETY: each row is written: from the gradients, or with zeros where no square reaches.
    unsafe {
        planes(
            dy,
            out_h * out_w,
            h * w,
            #[inline(always)]
            |dy, dx| {
                for y in 0..h {
                    let row = dx.wrapping_add(y * w);
                    let reached = if y < 2 * out_h { 2 * out_w } else { 0 };
                    if reached > 0 {
                        for (i, &value) in dy[y / 2 * out_w..][..out_w].iter().enumerate() {
                            let value = E::of(value.real() * factor);
                            row.add(2 * i).write(value);
                            row.add(2 * i + 1).write(value);
                        }
                    }
                    for x in reached..w {
                        row.add(x).write(E::default());
                    }
                }
            },
        )
    }
}

/// Runs `f` on each plane of `n_in` elements to fill one of `n_out`.
///
/// # Safety
/// `f` writes `n_out` elements from its pointer on.
unsafe fn planes<E: Element>(
    x: &[E],
    n_in: usize,
    n_out: usize,
    f: impl Fn(&[E], *mut E) + Sync,
) -> Vec<E> {
    let n_planes = x.len() / n_in.max(1);
    let simd = Choice::get().simd;
    // SAFETY: the jobs cover all planes, and each fills its own by the caller's promise.
    unsafe {
        filled(n_planes * n_out, |y: SharedMut<'_, E>| {
            each_short_job(n_planes, PLANES.div_ceil(n_out.max(1)), |i| {
                let x = &x[i * n_in..][..n_in];
                let y = y.as_mut_ptr().wrapping_add(i * n_out);
                simd.vectorise(
                    #[inline(always)]
                    || f(x, y),
                );
            });
        })
    }
}
