//! Convolutions of small feature maps, and dense layers: one matrix product whose columns are the pixels of all images.

use super::ConvShape;
use crate::micro::Product;
use crate::shared_mut::{SharedMut, filled};
use crate::simd::{Lanes, Simd, Task};
use crate::threads::each_job;
use crate::workspace::{Line, floats, with_lines};
use std::ops::Range;

/// Pixels of one image up to which this is faster. The batch size does not count: the result of an image is the same regardless of batch.
const PIXELS: usize = 4;
/// The same for layers of at least `WIDE` weights, where reading them takes most of the time.
const PIXELS_OF_WIDE: usize = 16;
const WIDE: usize = 1 << 16;
/// Output channels of one job.
const OUTPUTS: usize = 32;
/// Input channels of one job of the input gradient: their columns stay in the first cache.
const INPUTS: usize = 32;
/// Terms summed at a time. Short sums also have smaller rounding errors than one long sum.
const TERMS: usize = 1024;
/// Output channels whose weights are read at the same time in the input gradient.
const STREAMS: usize = 16;

/// A convolution of small feature maps.
#[derive(Clone, Copy)]
pub(super) struct SmallMaps<'a> {
    simd: Simd,
    shape: &'a ConvShape,
    /// Output pixels of the batch, and the vectors that hold them.
    pixels: usize,
    lines: usize,
    /// Weights of one output channel.
    depth: usize,
}

impl<'a> SmallMaps<'a> {
    /// Returns `Some` where this applies and is faster.
    pub(super) fn of(shape: &'a ConvShape, simd: Simd) -> Option<Self> {
        let each = shape.out_h() * shape.out_w();
        let limit = if shape.c_in * shape.c_out >= WIDE {
            PIXELS_OF_WIDE
        } else {
            PIXELS
        };
        let whole = shape.c_in.is_multiple_of(16) && shape.c_out.is_multiple_of(8);
        let pixels = shape.batch * each;
        (whole && each <= limit && pixels > 0).then_some(Self {
            simd,
            shape,
            pixels,
            lines: pixels.div_ceil(16),
            depth: shape.c_in * shape.taps(),
        })
    }

    /// Every tap of a filter with every output pixel that reads it, `(tap, pixel, position in x of the first channel)`, without padding.
    fn pairs(&self) -> Vec<(usize, usize, usize)> {
        let s = self.shape;
        let (out_h, out_w) = (s.out_h(), s.out_w());
        let mut pairs = Vec::with_capacity(s.taps() * self.pixels);
        for tap in 0..s.taps() {
            for pixel in 0..self.pixels {
                let (image, y, x) = (
                    pixel / (out_h * out_w),
                    pixel / out_w % out_h * s.stride + tap / s.k[1],
                    pixel % out_w * s.stride + tap % s.k[1],
                );
                let [pad_h, pad_w, ..] = s.pad;
                let inside = y >= pad_h && y < s.h + pad_h && x >= pad_w && x < s.w + pad_w;
                if inside {
                    let place = (image * s.c_in * s.h + y - pad_h) * s.w + x - pad_w;
                    pairs.push((tap, pixel, place));
                }
            }
        }
        pairs
    }

    /// Calls `f(weight within an output, pixel, position in x)` for every product of the inputs `channels`.
    fn for_each_product(&self, channels: Range<usize>, mut f: impl FnMut(usize, usize, usize)) {
        let (taps, plane) = (self.shape.taps(), self.shape.h * self.shape.w);
        let pairs = self.pairs();
        for c in channels {
            for &(tap, pixel, place) in &pairs {
                f(c * taps + tap, pixel, c * plane + place);
            }
        }
    }

    /// `[c_out, plane]` of each image as `[c_out]` lines of all pixels.
    fn gather_outputs(&self, dy: &[f32], lines: &mut [Line]) {
        let plane = self.pixels / self.shape.batch;
        lines.fill(Line([0.0; 16]));
        for (i, values) in dy.chunks_exact(plane).enumerate() {
            let (image, channel) = (i / self.shape.c_out, i % self.shape.c_out);
            for (at, &value) in values.iter().enumerate() {
                let pixel = image * plane + at;
                lines[channel * self.lines + pixel / 16].0[pixel % 16] = value;
            }
        }
    }

    fn product(&self, product: Product) {
        self.simd.run(Multiply(product));
    }

