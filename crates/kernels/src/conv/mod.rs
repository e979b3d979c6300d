//! Convolution of `[b, c, h, w]`: its shapes, and which algorithm computes it.

pub(crate) mod bf16;
mod direct;
mod pointwise;
mod small;
mod strided;
#[cfg(test)]
mod tests;
mod tiled;
mod winograd;

use crate::choice::Choice;
use crate::elementwise::add_to;
use crate::real::Scalar;
use crate::{Element, Real};
use pointwise::{Pointwise, PointwiseWeights};
use small::SmallMaps;
use strided::Strided;
use winograd::{Filters, Winograd};

/// The shapes of one convolution: `x` is `[b, c_in, h, w]`, `w` is `[c_out, c_in, k_h, k_w]`, the output
/// is `[b, c_out, out_h, out_w]`. Pairs are height and width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvShape {
    /// Images.
    pub batch: usize,
    /// Input channels.
    pub c_in: usize,
    /// Height of the input.
    pub h: usize,
    /// Width of the input.
    pub w: usize,
    /// Output channels.
    pub c_out: usize,
    /// Size of the filters.
    pub k: [usize; 2],
    /// Distance between two filter positions.
    pub stride: usize,
    /// Rows and columns of zeros: top, left, bottom, right.
    pub pad: [usize; 4],
}

/// Below this many input channels, transformed inputs are mostly padding and the weight gradient is faster by im2col.
const FEW_INPUTS: usize = 16;

impl ConvShape {
    /// A dense layer applied at each of `n` positions.
    pub fn dense(batch: usize, c_in: usize, n: usize, c_out: usize) -> Self {
        Self {
            batch,
            c_in,
            h: 1,
            w: n,
            c_out,
            k: [1, 1],
            stride: 1,
            pad: [0; 4],
        }
    }

    /// Asserts that the input, the weights and the output have these lengths, where given.
    fn check(&self, x: Option<usize>, w: Option<usize>, y: Option<usize>) {
        let n_x = self.batch * self.c_in * self.h * self.w;
        let n_w = self.c_out * self.c_in * self.taps();
        let n_y = self.batch * self.c_out * self.out_h() * self.out_w();
        for (length, expected) in [(x, n_x), (w, n_w), (y, n_y)] {
            assert!(
                length.is_none_or(|length| length == expected),
                "conv2d: sizes do not fit"
            );
        }
    }

    /// Height of the output.
    pub fn out_h(&self) -> usize {
        (self.h + self.pad[0] + self.pad[2] - self.k[0]) / self.stride + 1
    }

    /// Weights between one input and one output channel.
    pub(crate) fn taps(&self) -> usize {
        self.k[0] * self.k[1]
    }

    /// Multiplications and additions of the direct sum, of the result or of one of the two large gradients.
    pub fn flops(&self) -> f64 {
        let results = self.batch * self.c_out * self.out_h() * self.out_w();
        2.0 * (results * self.c_in * self.taps()) as f64
    }

    /// Those of the products that remain of f32 maps, by the algorithm in use; without its transforms.
    pub fn flops_of_products(&self) -> f64 {
        let choice = Choice::get();
        match Winograd::of(self, choice) {
            Some(winograd) if SmallMaps::of(self, choice.simd).is_none() => winograd.flops(self),
            _ => self.flops(),
        }
    }

    /// Width of the output.
    pub fn out_w(&self) -> usize {
        (self.w + self.pad[1] + self.pad[3] - self.k[1]) / self.stride + 1
    }
}

/// What is added to the products of a convolution.
#[derive(Clone, Copy)]
pub struct Added<'a, T, E = T> {
    /// A number for each output channel.
    pub bias: Option<&'a [T]>,
    /// A map shaped like the result.
    pub map: Option<&'a [E]>,
}

impl<T, E> Added<'_, T, E> {
    /// Nothing is added.
    pub const NOTHING: Self = Self {
        bias: None,
        map: None,
    };
}

impl<'a, T, E> Added<'a, T, E> {
    /// A bias alone.
    pub fn bias(bias: &'a [T]) -> Self {
        Self {
            bias: Some(bias),
            map: None,
        }
    }
}

/// The convolution `w * x`, plus what is added. Next to bf16 maps, the weights are rounded to bf16, sums are f32, and each element of the
/// result is rounded once.
pub fn conv2d<E: Element>(
    shape: &ConvShape,
    x: &[E],
    w: &[E::Real],
    added: Added<'_, E::Real, E>,
) -> Vec<E> {
    shape.check(Some(x.len()), Some(w.len()), added.map.map(<[E]>::len));
    E::conv2d(shape, x, w, added)
}

