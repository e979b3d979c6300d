//! 1x1 convolutions, and dense layers at many positions: one matrix product per image, whose columns are the pixels.

mod weights;

pub(super) use weights::PointwiseWeights;

use super::ConvShape;
use crate::lanes::gather;
use crate::micro::Product;
use crate::shared_mut::{SharedMut, filled};
use crate::simd::{Lanes, Simd, Task};
use crate::threads::each_short_job;
use crate::workspace::{Line, floats, put, with_lines};
use std::ops::Range;

/// Output channels of one job: enough that copying the pixels again for each job is cheap.
const ROWS: usize = 256;
/// Pixels of one job.
const COLUMNS: usize = 64;
/// Inputs summed at a time: 32 pixels of them stay in the first cache. Short sums also have smaller rounding errors than one long sum.
const DEPTH: usize = 192;
/// Fewest multiplications of one job.
const MIN_WORK: usize = 1 << 18;
/// Fewest weights that one job transposes.
const MIN_WEIGHTS: usize = 1 << 16;

/// `y[image] = w x[image]` with planes of pixels as the columns of `x` and `y`.
#[derive(Clone, Copy)]
pub(super) struct Pointwise {
    batch: usize,
    plane: usize,
    inputs: usize,
    outputs: usize,
    /// The weights are `[inputs, outputs]`, as in the input gradient, instead of `[outputs, inputs]`.
    transposed: bool,
}

impl Pointwise {
    /// The forward pass, where whole vectors and register blocks cover the output.
    pub(super) fn forward(shape: &ConvShape) -> Option<Self> {
        let ConvShape {
            batch,
            c_in,
            c_out,
            h,
            w,
            k,
            stride,
            pad,
        } = *shape;
        let applies = k == [1, 1]
            && stride == 1
            && pad == [0; 4]
            && (h * w).is_multiple_of(16)
            && c_out.is_multiple_of(8);
        applies.then_some(Self {
            batch,
            plane: h * w,
            inputs: c_in,
            outputs: c_out,
            transposed: false,
        })
    }

    /// The input gradient.
    pub(super) fn backward(shape: &ConvShape) -> Option<Self> {
        let back = Self::forward(&ConvShape {
            c_in: shape.c_out,
            c_out: shape.c_in,
            ..*shape
        })?;
        Some(Self {
            transposed: true,
            ..back
        })
    }

    pub(super) fn run(self, simd: Simd, x: &[f32], w: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
        let Self {
            batch,
            plane,
            inputs,
            outputs,
            ..
        } = self;
        assert!(
            x.len() == batch * inputs * plane && w.len() == inputs * outputs,
            "pointwise: sizes do not fit"
        );
        assert!(
            bias.is_none_or(|bias| bias.len() == outputs),
            "pointwise: a bias of another size"
        );
        if !self.transposed {
            return self.multiply(simd, x, (w, inputs), bias);
        }
        // An odd number of lines: rows that are a power of two apart would compete for the same lines of a cache.
        let row = inputs.div_ceil(16) | 1;
        with_lines([outputs.next_multiple_of(16) * row], |[lines]| {
            let at_least = MIN_WEIGHTS.div_ceil(16 * inputs.max(1));
            let shared = SharedMut::new(lines);
            each_short_job(outputs.div_ceil(16), at_least, |i| {
                // SAFETY: each job has sixteen rows of its own.
                let to = unsafe { shared.slice(16 * row * i, 16 * row) };
                simd.run(TransposeWeights {
                    of: self,
                    w,
                    first: 16 * i,
                    row,
                    to,
                });
            });
            self.multiply(simd, x, (floats(lines), 16 * row), bias)
        })
    }

