//! The forward pass and the input gradient.

use super::pixels::{Left, Pixels, Planes, multiply_add};
use super::{Part, Strided, Taps};
use crate::shared_mut::{SharedMut, filled};
use crate::simd::{Lanes, Task};
use crate::threads::each_job;
use crate::workspace::{Line, with_lines};

/// Lines of the pixels that one job reads: with the filters of a panel they stay in the second cache.
const BLOCK_LINES: usize = (256 << 10) / 64;

impl Strided<'_> {
    pub(in crate::conv) fn forward(&self, x: &[f32], w: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
        let s = self.shape;
        let (in_lines, out_lines) = (s.c_in.div_ceil(16), s.c_out.div_ceil(16));
        let wide = s.out_w().next_multiple_of(8);
        let columns = (s.pad[1] + s.w.next_multiple_of(16)).max((wide - 1) * s.stride + s.k[1]);
        let pixels = Pixels::new(columns, in_lines);
        let block = BLOCK_LINES / (s.stride * pixels.columns * pixels.step);
        // SAFETY: the parts cover all rows and channels of all images.
        unsafe {
            filled(s.batch * s.c_out * s.out_h() * s.out_w(), |y| {
                self.with_taps(w, false, |taps| {
                    let parts = self.parts(s.out_h(), out_lines, block);
                    each_job(parts.len(), |i| {
                        let part = parts[i].clone();
                        let sums = Pixels::new(wide, part.lines.len());
                        let rows = part.rows.len();
                        let lengths = [
                            pixels.lines((rows - 1) * s.stride + s.k[0]),
                            sums.lines(rows),
                        ];
                        with_lines(lengths, |buffers| {
                            self.simd.run(Forward {
                                of: *self,
                                x,
                                taps: &taps,
                                bias,
                                part,
                                layouts: [pixels, sums],
                                buffers,
                                y,
                            });
                        });
                    });
                });
            })
        }
    }

    pub(in crate::conv) fn input_gradient(&self, dy: &[f32], w: &[f32]) -> Vec<f32> {
        let s = self.shape;
        let (in_lines, out_lines) = (s.c_in.div_ceil(16), s.c_out.div_ceil(16));
        // Squares of `stride x stride` pixels of the padded input: in each of them, a pixel is read by the same taps.
        let down = (s.h + s.pad[0]).div_ceil(s.stride);
        let across = (s.w + s.pad[1]).div_ceil(s.stride) + 7;
        let [above, before] = s.k.map(|k| (k - 1) / s.stride);
        let columns = before + s.out_w().next_multiple_of(16).max(across);
        let pixels = Pixels::new(columns, out_lines);
        let block = BLOCK_LINES / (pixels.columns * pixels.step);
        // SAFETY: the parts cover all rows and channels of all images.
        unsafe {
            filled(s.batch * s.c_in * s.h * s.w, |dx| {
                self.with_taps(w, true, |taps| {
                    let parts = self.parts(down, in_lines, block);
                    each_job(parts.len(), |i| {
                        let part = parts[i].clone();
                        let sums = Pixels::new(across * s.stride, part.lines.len());
                        let rows = part.rows.len();
                        let lengths = [pixels.lines(rows + above), sums.lines(rows * s.stride)];
                        with_lines(lengths, |buffers| {
                            self.simd.run(InputGradient {
                                of: *self,
                                dy,
                                taps: &taps,
                                part,
                                reach: [above, before],
                                layouts: [pixels, sums],
                                buffers,
                                dx,
                            });
                        });
                    });
                });
            })
        }
    }
}

/// Some rows and channels of the output.
struct Forward<'a> {
    of: Strided<'a>,
    x: &'a [f32],
    taps: &'a Taps<'a>,
    bias: Option<&'a [f32]>,
    part: Part,
    /// Of the input and of the output.
    layouts: [Pixels; 2],
    buffers: [&'a mut [Line]; 2],
    y: SharedMut<'a, f32>,
}

