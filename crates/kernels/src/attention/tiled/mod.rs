//! Attention of bf16 maps by tiles: products of rounded factors, sums and softmax in f32.

mod pack;

use super::softmax::{exponentials, scale_columns, through_softmax};
use super::{AttentionShape, JOB_QUERIES, QUERIES};
use crate::element::Stored;
use crate::shared_mut::{SharedMut, filled};
use crate::simd::Simd;
use crate::threads::each_job;
use crate::tiles::{BLOCK, Block, Session, TILE, TILE_BYTES, Unit};
use crate::workspace::{Line, floats, floats_mut, halves_mut, pairs_mut, with_lines};
use half::bf16;
use pack::{Map, round_pairs, round_rows};
use std::ops::Range;

/// Elements of the left factor of one step, and lines that hold as many of bf16 or f32.
const STEP: usize = BLOCK * BLOCK;
const HALF_LINES: usize = STEP / 32;
const LINES: usize = STEP / 16;

/// Attention on a unit that multiplies bf16.
#[derive(Clone, Copy)]
pub(super) struct Tiled<'a> {
    unit: Unit,
    simd: Simd,
    shape: &'a AttentionShape,
    /// Blocks of 32 that hold the channels of a head, and the positions.
    channels: usize,
    positions: usize,
}

/// A product whose factors are whole blocks of 32: the left one as tiles `[rows / 32][terms / 32][32][32]`, the right one with pairs of
/// terms side by side, `[terms / 2][columns]`.
struct Product<'a> {
    /// Rows, terms and columns in blocks.
    blocks: [usize; 3],
    left: &'a [bf16],
    right: &'a [[bf16; 2]],
    /// Whether it is added to what is there.
    add: bool,
}

impl Product<'_> {
    /// To `[rows, columns]`.
    fn run(&self, session: &Session, to: &mut [f32]) {
        let [rows, terms, columns] = self.blocks;
        let row = BLOCK * columns;
        assert!(
            self.left.len() >= rows * terms * STEP
                && self.right.len() >= terms * TILE * row
                && to.len() >= rows * BLOCK * row,
            "attention: memory"
        );
        let steps: Vec<[u32; 2]> = (0..terms)
            .map(|step| [step * 2 * TILE_BYTES, step * TILE * 4 * row].map(|bytes| bytes as u32))
            .collect();
        for i in 0..rows {
            for j in 0..columns {
                let block = Block {
                    a: self.left[i * terms * STEP..].as_ptr().cast(),
                    a_second: TILE_BYTES,
                    b: self.right[j * BLOCK..].as_ptr().cast(),
                    b_row: 4 * row,
                    b_second: 4 * TILE,
                    steps: &steps,
                    c: to[i * BLOCK * row + j * BLOCK..].as_mut_ptr(),
                    c_row: 4 * row,
                    add: self.add,
                };
                // SAFETY: in bounds by the assertion.
                unsafe { session.block(&block) };
            }
        }
    }
}

impl<'a> Tiled<'a> {
    pub(super) fn new(unit: Unit, simd: Simd, shape: &'a AttentionShape) -> Self {
        Self {
            unit,
            simd,
            shape,
            channels: shape.head_channels().div_ceil(BLOCK),
            positions: shape.n.div_ceil(BLOCK),
        }
    }

    /// Query, key and value of an image and head.
    fn head(&self, qkv: &'a [bf16], head: usize) -> [Map<'a>; 3] {
        let (d, n) = (self.shape.head_channels(), self.shape.n);
        self.shape
            .parts(head)
            .map(|start| Map::new(&qkv[start..start + d * n], n))
    }

