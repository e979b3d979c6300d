//! The weight gradient: pixels are the terms, so both factors are turned, results to rows of pixels and inputs to columns of channels.

use super::{Band, Tiled};
use crate::lanes::gather;
use crate::shared_mut::{SharedMut, filled};
use crate::simd::{Lanes, Simd, Task};
use crate::threads::each_chunk_mut;
use crate::tiles::{BLOCK, Block, TILE, TILE_BYTES};
use crate::workspace::{Line, floats_mut, halves_mut, with_lines};
use half::bf16;

/// Pixels whose factors are in memory at a time.
const PIXELS: usize = 4096;
/// Steps whose factors stay in the first cache while each tap uses them.
const RUN: usize = 8;

impl Tiled {
    /// The gradient of the weights `[c_out, c_in, k_h, k_w]`, summed over bands in their order.
    pub(crate) fn weight_gradient(&self, simd: Simd, x: &[bf16], dy: &[bf16]) -> Vec<f32> {
        let s = &self.shape;
        let taps = s.taps();
        if s.batch == 0 {
            return vec![0.0; s.c_out * s.c_in * taps];
        }
        let (rows, columns) = (s.c_out.div_ceil(BLOCK), s.c_in.div_ceil(BLOCK));
        // SAFETY: the jobs of the last loop cover all weights.
        unsafe {
            filled(s.c_out * s.c_in * taps, |dw: SharedMut<'_, f32>| {
                with_lines([rows * columns * taps * BLOCK * BLOCK / 16], |[sums]| {
                    for (i, band) in self.bands(PIXELS).iter().enumerate() {
                        self.add_band(simd, band, [x, dy], i > 0, sums);
                    }
                    each_chunk_mut(sums, taps * BLOCK * BLOCK / 16, |job, sums| {
                        let first = [job / columns, job % columns].map(|i| i * BLOCK);
                        self.write(first, floats_mut(sums), dw.as_mut_ptr());
                    });
                });
            })
        }
    }

    /// Adds the products of a band, or writes them.
    fn add_band(
        &self,
        simd: Simd,
        band: &Band,
        [x, dy]: [&[bf16]; 2],
        add: bool,
        sums: &mut [Line],
    ) {
        let s = &self.shape;
        let taps = s.taps();
        let columns = s.c_in.div_ceil(BLOCK);
        let pixels = band.pixels(self.row());
        let steps = pixels / BLOCK;
        // Tiles of sixteen channels: [step][channel][pixel].
        let results = steps * TILE;
        // [even or odd first pixel][pair of pixels][channel], with as many pairs as the taps reach.
        let pairs = ((pixels + self.reach()) / 2 + 1).next_multiple_of(TILE);
        let inputs = 2 * pairs;
        let (n_out, n_in) = (s.c_out.div_ceil(TILE), s.c_in.div_ceil(TILE));
        // Blocks have two tiles of channels each way.
        let lengths = [
            n_out.next_multiple_of(2) * results,
            n_in.next_multiple_of(2) * inputs,
        ];
        with_lines(lengths, |[dys, xs]| {
            each_chunk_mut(dys, results, |i, to| {
                self.pack_results(simd, band, dy, i * TILE, to);
            });
            // The last pair from an odd pixel on ends in one line more.
            let row = 2 * pairs + BLOCK;
            each_chunk_mut(xs, inputs, |i, to| {
                with_lines([TILE * row / BLOCK], |[rows]| {
                    simd.run(PackInputs {
                        conv: self,
                        band,
                        x,
                        first: i * TILE,
                        rows: halves_mut(rows),
                        to,
                    });
                });
            });
            let (dys, xs) = (&*dys, &*xs);
            each_chunk_mut(sums, taps * BLOCK * BLOCK / 16, |job, sums| {
                let (row, column) = (job / columns, job % columns);
                let a = dys[2 * row * results..][..2 * results]
                    .as_ptr()
                    .cast::<u8>();
                let b = xs[2 * column * inputs..][..2 * inputs]
                    .as_ptr()
                    .cast::<u8>();
                let session = self.unit.start();
                let mut table = [[0; 2]; RUN];
                for first in (0..steps).step_by(RUN) {
                    let n = (steps - first).min(RUN);
                    for (i, step) in table[..n].iter_mut().enumerate() {
                        *step = [((first + i) * TILE_BYTES) as u32; 2];
                    }
                    for (tap, sums) in sums.chunks_exact_mut(BLOCK * BLOCK / 16).enumerate() {
                        let distance = self.distance(tap);
                        let pair = distance % 2 * pairs + distance / 2;
                        let block = Block {
                            a,
                            a_second: 64 * results,
                            b: b.wrapping_add(64 * pair),
                            b_row: 64,
                            b_second: 64 * inputs,
                            steps: &table[..n],
                            c: floats_mut(sums).as_mut_ptr(),
                            c_row: 4 * BLOCK,
                            add: add || first > 0,
                        };
                        // SAFETY: two tiles of channels each way, with all steps and as many pairs as the taps reach.
                        unsafe { session.block(&block) };
                    }
                }
            });
        });
    }

    /// Sixteen channels of the results as tiles: `[step][channel][pixel]`.
    fn pack_results(&self, simd: Simd, band: &Band, dy: &[bf16], first: usize, to: &mut [Line]) {
        let pixels = to.len() / TILE * BLOCK;
        with_lines([pixels / BLOCK], |[row]| {
            for i in 0..TILE {
                simd.vectorise(
                    #[inline(always)]
                    || self.spread_results(band, dy, first + i, halves_mut(row)),
                );
                for (tile, line) in to.chunks_exact_mut(TILE).zip(&*row) {
                    tile[i] = *line;
                }
            }
        });
    }

    /// Writes the sums `[tap][row][column]` of a block as weights.
    ///
    /// # Safety
    /// `dw` has room for all weights.
    unsafe fn write(&self, [row, column]: [usize; 2], sums: &[f32], dw: *mut f32) {
        let s = &self.shape;
        let taps = s.taps();
        let (rows, columns) = ((s.c_out - row).min(BLOCK), (s.c_in - column).min(BLOCK));
        for i in 0..rows {
            let dw = dw.wrapping_add(((row + i) * s.c_in + column) * taps);
            for j in 0..columns {
                for tap in 0..taps {
                    let sum = sums[(tap * BLOCK + i) * BLOCK + j];
                    // SAFETY: the caller's promise.
                    unsafe { dw.add(j * taps + tap).write(sum) };
                }
            }
        }
    }
}

/// Sixteen channels of the inputs as columns of pairs of pixels, first from even pixels on, then from odd ones.
struct PackInputs<'a> {
    conv: &'a Tiled,
    band: &'a Band,
    x: &'a [bf16],
    first: usize,
    /// A buffer for the padded rows of the channels.
    rows: &'a mut [bf16],
    to: &'a mut [Line],
}

impl Task for PackInputs<'_> {
    type Output = ();
    #[inline(always)]
    fn run<V: Lanes>(self) {
        let Self {
            conv,
            band,
            x,
            first,
            rows,
            to,
        } = self;
        let (pairs, stride) = (to.len() / 2, rows.len() / TILE);
        conv.pad_channels(band, x, first, rows, stride);
        for (odd, to) in to.chunks_exact_mut(pairs).enumerate() {
            let from = rows[odd..].as_ptr().cast();
            // SAFETY: sixteen rows of as many pairs; loads need no alignment.
            unsafe { gather::<V>(from, stride / 2, TILE, pairs, to, 1) };
        }
    }
}
