//! The weight gradient of 1x1 convolutions, and of dense layers at many positions.

use crate::conv::ConvShape;
use crate::lanes::gather;
use crate::micro::Product;
use crate::shared_mut::{SharedMut, filled};
use crate::simd::{Lanes, Simd, Task};
use crate::threads::each_job;
use crate::workspace::{Line, put, with_lines};
use std::ops::Range;

/// Inputs of one job, two panels of 32.
const INPUTS: usize = 64;
/// Outputs of one job: enough that transposing the inputs again for each job is cheap.
const OUTPUTS: usize = 256;
/// Pixels summed at a time: a panel of inputs stays in the first cache. Short sums also have smaller rounding errors than one long sum.
const PIXELS: usize = 128;
/// Planes from this size on: their rows are so far apart that they would compete for the same lines of a cache, so gradients are copied.
const FAR: usize = 512;
/// Lines from one copied row to the next; an odd number.
const ROW: usize = PIXELS / 16 + 1;

/// `dw = sum over images and pixels of dy x^T`.
#[derive(Clone, Copy)]
pub(in crate::conv) struct PointwiseWeights {
    batch: usize,
    plane: usize,
    inputs: usize,
    outputs: usize,
}

impl PointwiseWeights {
    /// Returns `Some` where whole vectors and register blocks cover the weights.
    pub(in crate::conv) fn of(shape: &ConvShape) -> Option<Self> {
        let applies = shape.k == [1, 1]
            && shape.stride == 1
            && shape.pad == [0; 4]
            && shape.batch * shape.h * shape.w > 0
            && shape.c_in.is_multiple_of(16)
            && shape.c_out.is_multiple_of(8);
        applies.then_some(Self {
            batch: shape.batch,
            plane: shape.h * shape.w,
            inputs: shape.c_in,
            outputs: shape.c_out,
        })
    }

    pub(in crate::conv) fn gradient(self, simd: Simd, x: &[f32], dy: &[f32]) -> Vec<f32> {
        let (pixels, pieces) = (self.batch * self.plane, self.outputs.div_ceil(OUTPUTS));
        assert!(
            x.len() == pixels * self.inputs && dy.len() == pixels * self.outputs,
            "pointwise: sizes do not fit"
        );
        let lines = PIXELS.min(self.plane.next_multiple_of(16)) * INPUTS / 16;
        let copied = if self.plane >= FAR {
            OUTPUTS.min(self.outputs) * ROW
        } else {
            0
        };
        // SAFETY: the jobs cover all outputs and inputs.
        unsafe {
            filled(self.inputs * self.outputs, |dw: SharedMut<'_, f32>| {
                each_job(self.inputs.div_ceil(INPUTS) * pieces, |job| {
                    let (input, output) = (job / pieces * INPUTS, job % pieces * OUTPUTS);
                    with_lines([lines, copied], |[pack, rows]| {
                        simd.run(Part {
                            of: self,
                            inputs: input..(input + INPUTS).min(self.inputs),
                            outputs: output..(output + OUTPUTS).min(self.outputs),
                            x,
                            dy,
                            pack,
                            rows,
                            dw,
                        });
                    });
                });
            })
        }
    }
}

/// The weights between some inputs and some outputs.
struct Part<'a> {
    of: PointwiseWeights,
    inputs: Range<usize>,
    outputs: Range<usize>,
    x: &'a [f32],
    dy: &'a [f32],
    /// Memory for pixels whose inputs are innermost.
    pack: &'a mut [Line],
    /// Memory for copied rows of gradients, or empty to read them in place.
    rows: &'a mut [Line],
    dw: SharedMut<'a, f32>,
}

impl Task for Part<'_> {
    type Output = ();
    #[inline(always)]
    fn run<V: Lanes>(self) {
        let PointwiseWeights {
            batch,
            plane,
            inputs,
            outputs,
        } = self.of;
        let step = self.inputs.len() / 16;
        for image in 0..batch {
            for first in (0..plane).step_by(PIXELS) {
                let pixels = PIXELS.min(plane - first);
                for line in 0..step {
                    let channel = image * inputs + self.inputs.start + 16 * line;
                    let from = self.x.as_ptr().wrapping_add(channel * plane + first);
                    // SAFETY: pixels of sixteen inputs of the image.
                    unsafe { gather::<V>(from, plane, 16, pixels, &mut self.pack[line..], step) };
                }
                let channel = image * outputs + self.outputs.start;
                let dy = self.dy.as_ptr().wrapping_add(channel * plane + first);
                let (a, a_row) = if self.rows.is_empty() {
                    (dy, plane)
                } else {
                    for (i, row) in self
                        .rows
                        .chunks_exact_mut(ROW)
                        .take(self.outputs.len())
                        .enumerate()
                    {
                        // SAFETY: pixels of one output of the image.
                        unsafe { copy_row::<V>(dy.wrapping_add(i * plane), pixels, row) };
                    }
                    (self.rows.as_ptr().cast(), 16 * ROW)
                };
                let at = self.outputs.start * inputs + self.inputs.start;
                let product = Product {
                    rows: self.outputs.len(),
                    columns: self.inputs.len(),
                    depth: pixels,
                    a,
                    a_row,
                    a_depth: 1,
                    b: self.pack.as_ptr().cast(),
                    b_depth: 16 * step,
                    b_panel: 32,
                    c: self.dw.as_mut_ptr().wrapping_add(at),
                    c_row: inputs,
                    add: image + first > 0,
                    bias: std::ptr::null(),
                };
                // SAFETY: in bounds by the lengths that `gradient` has checked; jobs have different weights.
                unsafe { product.run::<V>() };
            }
        }
    }
}

/// Copies `n` floats.
///
/// # Safety
/// `n` readable floats.
#[inline(always)]
unsafe fn copy_row<V: Lanes>(from: *const f32, n: usize, to: &mut [Line]) {
    for (i, line) in to[..n.div_ceil(16)].iter_mut().enumerate() {
        let from = from.wrapping_add(16 * i);
        // SAFETY: the caller's promise.
        let value = unsafe {
            match n - 16 * i {
                left @ 0..16 => V::load_first(from, left),
                _ => V::load(from),
            }
        };
        put(line, value);
    }
}