    pub(super) fn forward(&self, x: &[f32], w: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
        let (s, lines, depth) = (self.shape, self.lines, self.depth);
        let plane = self.pixels / s.batch;
        assert!(
            x.len() == s.batch * s.c_in * s.h * s.w && w.len() == s.c_out * depth,
            "sizes do not fit"
        );
        // SAFETY: the jobs cover all outputs, and each writes all pixels of its own.
        unsafe {
            filled(s.c_out * self.pixels, |y: SharedMut<'_, f32>| {
                with_lines([depth * lines], |[columns]| {
                    columns.fill(Line([0.0; 16]));
                    self.for_each_product(0..s.c_in, |term, pixel, place| {
                        columns[term * lines + pixel / 16].0[pixel % 16] = x[place];
                    });
                    let columns = &*columns;
                    each_job(s.c_out.div_ceil(OUTPUTS), |job| {
                        let first = job * OUTPUTS;
                        let outputs = OUTPUTS.min(s.c_out - first);
                        with_lines([outputs * lines], |[sums]| {
                            for term in (0..depth).step_by(TERMS) {
                                self.product(Product {
                                    rows: outputs,
                                    columns: 16 * lines,
                                    depth: TERMS.min(depth - term),
                                    a: w[first * depth + term..].as_ptr(),
                                    a_row: depth,
                                    a_depth: 1,
                                    b: columns[term * lines..].as_ptr().cast(),
                                    b_depth: 16 * lines,
                                    b_panel: 32,
                                    c: sums.as_mut_ptr().cast(),
                                    c_row: 16 * lines,
                                    add: term > 0,
                                    bias: std::ptr::null(),
                                });
                            }
                            for o in 0..outputs {
                                let bias = bias.map_or(0.0, |bias| bias[first + o]);
                                let sums = floats(&sums[o * lines..][..lines]);
                                for (image, sums) in
                                    sums[..self.pixels].chunks_exact(plane).enumerate()
                                {
                                    let to = (image * s.c_out + first + o) * plane;
                                    for (at, &sum) in sums.iter().enumerate() {
                                        y.as_mut_ptr().add(to + at).write(sum + bias);
                                    }
                                }
                            }
                        });
                    });
                });
            })
        }
    }

    pub(super) fn input_gradient(&self, dy: &[f32], w: &[f32]) -> Vec<f32> {
        let (s, lines, depth) = (self.shape, self.lines, self.depth);
        let taps = s.taps();
        assert!(
            dy.len() == s.c_out * self.pixels && w.len() == s.c_out * depth,
            "sizes do not fit"
        );
        let mut dx = vec![0.0f32; s.batch * s.c_in * s.h * s.w];
        let shared = SharedMut::new(&mut dx);
        with_lines([s.c_out * lines], |[outputs]| {
            self.gather_outputs(dy, outputs);
            let outputs = &*outputs;
            each_job(s.c_in.div_ceil(INPUTS), |job| {
                let first = job * INPUTS;
                let inputs = INPUTS.min(s.c_in - first);
                with_lines([inputs * taps * lines], |[columns]| {
                    for o in (0..s.c_out).step_by(STREAMS) {
                        self.product(Product {
                            rows: inputs * taps,
                            columns: 16 * lines,
                            depth: STREAMS.min(s.c_out - o),
                            a: w[o * depth + first * taps..].as_ptr(),
                            a_row: 1,
                            a_depth: depth,
                            b: outputs[o * lines..].as_ptr().cast(),
                            b_depth: 16 * lines,
                            b_panel: 32,
                            c: columns.as_mut_ptr().cast(),
                            c_row: 16 * lines,
                            add: o > 0,
                            bias: std::ptr::null(),
                        });
                    }
                    self.for_each_product(first..first + inputs, |term, pixel, place| {
                        let line = &columns[(term - first * taps) * lines + pixel / 16];
                        // SAFETY: a place inside `dx`, of a channel that is this job's alone.
                        unsafe { *shared.as_mut_ptr().add(place) += line.0[pixel % 16] };
                    });
                });
            });
        });
        dx
    }

    pub(super) fn weight_gradient(&self, x: &[f32], dy: &[f32]) -> Vec<f32> {
        let (s, lines, depth) = (self.shape, self.lines, self.depth);
        assert!(
            x.len() == s.batch * s.c_in * s.h * s.w && dy.len() == s.c_out * self.pixels,
            "sizes do not fit"
        );
        // SAFETY: the jobs cover all outputs, and each writes all weights of its own.
        unsafe {
            filled(s.c_out * depth, |dw: SharedMut<'_, f32>| {
                let lengths = [s.c_out * lines, self.pixels * depth / 16];
                with_lines(lengths, |[outputs, rows]| {
                    self.gather_outputs(dy, outputs);
                    rows.fill(Line([0.0; 16]));
                    self.for_each_product(0..s.c_in, |term, pixel, place| {
                        rows[(pixel * depth + term) / 16].0[term % 16] = x[place];
                    });
                    let (outputs, rows) = (&*outputs, &*rows);
                    each_job(s.c_out.div_ceil(OUTPUTS), |job| {
                        let first = job * OUTPUTS;
                        self.product(Product {
                            rows: OUTPUTS.min(s.c_out - first),
                            columns: depth,
                            depth: self.pixels,
                            a: outputs[first * lines..].as_ptr().cast(),
                            a_row: 16 * lines,
                            a_depth: 1,
                            b: rows.as_ptr().cast(),
                            b_depth: depth,
                            b_panel: 32,
                            c: dw.as_mut_ptr().wrapping_add(first * depth),
                            c_row: depth,
                            add: false,
                            bias: std::ptr::null(),
                        });
                    });
                });
            })
        }
    }
}

/// A product inside the slices that [`SmallMaps`] has checked.
struct Multiply(Product);

impl Task for Multiply {
    type Output = ();
    #[inline(always)]
    fn run<V: Lanes>(self) {
        // SAFETY: sizes by the assertions of the callers: rows are multiples of 8, columns of 16, both
        // sides and the result long enough for these; no two jobs write the same elements.
        unsafe { self.0.run::<V>() }
    }
}
