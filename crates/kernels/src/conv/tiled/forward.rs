//! The forward pass, and the input gradient as the forward pass of turned filters.

use super::pack::{Filters, STEP};
use super::{Band, ConvShape, PIXELS, Tiled, short_rows};
use crate::conv::Added;
use crate::element::Stored;
use crate::shared_mut::{SharedMut, filled};
use crate::simd::Simd;
use crate::threads::{each_chunk_mut, each_job};
use crate::tiles::{BLOCK, Block, Session, TILE, TILE_BYTES};
use crate::workspace::{Line, floats_mut, halves_mut, pairs_mut, with_lines};
use half::bf16;

/// Elements of a line.
const PER_LINE: usize = 32;

impl Tiled {
    pub(crate) fn forward(
        &self,
        simd: Simd,
        x: &[bf16],
        w: &[f32],
        added: Added<'_, f32, bf16>,
    ) -> Vec<bf16> {
        let filters = Filters {
            w,
            rows: self.shape.c_out,
            terms: self.shape.c_in,
            taps: self.shape.taps(),
            rotated: false,
        };
        self.convolve(simd, x, filters, added)
    }

    /// The gradient of the input, from `dy` shaped like the result.
    pub(crate) fn input_gradient(&self, simd: Simd, dy: &[bf16], w: &[f32]) -> Vec<bf16> {
        let s = &self.shape;
        let back = ConvShape {
            c_in: s.c_out,
            c_out: s.c_in,
            h: s.out_h(),
            w: s.out_w(),
            pad: [0, 1, 2, 3].map(|side| s.k[side % 2] - 1 - s.pad[side]),
            ..*s
        };
        let filters = Filters {
            w,
            rows: s.c_in,
            terms: s.c_out,
            taps: s.taps(),
            rotated: true,
        };
        let back = Self {
            shape: short_rows(&back),
            ..*self
        };
        back.convolve(simd, dy, filters, Added::NOTHING)
    }

    fn convolve(
        &self,
        simd: Simd,
        x: &[bf16],
        filters: Filters<'_>,
        added: Added<'_, f32, bf16>,
    ) -> Vec<bf16> {
        let s = &self.shape;
        let (blocks, steps) = (s.c_out.div_ceil(BLOCK), filters.steps());
        let bands = self.bands(PIXELS);
        // With few bands, the channels of the result are shared out too. The order of a sum does not change.
        let threads = rayon::current_num_threads();
        let parts = if bands.len() < threads {
            threads.div_ceil(bands.len().max(1)).min(blocks)
        } else {
            1
        };
        with_lines([blocks * steps * STEP / PER_LINE], |[packed]| {
            each_chunk_mut(packed, steps * STEP / PER_LINE, |block, to| {
                with_lines([filters.buffer() / PER_LINE], |[buffer]| {
                    let (buffer, to) = (halves_mut(buffer), halves_mut(to));
                    simd.vectorise(
                        #[inline(always)]
                        || filters.pack(block * BLOCK, buffer, to),
                    );
                });
            });
            let packed = &*packed;
            let length = s.batch * s.c_out * s.out_h() * s.out_w();
            // SAFETY: the jobs cover all rows of all channels, and each writes all of its own.
            unsafe {
                filled(length, |y: SharedMut<'_, bf16>| {
                    let jobs = bands.len() * parts;
                    each_job(jobs, |job| {
                        let (band, part) = (&bands[job / parts], job % parts);
                        let job = Job {
                            conv: self,
                            simd,
                            band,
                            blocks: blocks * part / parts..blocks * (part + 1) / parts,
                            filters: packed,
                            steps,
                            added,
                        };
                        job.run(x, y.as_mut_ptr());
                    });
                })
            }
        })
    }
}

/// Some channels of the result of a band, in blocks of 32.
struct Job<'a> {
    conv: &'a Tiled,
    simd: Simd,
    band: &'a Band,
    blocks: std::ops::Range<usize>,
    filters: &'a [Line],
    steps: usize,
    added: Added<'a, f32, bf16>,
}

