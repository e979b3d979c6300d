//! From feature maps and filters to tiles.

use super::{Band, Tiled};
use crate::element::Stored;
use crate::tiles::BLOCK;
use half::bf16;

/// Elements of the two tiles of one step.
pub(super) const STEP: usize = BLOCK * BLOCK;

impl Tiled {
    /// The rows of one channel of a band, padded with zeros; `to` is as long as they are, or longer.
    #[inline(always)]
    fn pad_rows(&self, band: &Band, x: &[bf16], channel: usize, to: &mut [bf16]) {
        let s = &self.shape;
        let row = self.row();
        let rows = band.input_rows();
        let used = band.images.len() * rows * row;
        for (i, to) in to[..used].chunks_exact_mut(row).enumerate() {
            let (image, y) = (band.images.start + i / rows, band.rows.start + i % rows);
            let plane = (image * s.c_in + channel) * s.h;
            if y < s.pad[0] || y >= s.pad[0] + s.h {
                to.fill(bf16::ZERO);
                continue;
            }
            to[..s.pad[1]].fill(bf16::ZERO);
            to[s.pad[1]..][..s.w].copy_from_slice(&x[(plane + y - s.pad[0]) * s.w..][..s.w]);
            to[s.pad[1] + s.w..].fill(bf16::ZERO);
        }
        to[used..].fill(bf16::ZERO);
    }

    /// The inputs of a band in pairs of channels: pixel `i` of pair `p` is element `p * stride + i`. Pairs without channels are zeros.
    #[inline(always)]
    pub(super) fn pack_pixels(
        &self,
        band: &Band,
        x: &[bf16],
        rows: &mut [[bf16; 2]],
        pairs: &mut [[bf16; 2]],
        stride: usize,
    ) {
        let (even, odd) = rows.as_flattened_mut().split_at_mut(stride);
        for (pair, to) in pairs.chunks_exact_mut(stride).enumerate() {
            for (channel, row) in [(2 * pair, &mut *even), (2 * pair + 1, &mut *odd)] {
                if channel < self.shape.c_in {
                    self.pad_rows(band, x, channel, row);
                } else {
                    row.fill(bf16::ZERO);
                }
            }
            for ((to, &even), &odd) in to.iter_mut().zip(&*even).zip(&*odd) {
                *to = [even, odd];
            }
        }
    }

    /// The rows of sixteen channels of a band, `stride` apart.
    #[inline(always)]
    pub(super) fn pad_channels(
        &self,
        band: &Band,
        x: &[bf16],
        first: usize,
        rows: &mut [bf16],
        stride: usize,
    ) {
        for (i, row) in rows.chunks_exact_mut(stride).enumerate() {
            if first + i < self.shape.c_in {
                self.pad_rows(band, x, first + i, row);
            } else {
                row.fill(bf16::ZERO);
            }
        }
    }

    /// The gradients of the results of one channel, with zeros where no result is kept.
    #[inline(always)]
    pub(super) fn spread_results(&self, band: &Band, dy: &[bf16], channel: usize, to: &mut [bf16]) {
        let s = &self.shape;
        let (height, width) = (s.out_h(), s.out_w());
        to.fill(bf16::ZERO);
        if channel < s.c_out {
            for (image, y, at) in band.result_rows(self.row()) {
                let from = ((image * s.c_out + channel) * height + y) * width;
                to[at..at + width].copy_from_slice(&dy[from..from + width]);
            }
        }
    }
}

/// Filters `[rows, terms, taps]`, or `[terms, rows, taps]` that are turned around for an input gradient.
#[derive(Clone, Copy)]
pub(super) struct Filters<'a> {
    pub(super) w: &'a [f32],
    pub(super) rows: usize,
    pub(super) terms: usize,
    pub(super) taps: usize,
    pub(super) rotated: bool,
}

impl Filters<'_> {
    pub(super) fn steps(&self) -> usize {
        self.terms.div_ceil(BLOCK) * self.taps
    }

    /// Elements of a buffer for [`Self::pack`].
    pub(super) fn buffer(&self) -> usize {
        BLOCK * BLOCK * self.taps
    }

    /// The tiles of 32 rows, rounded to bf16: `[terms / 32][tap][row][term]`.
    #[inline(always)]
    pub(super) fn pack(&self, first: usize, buffer: &mut [bf16], to: &mut [bf16]) {
        for (block, to) in to.chunks_exact_mut(STEP * self.taps).enumerate() {
            self.round(first, block * BLOCK, buffer);
            // A constant number of taps lets the compiler unroll the loops.
            match self.taps {
                9 => self.arrange::<9>(buffer, to),
                1 => self.arrange::<1>(buffer, to),
                _ => self.arrange::<0>(buffer, to),
            }
        }
    }

    /// 32 rows of 32 terms, rounded: lines of what is contiguous in the filters, the terms of a row or the rows of a term. Zeros where
    /// there are no more.
    #[inline(always)]
    fn round(&self, first_row: usize, first_term: usize, buffer: &mut [bf16]) {
        let rows = (first_row, self.rows);
        let terms = (first_term, self.terms);
        let ((line, lines), (inner, inners)) = if self.rotated {
            (terms, rows)
        } else {
            (rows, terms)
        };
        let n = (inners - inner).min(BLOCK) * self.taps;
        for (i, to) in buffer.chunks_exact_mut(BLOCK * self.taps).enumerate() {
            if line + i >= lines {
                to.fill(bf16::ZERO);
                continue;
            }
            let from = &self.w[((line + i) * inners + inner) * self.taps..][..n];
            for (to, &w) in to.iter_mut().zip(from) {
                *to = bf16::of(w);
            }
            to[n..].fill(bf16::ZERO);
        }
    }

    /// From lines to tiles; `TAPS` is the number of taps, or 0 if it is any.
    #[inline(always)]
    fn arrange<const TAPS: usize>(&self, buffer: &[bf16], to: &mut [bf16]) {
        let taps = if TAPS == 0 { self.taps } else { TAPS };
        let to = &mut to[..STEP * taps];
        for (i, line) in buffer.chunks_exact(BLOCK * taps).enumerate() {
            for (j, filter) in line.chunks_exact(taps).enumerate() {
                for (tap, &w) in filter.iter().enumerate() {
                    if self.rotated {
                        to[(taps - 1 - tap) * STEP + j * BLOCK + i] = w;
                    } else {
                        to[tap * STEP + i * BLOCK + j] = w;
                    }
                }
            }
        }
    }
}
