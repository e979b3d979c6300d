//! The weight gradient.

use super::Strided;
use super::pixels::{Left, Pixels, Planes, Right, multiply_add};
use crate::lanes::scatter;
use crate::shared_mut::SharedMut;
use crate::simd::{Lanes, Task};
use crate::threads::{each_chunk_mut, each_job};
use crate::workspace::{Line, with_lines};
use std::ops::Range;

/// Lines of both sides that one job reads.
const UNIT_LINES: usize = (512 << 10) / 64;
/// Such units in memory at a time.
const UNITS: usize = 8;
/// Outputs of one job.
const OUTPUTS: usize = 32;

impl Strided<'_> {
    pub(in crate::conv) fn weight_gradient(&self, x: &[f32], dy: &[f32]) -> Vec<f32> {
        let s = self.shape;
        let (in_lines, out_lines) = (s.c_in.div_ceil(16), s.c_out.div_ceil(16));
        let columns = s.pad[1] + s.w.next_multiple_of(16);
        let inputs = Pixels::new(columns.max((s.out_w() - 1) * s.stride + s.k[1]), in_lines);
        let outputs = Pixels::new(s.out_w().next_multiple_of(16), out_lines);
        // A unit is some rows of one image; those of several images are in memory at a time.
        let unit = |rows: usize| {
            [
                inputs.lines((rows - 1) * s.stride + s.k[0]),
                outputs.lines(rows),
            ]
        };
        let each = s.stride * inputs.columns * inputs.step + outputs.columns * outputs.step;
        let rows = (UNIT_LINES / each).clamp(1, s.out_h());
        let [of_x, of_dy] = unit(rows);
        let at_once = (UNITS * UNIT_LINES / (of_x + of_dy)).max(1);
        let blocks = s.out_h().div_ceil(rows);
        let sums = Pixels::new(out_lines * 16, in_lines);
        let groups = s.c_out.div_ceil(OUTPUTS);
        let mut dw = vec![0.0; s.c_out * s.c_in * s.taps()];
        let lengths = [at_once * of_x, at_once * of_dy, sums.at(s.taps(), 0)];
        with_lines(lengths, |[x_lines, dy_lines, all_sums]| {
            all_sums.fill(Line([0.0; 16]));
            for first in (0..s.batch * blocks).step_by(at_once) {
                let units = first..(first + at_once).min(s.batch * blocks);
                let unit_rows = |i: usize| {
                    let start = (first + i) % blocks * rows;
                    start..(start + rows).min(s.out_h())
                };
                let to = (SharedMut::new(x_lines), SharedMut::new(dy_lines));
                each_job(units.len(), |i| {
                    // SAFETY: units do not overlap.
                    let to = unsafe { (to.0.slice(i * of_x, of_x), to.1.slice(i * of_dy, of_dy)) };
                    self.simd.run(ReadUnit {
                        of: *self,
                        image: (first + i) / blocks,
                        rows: unit_rows(i),
                        x,
                        dy,
                        layouts: [inputs, outputs],
                        to,
                    });
                });
                let (x_lines, dy_lines) = (&*x_lines, &*dy_lines);
                let shared = SharedMut::new(all_sums);
                each_job(s.taps() * groups, |i| {
                    let (tap, output) = (i / groups, i % groups * OUTPUTS);
                    let n = OUTPUTS.min(16 * out_lines - output);
                    // SAFETY: jobs have different taps or outputs.
                    let sums = unsafe { shared.slice(sums.at(tap, output), sums.at(0, n)) };
                    self.simd.run(AddUnits {
                        of: *self,
                        units: (0..units.len()).map(unit_rows).collect(),
                        tap,
                        output,
                        lengths: [of_x, of_dy],
                        from: [x_lines, dy_lines],
                        layouts: [inputs, outputs],
                        sums,
                    });
                });
            }
            let all_sums = &*all_sums;
            each_chunk_mut(&mut dw, s.c_in * s.taps(), |output, dw| {
                with_lines([s.taps().next_multiple_of(16)], |[scratch]| {
                    self.simd.run(WriteFilters {
                        of: *self,
                        output,
                        sums: (sums, all_sums),
                        scratch,
                        dw,
                    });
                });
            });
        });
        dw
    }
}