pub(crate) fn forward<T: Real>(
    choice: Choice,
    shape: &ConvShape,
    x: &[T],
    w: &[T],
    Added { bias, map }: Added<'_, T>,
) -> Vec<T> {
    let plus_map = |mut y: Vec<T>| {
        if let Some(map) = map {
            add_to(&mut y, map);
        }
        y
    };
    if let (Some(x), Some(w)) = (T::as_f32(x), T::as_f32(w)) {
        let bias = bias.and_then(T::as_f32);
        if let Some(small) = SmallMaps::of(shape, choice.simd) {
            return plus_map(T::from_f32(small.forward(x, w, bias)));
        }
        if let Some(winograd) = Winograd::of(shape, choice) {
            let filters = Filters {
                w,
                c_out: shape.c_out,
                c_in: shape.c_in,
                rotated: false,
            };
            let map = map.and_then(T::as_f32);
            return T::from_f32(winograd.convolve(shape, x, filters, Added { bias, map }));
        }
        if let Some(pointwise) = Pointwise::forward(shape) {
            return plus_map(T::from_f32(pointwise.run(choice.simd, x, w, bias)));
        }
        if let Some(strided) = Strided::of(shape, choice.simd) {
            return plus_map(T::from_f32(strided.forward(x, w, bias)));
        }
    }
    plus_map(direct::forward(shape, x, w, bias))
}

/// The gradient of `x`, from `dy` shaped like the output.
pub fn conv2d_input_gradient<E: Element>(shape: &ConvShape, dy: &[E], w: &[E::Real]) -> Vec<E> {
    shape.check(None, Some(w.len()), Some(dy.len()));
    E::conv2d_input_gradient(shape, dy, w)
}

pub(crate) fn input_gradient<T: Real>(
    choice: Choice,
    shape: &ConvShape,
    dy: &[T],
    w: &[T],
) -> Vec<T> {
    if let (Some(dy), Some(w)) = (T::as_f32(dy), T::as_f32(w)) {
        if let Some(small) = SmallMaps::of(shape, choice.simd) {
            return T::from_f32(small.input_gradient(dy, w));
        }
        if let Some(winograd) = Winograd::of(shape, choice) {
            let filters = Filters {
                w,
                c_out: shape.c_out,
                c_in: shape.c_in,
                rotated: true,
            };
            return T::from_f32(winograd.convolve(shape, dy, filters, Added::NOTHING));
        }
        if let Some(pointwise) = Pointwise::backward(shape) {
            return T::from_f32(pointwise.run(choice.simd, dy, w, None));
        }
        if let Some(strided) = Strided::of(shape, choice.simd) {
            return T::from_f32(strided.input_gradient(dy, w));
        }
    }
    direct::input_gradient(shape, dy, w)
}

/// The gradient of `w`, from `dy` shaped like the output.
pub fn conv2d_weight_gradient<E: Element>(shape: &ConvShape, x: &[E], dy: &[E]) -> Vec<E::Real> {
    shape.check(Some(x.len()), None, Some(dy.len()));
    E::conv2d_weight_gradient(shape, x, dy)
}

pub(crate) fn weight_gradient<T: Real>(
    choice: Choice,
    shape: &ConvShape,
    x: &[T],
    dy: &[T],
) -> Vec<T> {
    if let (Some(x), Some(dy)) = (T::as_f32(x), T::as_f32(dy)) {
        if let Some(small) = SmallMaps::of(shape, choice.simd) {
            return T::from_f32(small.weight_gradient(x, dy));
        }
        if shape.c_in >= FEW_INPUTS
            && let Some(winograd) = Winograd::of(shape, choice)
        {
            return T::from_f32(winograd.weight_gradient(shape, x, dy));
        }
        if let Some(pointwise) = PointwiseWeights::of(shape) {
            return T::from_f32(pointwise.gradient(choice.simd, x, dy));
        }
        if let Some(strided) = Strided::of(shape, choice.simd) {
            return T::from_f32(strided.weight_gradient(x, dy));
        }
    }
    direct::weight_gradient(shape, x, dy)
}

/// The gradient of a bias: the sum of `dy` `[b, c, plane]` over images and pixels.
pub fn conv2d_bias_gradient<E: Element>(dy: &[E], batch: usize, channels: usize) -> Vec<E::Real> {
    let plane = dy.len() / (batch * channels).max(1);
    assert_eq!(
        dy.len(),
        batch * channels * plane,
        "conv2d: sizes do not fit"
    );
    // In the order of the memory: planes of one channel are far apart.
    let mut sums = vec![0.0; channels];
    for image in crate::norm::plane_totals(dy, plane).chunks_exact(channels.max(1)) {
        for (sum, total) in sums.iter_mut().zip(image) {
            *sum += total;
        }
    }
    sums.into_iter().map(E::Real::from_f64).collect()
}
