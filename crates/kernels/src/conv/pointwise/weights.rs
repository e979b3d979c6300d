//! The weight gradient of 1x1 convolutions, and of dense layers at many positions.

use crate::conv::ConvShape;
use crate::lanes::gather;
use crate::micro::Product;
use crate::shared_mut::{SharedMut, filled};
use crate::simd::{Lanes, Simd, Task};
use crate::workspace::{Line, with_lines};
use rayon::prelude::*;
use std::ops::Range;

/// Inputs of one job, two panels of 32.
const INPUTS: usize = 64;
/// Outputs of one job: enough that transposing the inputs again for each job is cheap.
const OUTPUTS: usize = 256;
/// Pixels summed at a time: a panel of inputs stays in the first cache. Short sums also have smaller rounding errors than one long sum.
const PIXELS: usize = 128;

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
        // SAFETY: the jobs cover all outputs and inputs.
        unsafe {
            filled(self.inputs * self.outputs, |dw: SharedMut<'_, f32>| {
                (0..self.inputs.div_ceil(INPUTS) * pieces)
                    .into_par_iter()
                    .for_each(|job| {
                        let (input, output) = (job / pieces * INPUTS, job % pieces * OUTPUTS);
                        with_lines([lines], |[pack]| {
                            simd.run(Part {
                                of: self,
                                inputs: input..(input + INPUTS).min(self.inputs),
                                outputs: output..(output + OUTPUTS).min(self.outputs),
                                x,
                                dy,
                                pack,
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
                let at = self.outputs.start * inputs + self.inputs.start;
                let product = Product {
                    rows: self.outputs.len(),
                    columns: self.inputs.len(),
                    depth: pixels,
                    a: self.dy.as_ptr().wrapping_add(channel * plane + first),
                    a_row: plane,
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