    /// The product, for weights `[outputs, inputs]` whose rows are this far apart.
    fn multiply(
        self,
        simd: Simd,
        x: &[f32],
        weights: (&[f32], usize),
        bias: Option<&[f32]>,
    ) -> Vec<f32> {
        let Self {
            batch,
            plane,
            inputs,
            outputs,
            ..
        } = self;
        let (rows, columns) = (outputs.div_ceil(ROWS), plane.div_ceil(COLUMNS));
        let work = COLUMNS.min(plane) * inputs * ROWS.min(outputs);
        // SAFETY: the jobs cover all images, outputs and pixels.
        unsafe {
            filled(batch * outputs * plane, |y: SharedMut<'_, f32>| {
                each_short_job(batch * rows * columns, MIN_WORK / work.max(1), |i| {
                    let (row, column) = (i / columns % rows * ROWS, i % columns * COLUMNS);
                    with_lines([2 * DEPTH.min(inputs)], |[pack]| {
                        simd.run(Multiply {
                            of: self,
                            image: i / columns / rows,
                            rows: row..(row + ROWS).min(outputs),
                            columns: column..(column + COLUMNS).min(plane),
                            x,
                            weights,
                            bias,
                            pack,
                            y,
                        });
                    });
                });
            })
        }
    }
}

/// Sixteen outputs of weights `[inputs, outputs]`, as rows of inputs.
struct TransposeWeights<'a> {
    of: Pointwise,
    w: &'a [f32],
    first: usize,
    /// Lines from one output to the next.
    row: usize,
    to: &'a mut [Line],
}

impl Task for TransposeWeights<'_> {
    type Output = ();
    #[inline(always)]
    fn run<V: Lanes>(self) {
        let Pointwise {
            inputs, outputs, ..
        } = self.of;
        let n = (outputs - self.first).min(16);
        for input in (0..inputs).step_by(16) {
            let from = self.w.as_ptr().wrapping_add(input * outputs + self.first);
            let (rows, to) = ((inputs - input).min(16), &mut self.to[input / 16..]);
            // SAFETY: `n` outputs of `rows` inputs.
            unsafe { gather::<V>(from, outputs, rows, n, to, self.row) };
        }
    }
}

/// Some outputs at some pixels of an image.
struct Multiply<'a> {
    of: Pointwise,
    image: usize,
    rows: Range<usize>,
    columns: Range<usize>,
    x: &'a [f32],
    weights: (&'a [f32], usize),
    bias: Option<&'a [f32]>,
    /// Memory for 32 pixels of [`DEPTH`] inputs.
    pack: &'a mut [Line],
    y: SharedMut<'a, f32>,
}

impl Task for Multiply<'_> {
    type Output = ();
    #[inline(always)]
    fn run<V: Lanes>(self) {
        let Pointwise {
            plane,
            inputs,
            outputs,
            ..
        } = self.of;
        let (w, row) = self.weights;
        let bias = self
            .bias
            .map_or(std::ptr::null(), |bias| bias[self.rows.clone()].as_ptr());
        let first_row = self.image * outputs + self.rows.start;
        for column in self.columns.clone().step_by(32) {
            let width = (self.columns.end - column).min(32);
            let c = self.y.as_mut_ptr().wrapping_add(first_row * plane + column);
            // No input is one empty sum.
            for first in (0..inputs.max(1)).step_by(DEPTH) {
                let depth = DEPTH.min(inputs - first);
                let from = (self.image * inputs + first) * plane + column;
                for (i, pair) in self.pack[..2 * depth]
                    .as_chunks_mut::<2>()
                    .0
                    .iter_mut()
                    .enumerate()
                {
                    for (half, line) in pair[..width / 16].iter_mut().enumerate() {
                        let at = self.x.as_ptr().wrapping_add(from + i * plane + 16 * half);
                        // SAFETY: sixteen pixels of an input, by the assertions of `Pointwise::run`.
                        put(line, unsafe { V::load(at) });
                    }
                }
                let product = Product {
                    rows: self.rows.len(),
                    columns: width,
                    depth,
                    a: w.as_ptr().wrapping_add(self.rows.start * row + first),
                    a_row: row,
                    a_depth: 1,
                    b: self.pack.as_ptr().cast(),
                    b_depth: 32,
                    b_panel: 32,
                    c,
                    c_row: plane,
                    add: first > 0,
                    bias: if first > 0 { std::ptr::null() } else { bias },
                };
                // SAFETY: the assertions of `Pointwise::run`; jobs write different images, outputs or pixels.
                unsafe { product.run::<V>() };
            }
        }
    }
}