/// Some output rows of an image, and the input rows that they read.
struct ReadUnit<'a> {
    of: Strided<'a>,
    image: usize,
    rows: Range<usize>,
    x: &'a [f32],
    dy: &'a [f32],
    layouts: [Pixels; 2],
    to: (&'a mut [Line], &'a mut [Line]),
}

impl Task for ReadUnit<'_> {
    type Output = ();
    #[inline(always)]
    fn run<V: Lanes>(self) {
        let (s, [inputs, outputs]) = (self.of.shape, self.layouts);
        let (of_x, of_dy) = (s.c_in * s.h * s.w, s.c_out * s.out_h() * s.out_w());
        let x = Planes {
            data: &self.x[self.image * of_x..][..of_x],
            channels: s.c_in,
            h: s.h,
            w: s.w,
        };
        let dy = Planes {
            data: &self.dy[self.image * of_dy..][..of_dy],
            channels: s.c_out,
            h: s.out_h(),
            w: s.out_w(),
        };
        let (first, n) = (self.rows.start, self.rows.len());
        let top = (first * s.stride).cast_signed() - s.pad[0].cast_signed();
        let x_rows = (n - 1) * s.stride + s.k[0];
        inputs.read::<V>(x, (top, x_rows), s.pad[1], self.to.0);
        outputs.read::<V>(dy, (first.cast_signed(), n), 0, self.to.1);
    }
}

/// Adds the products of some outputs' gradients with the pixels that one tap reads.
struct AddUnits<'a> {
    of: Strided<'a>,
    /// The rows of each unit.
    units: Vec<Range<usize>>,
    tap: usize,
    output: usize,
    /// Of one unit, in lines.
    lengths: [usize; 2],
    from: [&'a [Line]; 2],
    layouts: [Pixels; 2],
    sums: &'a mut [Line],
}

impl Task for AddUnits<'_> {
    type Output = ();
    #[inline(always)]
    fn run<V: Lanes>(self) {
        let (s, [inputs, outputs]) = (self.of.shape, self.layouts);
        let (ky, kx) = (self.tap / s.k[1], self.tap % s.k[1]);
        let n = self.sums.len() / inputs.step;
        for (unit, rows) in self.units.iter().enumerate() {
            let [x, dy] =
                [0, 1].map(|i| &self.from[i][unit * self.lengths[i]..][..self.lengths[i]]);
            for row in 0..rows.len() {
                let dy = &dy[outputs.at(row, 0) + self.output / 16..];
                let left = Left {
                    data: dy,
                    row: 1,
                    depth: outputs.floats(),
                };
                let right = Right {
                    data: &x[inputs.at(row * s.stride + ky, kx)..],
                    depth: s.stride * inputs.floats(),
                    panel: 32,
                };
                let size = [n, 16 * inputs.channel_lines, s.out_w()];
                multiply_add::<V>(size, left, right, (self.sums, inputs.floats()));
            }
        }
    }
}

/// The filters of one output, from the sums of all taps.
struct WriteFilters<'a> {
    of: Strided<'a>,
    output: usize,
    sums: (Pixels, &'a [Line]),
    scratch: &'a mut [Line],
    dw: &'a mut [f32],
}

impl Task for WriteFilters<'_> {
    type Output = ();
    #[inline(always)]
    fn run<V: Lanes>(self) {
        let (s, (layout, sums)) = (self.of.shape, self.sums);
        let taps = s.taps();
        for line in 0..layout.channel_lines {
            for (tap, to) in self.scratch[..taps].iter_mut().enumerate() {
                *to = sums[layout.at(tap, self.output) + line];
            }
            let rows = (s.c_in - 16 * line).min(16);
            let to = &mut self.dw[16 * line * taps..][..rows * taps];
            // SAFETY: `rows` rows of `taps` elements.
            unsafe { scatter::<V>(self.scratch, 1, to.as_mut_ptr(), taps, rows, taps) };
        }
    }
}
