//! From maps and weights to the factors of products by tiles. What is beyond the channels or positions is zero.

use super::{BLOCK, QUERIES, STEP};
use crate::element::Stored;
use half::bf16;
use std::ops::Range;

/// Query, key or value of one head, or a gradient: `[d, n]`.
#[derive(Clone, Copy)]
pub(super) struct Map<'a> {
    x: &'a [bf16],
    n: usize,
}

impl<'a> Map<'a> {
    pub(super) fn new(x: &'a [bf16], n: usize) -> Self {
        Self { x, n }
    }

    /// A row for each position, with `channels` blocks of terms.
    #[inline(always)]
    pub(super) fn rows_of_channels(&self, to: &mut [bf16], channels: usize) {
        to.fill(bf16::ZERO);
        for (channel, x) in self.x.chunks_exact(self.n).enumerate() {
            let (step, term) = (channel / BLOCK, channel % BLOCK);
            for (block, x) in x.chunks(BLOCK).enumerate() {
                let to = &mut to[(block * channels + step) * STEP..][..STEP];
                for (row, &x) in to.as_chunks_mut::<BLOCK>().0.iter_mut().zip(x) {
                    row[term] = x;
                }
            }
        }
    }

    /// A row for each channel, with `positions` blocks of terms.
    #[inline(always)]
    pub(super) fn rows_of_positions(&self, to: &mut [bf16], positions: usize) {
        to.fill(bf16::ZERO);
        for (channel, x) in self.x.chunks_exact(self.n).enumerate() {
            let (block, row) = (channel / BLOCK, channel % BLOCK);
            for (step, x) in x.chunks(BLOCK).enumerate() {
                let start = (block * positions + step) * STEP + row * BLOCK;
                to[start..start + x.len()].copy_from_slice(x);
            }
        }
    }

    /// Pairs of channels as terms, with a column for each of the queries `at`.
    #[inline(always)]
    pub(super) fn pairs_of_channels(&self, at: &Range<usize>, to: &mut [[bf16; 2]]) {
        let mut channels = self.x.chunks_exact(self.n);
        for to in to.as_chunks_mut::<QUERIES>().0 {
            to.fill([bf16::ZERO; 2]);
            for i in 0..2 {
                let x = channels.next().map_or([].as_slice(), |x| &x[at.clone()]);
                for (pair, &x) in to.iter_mut().zip(x) {
                    pair[i] = x;
                }
            }
        }
    }

    /// Pairs of the queries `at` as terms, with a column for each of `channels` blocks of channels.
    #[inline(always)]
    pub(super) fn pairs_of_positions(
        &self,
        at: &Range<usize>,
        to: &mut [[bf16; 2]],
        channels: usize,
    ) {
        let columns = BLOCK * channels;
        to.fill([bf16::ZERO; 2]);
        for (channel, x) in self.x.chunks_exact(self.n).enumerate() {
            for (i, &x) in x[at.clone()].iter().enumerate() {
                to[i / 2 * columns + channel][i % 2] = x;
            }
        }
    }
}

/// Weights with a row for each of `n` keys as a left factor: a row for each key, queries as terms.
#[inline(always)]
pub(super) fn round_rows(weights: &[f32], n: usize, to: &mut [bf16]) {
    let (used, rest) = to.split_at_mut(n * QUERIES);
    for (to, &x) in used.iter_mut().zip(weights) {
        *to = bf16::of(x);
    }
    rest.fill(bf16::ZERO);
}

/// Weights with a row for each of `n` keys as a right factor: pairs of keys as terms, a column for each query.
#[inline(always)]
pub(super) fn round_pairs(weights: &[f32], n: usize, to: &mut [[bf16; 2]]) {
    let mut rows = weights.as_chunks::<QUERIES>().0[..n].iter();
    for to in to.as_chunks_mut::<QUERIES>().0 {
        match (rows.next(), rows.next()) {
            (Some(even), Some(odd)) => {
                for ((to, &even), &odd) in to.iter_mut().zip(even).zip(odd) {
                    *to = [bf16::of(even), bf16::of(odd)];
                }
            }
            (last, _) => {
                to.fill([bf16::ZERO; 2]);
                for (to, &even) in to.iter_mut().zip(last.into_iter().flatten()) {
                    to[0] = bf16::of(even);
                }
            }
        }
    }
}