    pub(super) fn forward(&self, qkv: &[bf16]) -> Vec<bf16> {
        let s = self.shape;
        assert_eq!(
            qkv.len(),
            3 * s.batch * s.channels * s.n,
            "attention: sizes do not fit"
        );
        let pieces = s.n.div_ceil(JOB_QUERIES);
        let of_head = s.head_channels() * s.n;
        // SAFETY: the jobs cover all heads and queries.
        unsafe {
            filled(qkv.len() / 3, |out: SharedMut<'_, bf16>| {
                each_job(s.batch * s.heads * pieces, |job| {
                    let (head, first) = (job / pieces, job % pieces * JOB_QUERIES);
                    let queries = first..(first + JOB_QUERIES).min(s.n);
                    let out = out.as_mut_ptr().wrapping_add(head * of_head);
                    Tiled { ..*self }.forward_head(self.head(qkv, head), queries, out);
                });
            })
        }
    }

    /// # Safety
    /// `out` has room for the head's part of the result; the part of these queries is written.
    unsafe fn forward_head(&self, [q, k, v]: [Map<'_>; 3], queries: Range<usize>, out: *mut bf16) {
        let (c, p) = (self.channels, self.positions);
        let lengths = [
            c * p * HALF_LINES,
            c * p * HALF_LINES,
            c * HALF_LINES,
            p * LINES,
            p * HALF_LINES,
            c * LINES,
        ];
        with_lines(lengths, |[keys, values, query, weights, rounded, sums]| {
            let (keys, values) = (halves_mut(keys), halves_mut(values));
            let (query, rounded) = (pairs_mut(query), pairs_mut(rounded));
            self.simd.vectorise(
                #[inline(always)]
                || {
                    k.rows_of_channels(keys, c);
                    v.rows_of_positions(values, p);
                },
            );
            let session = self.unit.start();
            for at in blocks(queries) {
                self.simd.vectorise(
                    #[inline(always)]
                    || q.pairs_of_channels(&at, query),
                );
                let scores = Product {
                    blocks: [p, c, 1],
                    left: keys,
                    right: query,
                    add: false,
                };
                scores.run(&session, floats_mut(weights));
                let inverse = self.simd.vectorise(
                    #[inline(always)]
                    || {
                        let inverse = exponentials(self.shape, weights);
                        round_pairs(floats(weights), self.shape.n, rounded);
                        inverse
                    },
                );
                let result = Product {
                    blocks: [c, p, 1],
                    left: values,
                    right: rounded,
                    add: false,
                };
                result.run(&session, floats_mut(sums));
                self.simd.vectorise(
                    #[inline(always)]
                    || {
                        scale_columns(sums, &inverse);
                        // SAFETY: the caller's promise.
                        unsafe { self.store_queries(floats(sums), &at, out) };
                    },
                );
            }
        });
    }

    pub(super) fn gradient(&self, qkv: &[bf16], dout: &[bf16]) -> Vec<bf16> {
        let s = self.shape;
        assert!(
            3 * dout.len() == qkv.len() && dout.len() == s.batch * s.channels * s.n,
            "attention: sizes do not fit"
        );
        let of_head = s.head_channels() * s.n;
        // SAFETY: the jobs cover all heads, and a head its query, key and value.
        unsafe {
            filled(qkv.len(), |dqkv: SharedMut<'_, bf16>| {
                each_job(dout.len() / of_head.max(1), |head| {
                    let dout = &dout[head * of_head..][..of_head];
                    let to = s
                        .parts(head)
                        .map(|start| dqkv.as_mut_ptr().wrapping_add(start));
                    Tiled { ..*self }.gradient_of_head(
                        self.head(qkv, head),
                        Map::new(dout, s.n),
                        to,
                    );
                });
            })
        }
    }

    /// # Safety
    /// There is room for the gradients of query, key and value; all of them are written.
    unsafe fn gradient_of_head(
        &self,
        [q, k, v]: [Map<'_>; 3],
        dout: Map<'_>,
        [dq, dk, dv]: [*mut bf16; 3],
    ) {
        let (c, p, n) = (self.channels, self.positions, self.shape.n);
        let all = c * p;
        let [keys, values, keys_turned] = [all * HALF_LINES; 3];
        let [left, right] = [c * HALF_LINES; 2];
        let [weights, dweights] = [p * LINES; 2];
        let [rows, drows, pairs] = [p * HALF_LINES; 3];
        let [sums, dkeys, dvalues] = [c * LINES, all * LINES, all * LINES];
        let lengths = [
            keys,
            values,
            keys_turned,
            left,
            right,
            weights,
            dweights,
            rows,
            drows,
            pairs,
            sums,
            dkeys,
            dvalues,
        ];
        with_lines(lengths, |memory| {
            let [
                keys,
                values,
                keys_turned,
                left,
                right,
                weights,
                dweights,
                rows,
                drows,
                pairs,
                sums,
                dkeys,
                dvalues,
            ] = memory;
            let (keys, values) = (halves_mut(keys), halves_mut(values));
            let keys_turned = halves_mut(keys_turned);
            let (left, right) = (pairs_mut(left), pairs_mut(right));
            let (rows, drows) = (halves_mut(rows), halves_mut(drows));
            let pairs = pairs_mut(pairs);
            self.simd.vectorise(
                #[inline(always)]
                || {
                    k.rows_of_channels(keys, c);
                    v.rows_of_channels(values, c);
                    k.rows_of_positions(keys_turned, p);
                },
            );
            let session = self.unit.start();
            let product = |blocks, left: &[bf16], right: &[[bf16; 2]], add, to: &mut [Line]| {
                let product = Product {
                    blocks,
                    left,
                    right,
                    add,
                };
                product.run(&session, floats_mut(to));
            };
            for at in blocks(0..n) {
                let add = at.start > 0;
                self.simd.vectorise(
                    #[inline(always)]
                    || {
                        q.pairs_of_channels(&at, left);
                        dout.pairs_of_channels(&at, right);
                    },
                );
                product([p, c, 1], keys, left, false, weights);
                product([p, c, 1], values, right, false, dweights);
                self.simd.vectorise(
                    #[inline(always)]
                    || {
                        let inverse = exponentials(self.shape, weights);
                        scale_columns(weights, &inverse);
                        through_softmax(self.shape, weights, dweights);
                        round_rows(floats(weights), n, rows);
                        round_rows(floats(dweights), n, drows);
                        round_pairs(floats(dweights), n, pairs);
                        q.pairs_of_positions(&at, left, c);
                        dout.pairs_of_positions(&at, right, c);
                    },
                );
                product([c, p, 1], keys_turned, pairs, false, sums);
                product([p, 1, c], drows, left, add, dkeys);
                product([p, 1, c], rows, right, add, dvalues);
                self.simd.vectorise(
                    #[inline(always)]
                    // SAFETY: the caller's promise.
                    || unsafe { self.store_queries(floats(sums), &at, dq) },
                );
            }
            self.simd.vectorise(
                #[inline(always)]
                // SAFETY: the caller's promise.
                || unsafe {
                    self.store_positions(floats(dkeys), dk);
                    self.store_positions(floats(dvalues), dv);
                },
            );
        });
    }

    /// Rows of 32 to the positions `at` of `[d, n]`, rounded.
    ///
    /// # Safety
    /// `to` has room for them.
    #[inline(always)]
    unsafe fn store_queries(&self, from: &[f32], at: &Range<usize>, to: *mut bf16) {
        let rows = from.as_chunks::<QUERIES>().0;
        for (channel, row) in rows[..self.shape.head_channels()].iter().enumerate() {
            let to = to.wrapping_add(channel * self.shape.n + at.start);
            for (i, &value) in row[..at.len()].iter().enumerate() {
                // SAFETY: the caller's promise.
                unsafe { to.add(i).write(bf16::of(value)) };
            }
        }
    }

    /// Rows of positions to `[d, n]`, rounded.
    ///
    /// # Safety
    /// `to` has room for them.
    #[inline(always)]
    unsafe fn store_positions(&self, from: &[f32], to: *mut bf16) {
        let (d, n) = (self.shape.head_channels(), self.shape.n);
        for (position, row) in from.chunks_exact(BLOCK * self.channels).take(n).enumerate() {
            for (channel, &value) in row[..d].iter().enumerate() {
                // SAFETY: the caller's promise.
                unsafe { to.add(channel * n + position).write(bf16::of(value)) };
            }
        }
    }
}

/// The blocks of some queries.
fn blocks(queries: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let end = queries.end;
    queries
        .step_by(QUERIES)
        .map(move |first| first..(first + QUERIES).min(end))
}