impl Job<'_> {
    /// # Safety
    /// `y` has room for the whole result.
    unsafe fn run(&self, x: &[bf16], y: *mut bf16) {
        let conv = self.conv;
        let pixels = self.band.pixels(conv.row());
        // An odd number of lines, so that the pairs of a tile do not compete for the same lines of a cache.
        let stride = TILE * ((pixels + conv.reach()).div_ceil(TILE) | 1);
        let pairs = conv.shape.c_in.next_multiple_of(BLOCK) / 2;
        let taps = conv.shape.taps();
        let steps: Vec<[u32; 2]> = (0..self.steps)
            .map(|step| {
                let (block, tap) = (step / taps, step % taps);
                let pixel = block * TILE * stride + conv.distance(tap);
                [step * 2 * TILE_BYTES, 4 * pixel].map(|bytes| bytes as u32)
            })
            .collect();
        let lengths = [stride / TILE, pairs * stride / TILE, BLOCK * pixels / TILE];
        with_lines(lengths, |[rows, inputs, sums]| {
            let (rows, inputs) = (pairs_mut(rows), pairs_mut(inputs));
            self.simd.vectorise(
                #[inline(always)]
                || conv.pack_pixels(self.band, x, rows, inputs, stride),
            );
            let session = conv.unit.start();
            for block in self.blocks.clone() {
                // SAFETY: the sizes above.
                unsafe { self.multiply(&session, block, inputs, stride, &steps, sums) };
                let sums = &*floats_mut(sums);
                self.simd.vectorise(
                    #[inline(always)]
                    // SAFETY: the caller's promise.
                    || unsafe { self.write(block * BLOCK, sums, pixels, y) },
                );
            }
        });
    }

    /// The sums of 32 channels for all pixels of the band: `[32, pixels]`.
    ///
    /// # Safety
    /// The tiles of all steps are in the inputs.
    unsafe fn multiply(
        &self,
        session: &Session,
        block: usize,
        inputs: &[[bf16; 2]],
        stride: usize,
        steps: &[[u32; 2]],
        sums: &mut [Line],
    ) {
        let lines = self.steps * STEP / PER_LINE;
        let filters = self.filters[block * lines..][..lines].as_ptr().cast();
        let sums = floats_mut(sums);
        let pixels = sums.len() / BLOCK;
        for first in (0..pixels).step_by(BLOCK) {
            let block = Block {
                a: filters,
                a_second: TILE_BYTES,
                b: inputs[first..].as_ptr().cast(),
                b_row: 4 * stride,
                b_second: 4 * TILE,
                steps,
                c: sums[first..].as_mut_ptr(),
                c_row: 4 * pixels,
                add: false,
            };
            // SAFETY: the caller's promise; 32 rows of sums follow each other at this distance.
            unsafe { session.block(&block) };
        }
    }

    /// Adds what is to be added, rounds, and leaves out what started in the padding.
    ///
    /// # Safety
    /// `y` has room for the whole result.
    #[inline(always)]
    unsafe fn write(&self, first: usize, sums: &[f32], pixels: usize, y: *mut bf16) {
        let s = &self.conv.shape;
        let (height, width) = (s.out_h(), s.out_w());
        for (channel, sums) in (first..s.c_out).zip(sums.chunks_exact(pixels)) {
            let bias = self.added.bias.map_or(0.0, |bias| bias[channel]);
            for (image, row, at) in self.band.result_rows(self.conv.row()) {
                let start = ((image * s.c_out + channel) * height + row) * width;
                let (y, sums) = (y.wrapping_add(start), &sums[at..at + width]);
                match self.added.map {
                    None => {
                        for (i, &sum) in sums.iter().enumerate() {
                            // SAFETY: the caller's promise.
                            unsafe { y.add(i).write(bf16::of(sum + bias)) };
                        }
                    }
                    Some(map) => {
                        for (i, (&sum, x)) in sums.iter().zip(&map[start..]).enumerate() {
                            // SAFETY: the caller's promise.
                            unsafe { y.add(i).write(bf16::of(x.real() + (sum + bias))) };
                        }
                    }
                }
            }
        }
    }
}
