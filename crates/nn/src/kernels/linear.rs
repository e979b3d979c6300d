//! Dense layers: `y = x w^T + bias` with `x` `[rows, n_in]` and `w` `[n_out, n_in]`.

use super::Real;
use super::gemm::{View, gemm};

pub(crate) fn forward<T: Real>(x: &[T], w: &[T], bias: &[T], n_in: usize) -> Vec<T> {
    let n_out = bias.len();
    let rows = x.len() / n_in.max(1);
    let mut y: Vec<T> = bias.iter().copied().cycle().take(rows * n_out).collect();
    gemm(
        rows,
        n_out,
        n_in,
        &mut y,
        n_out,
        true,
        View::new(x, n_in),
        View::new(w, n_in).t(),
    );
    y
}

pub(crate) fn input_gradient<T: Real>(dy: &[T], w: &[T], n_in: usize, n_out: usize) -> Vec<T> {
    let rows = dy.len() / n_out.max(1);
    let mut dx = vec![T::default(); rows * n_in];
    gemm(
        rows,
        n_in,
        n_out,
        &mut dx,
        n_in,
        false,
        View::new(dy, n_out),
        View::new(w, n_in),
    );
    dx
}

pub(crate) fn weight_gradient<T: Real>(x: &[T], dy: &[T], n_in: usize, n_out: usize) -> Vec<T> {
    let rows = dy.len() / n_out.max(1);
    let mut dw = vec![T::default(); n_out * n_in];
    gemm(
        n_out,
        n_in,
        rows,
        &mut dw,
        n_in,
        false,
        View::new(dy, n_out).t(),
        View::new(x, n_in),
    );
    dw
}

pub(crate) fn bias_gradient<T: Real>(dy: &[T], n_out: usize) -> Vec<T> {
    let mut total = vec![0.0f64; n_out];
    for row in dy.chunks_exact(n_out.max(1)) {
        for (sum, &value) in total.iter_mut().zip(row) {
            *sum += value.f64();
        }
    }
    total.into_iter().map(T::of).collect()
}
