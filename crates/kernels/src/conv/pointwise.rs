//! 1x1 convolutions: one matrix product per image, on the pixels in place.

use super::ConvShape;
use crate::micro::Product;
use crate::shared_mut::{SharedMut, filled};
use crate::simd::{Lanes, Simd, Task};
use crate::workspace::{Line, put, with_lines};
use rayon::prelude::*;

/// Output channels of one job, for small planes.
const ROWS: usize = 64;
/// Planes from this size on are cut into pieces of [`COLUMNS`] pixels.
const PACKED_PLANE: usize = 512;
const COLUMNS: usize = 64;
/// Fewest multiplications of one job.
const MIN_WORK: usize = 1 << 18;

/// `y[image] = w x[image]` with planes of pixels as the columns of `x` and `y`.
#[derive(Clone, Copy)]
pub(super) struct Pointwise {
    batch: usize,
    plane: usize,
    inputs: usize,
    outputs: usize,
    /// Strides of the weights from one output and from one input to the next.
    strides: (usize, usize),
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
            strides: (c_in, 1),
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
            strides: (1, shape.c_in),
            ..back
        })
    }

    pub(super) fn run(self, simd: Simd, x: &[f32], w: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
        let Self {
            batch,
            plane,
            inputs,
            outputs,
            strides,
        } = self;
        assert!(
            x.len() == batch * inputs * plane && w.len() == inputs * outputs,
            "pointwise: sizes do not fit"
        );
        assert!(
            bias.is_none_or(|bias| bias.len() == outputs),
            "pointwise: a bias of another size"
        );
        // Rows of large planes are so far apart that they would compete for the same lines of a cache.
        let packed = plane >= PACKED_PLANE;
        let (rows, columns) = if packed {
            (outputs, COLUMNS)
        } else {
            (ROWS, plane)
        };
        let pieces = outputs.div_ceil(rows) * plane.div_ceil(columns);
        let jobs_at_once = (MIN_WORK / (columns * inputs * rows.min(outputs)).max(1)).max(1);
        let lines = if packed { inputs * COLUMNS / 16 } else { 0 };
        // SAFETY: the jobs cover all images, outputs and pixels.
        unsafe {
            filled(batch * outputs * plane, |y: SharedMut<'_, f32>| {
                (0..batch * pieces)
                    .into_par_iter()
                    .with_min_len(jobs_at_once)
                    .for_each(|i| {
                        let (image, piece) = (i / pieces, i % pieces);
                        let (row, column) = if packed {
                            (0, piece * columns)
                        } else {
                            (piece * rows, 0)
                        };
                        let product = Product {
                            rows: rows.min(outputs - row),
                            columns: columns.min(plane - column),
                            depth: inputs,
                            a: w.as_ptr().wrapping_add(row * strides.0),
                            a_row: strides.0,
                            a_depth: strides.1,
                            b: x.as_ptr().wrapping_add(image * inputs * plane + column),
                            b_depth: plane,
                            b_panel: 32,
                            c: y.as_mut_ptr()
                                .wrapping_add((image * outputs + row) * plane + column),
                            c_row: plane,
                            add: false,
                            bias: bias
                                .map_or(std::ptr::null(), |bias| bias.as_ptr().wrapping_add(row)),
                        };
                        with_lines([lines], |[pack]| simd.run(Multiply { product, pack }));
                    });
            })
        }
    }
}

/// One product whose elements [`Pointwise::run`] has checked.
struct Multiply<'a> {
    product: Product,
    /// Memory for the right side in panels of 32 columns, or empty to read it in place.
    pack: &'a mut [Line],
}

impl Task for Multiply<'_> {
    type Output = ();
    #[inline(always)]
    fn run<V: Lanes>(self) {
        let Self { mut product, pack } = self;
        if !pack.is_empty() {
            for (panel, lines) in pack.chunks_exact_mut(2 * product.depth).enumerate() {
                for half in 0..2 {
                    let column = 32 * panel + 16 * half;
                    if column >= product.columns {
                        break;
                    }
                    for (i, pair) in lines.chunks_exact_mut(2).enumerate() {
                        // SAFETY: sixteen pixels of the plane of input `i`.
                        let value = unsafe { V::load(product.b.add(i * product.b_depth + column)) };
                        put(&mut pair[half], value);
                    }
                }
            }
            (product.b, product.b_depth, product.b_panel) =
                (pack.as_ptr().cast(), 32, 32 * product.depth);
        }
        // SAFETY: the assertions of `Pointwise::run`; jobs write different images, outputs or pixels.
        unsafe { product.run::<V>() }
    }
}