impl Task for Forward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<V: Lanes>(self) {
        let s = self.of.shape;
        let ([pixels, sums], [data, results]) = (self.layouts, self.buffers);
        let Part { image, rows, lines } = self.part;
        let plane = s.c_in * s.h * s.w;
        let from = Planes {
            data: &self.x[image * plane..][..plane],
            channels: s.c_in,
            h: s.h,
            w: s.w,
        };
        let top = (rows.start * s.stride).cast_signed() - s.pad[0].cast_signed();
        let n_rows = (rows.len() - 1) * s.stride + s.k[0];
        pixels.read::<V>(from, (top, n_rows), s.pad[1], data);
        let mut start = vec![Line([0.0; 16]); sums.step];
        if let Some(bias) = self.bias {
            let bias = bias[16 * lines.start..].chunks(16);
            for (line, bias) in start[..lines.len()].iter_mut().zip(bias) {
                line.0[..bias.len()].copy_from_slice(bias);
            }
        }
        for pixel in results.chunks_exact_mut(sums.step) {
            pixel.copy_from_slice(&start);
        }
        for tap in 0..s.taps() {
            let (ky, kx) = (tap / s.k[1], tap % s.k[1]);
            for line in lines.clone().step_by(2) {
                let columns = 16 * (lines.end - line).min(2);
                let right = self.taps.panel(tap, line / 2);
                for row in 0..rows.len() {
                    let left = Left {
                        data: &data[pixels.at(row * s.stride + ky, kx)..],
                        row: s.stride * pixels.floats(),
                        depth: 1,
                    };
                    let to = &mut results[sums.at(row, 0) + line - lines.start..];
                    let size = [sums.columns, columns, s.c_in];
                    multiply_add::<V>(size, left, right, (to, sums.floats()));
                }
            }
        }
        let (out_h, out_w) = (s.out_h(), s.out_w());
        let start = image * s.c_out * out_h * out_w;
        assert!(self.y.len() >= start + s.c_out * out_h * out_w);
        let to = Planes {
            data: self.y.as_mut_ptr().wrapping_add(start),
            channels: s.c_out,
            h: out_h,
            w: out_w,
        };
        for row in rows.clone() {
            let from = &results[sums.at(row - rows.start, 0)..];
            // SAFETY: an image inside `y`; no other job writes these rows of these channels.
            unsafe { sums.write::<V>(from, to, 16 * lines.start, row) };
        }
    }
}

/// Some rows and channels of the input gradient: `stride` rows for each row of the part.
struct InputGradient<'a> {
    of: Strided<'a>,
    dy: &'a [f32],
    taps: &'a Taps<'a>,
    part: Part,
    /// Rows above and columns before an output's square that its filters reach.
    reach: [usize; 2],
    /// Of the output and of the input.
    layouts: [Pixels; 2],
    buffers: [&'a mut [Line]; 2],
    dx: SharedMut<'a, f32>,
}

impl Task for InputGradient<'_> {
    type Output = ();
    #[inline(always)]
    fn run<V: Lanes>(self) {
        let s = self.of.shape;
        let ([pixels, sums], [data, results]) = (self.layouts, self.buffers);
        let Part { image, rows, lines } = self.part;
        let ([above, before], (out_h, out_w)) = (self.reach, (s.out_h(), s.out_w()));
        let plane = s.c_out * out_h * out_w;
        let from = Planes {
            data: &self.dy[image * plane..][..plane],
            channels: s.c_out,
            h: out_h,
            w: out_w,
        };
        let top = rows.start.cast_signed() - above.cast_signed();
        pixels.read::<V>(from, (top, rows.len() + above), before, data);
        results.fill(Line([0.0; 16]));
        let padded = |row: usize| rows.start * s.stride + row;
        let inside = |row: usize| (s.pad[0]..s.h + s.pad[0]).contains(&padded(row));
        for tap in 0..s.taps() {
            let (ky, kx) = (tap / s.k[1], tap % s.k[1]);
            // Pixel `stride (y, x) + (ky, kx) % stride` is read by output `(y, x) - (ky, kx) / stride`.
            let phase = kx % s.stride;
            let first = s.pad[1].saturating_sub(phase).div_ceil(s.stride);
            let end = (s.w + s.pad[1]).saturating_sub(phase).div_ceil(s.stride);
            let wide = end.saturating_sub(first).next_multiple_of(8);
            for line in lines.clone().step_by(2) {
                let columns = 16 * (lines.end - line).min(2);
                let right = self.taps.panel(tap, line / 2);
                for row in 0..rows.len() {
                    let to_row = row * s.stride + ky % s.stride;
                    if !inside(to_row) {
                        continue;
                    }
                    let from_row = row + above - ky / s.stride;
                    let left = Left {
                        data: &data[pixels.at(from_row, first + before - kx / s.stride)..],
                        row: pixels.floats(),
                        depth: 1,
                    };
                    let place = sums.at(to_row, first * s.stride + phase);
                    let to = &mut results[place + line - lines.start..];
                    let size = [wide, columns, s.c_out];
                    multiply_add::<V>(size, left, right, (to, s.stride * sums.floats()));
                }
            }
        }
        let start = image * s.c_in * s.h * s.w;
        assert!(self.dx.len() >= start + s.c_in * s.h * s.w);
        let to = Planes {
            data: self.dx.as_mut_ptr().wrapping_add(start),
            channels: s.c_in,
            h: s.h,
            w: s.w,
        };
        for row in 0..rows.len() * s.stride {
            if inside(row) {
                let from = &results[sums.at(row, s.pad[1])..];
                // SAFETY: an image inside `dx`; no other job writes these rows of these channels.
                unsafe { sums.write::<V>(from, to, 16 * lines.start, padded(row) - s.pad[0]) };
            }
        }
    }
}
