//! Dense layers: `y = x w^T + bias` with `x` `[rows, n_in]` and `w` `[n_out, n_in]`: convolutions of images of one pixel.

use super::Real;
use super::conv::{self, ConvShape};

fn shape(rows: usize, n_in: usize, n_out: usize) -> ConvShape {
    ConvShape {
        batch: rows,
        c_in: n_in,
        h: 1,
        w: 1,
        c_out: n_out,
        k: 1,
        stride: 1,
        pad: 0,
    }
}

pub(crate) fn forward<T: Real>(x: &[T], w: &[T], bias: &[T], n_in: usize) -> Vec<T> {
    let rows = x.len() / n_in.max(1);
    conv::forward(&shape(rows, n_in, bias.len()), x, w, Some(bias))
}

pub(crate) fn input_gradient<T: Real>(dy: &[T], w: &[T], n_in: usize, n_out: usize) -> Vec<T> {
    let rows = dy.len() / n_out.max(1);
    conv::input_gradient(&shape(rows, n_in, n_out), dy, w)
}

pub(crate) fn weight_gradient<T: Real>(x: &[T], dy: &[T], n_in: usize, n_out: usize) -> Vec<T> {
    let rows = dy.len() / n_out.max(1);
    conv::weight_gradient(&shape(rows, n_in, n_out), x, dy)
}

pub(crate) fn bias_gradient<T: Real>(dy: &[T], n_out: usize) -> Vec<T> {
    conv::bias_gradient(dy, dy.len() / n_out.max(1), n_out)
}
