//! Attention in f32: the weights of 32 queries at a time stay in the cache, with one row for each key.

use super::softmax::{exponentials, scale_columns, through_softmax};
use super::{AttentionShape, JOB_QUERIES, QUERIES};
use crate::lanes::{gather, scatter};
use crate::micro::Product;
use crate::shared_mut::{SharedMut, filled};
use crate::simd::{Lanes, Simd, Task};
use crate::threads::each_job;
use crate::workspace::{Line, put, with_lines};
use std::ops::Range;

/// Attention whose heads consist of whole register blocks.
#[derive(Clone, Copy)]
pub(super) struct Blocks<'a> {
    simd: Simd,
    shape: &'a AttentionShape,
    /// Channels of a head, and the vectors that hold them.
    d: usize,
    lines: usize,
    /// Keys, up to a multiple of sixteen.
    keys: usize,
}

impl<'a> Blocks<'a> {
    /// Returns `Some` where this applies.
    pub(super) fn of(shape: &'a AttentionShape, simd: Simd) -> Option<Self> {
        let d = shape.head_channels();
        (d.is_multiple_of(8) && d > 0).then_some(Self {
            simd,
            shape,
            d,
            lines: d.div_ceil(16),
            keys: shape.n.next_multiple_of(16),
        })
    }

    /// Lines of a matrix with a row for each key and a column for each query of a block.
    fn weight_lines(&self) -> usize {
        self.keys * QUERIES / 16
    }

    /// Lines of a matrix with a row for each channel and a column for each query of a block.
    fn query_lines(&self) -> usize {
        self.d * QUERIES / 16
    }

    /// Lines of keys or values with the channels innermost.
    fn key_lines(&self) -> usize {
        self.keys * self.lines
    }

    fn check(&self, qkv: &[f32]) {
        assert_eq!(
            qkv.len(),
            3 * self.shape.batch * self.shape.channels * self.shape.n,
            "attention: sizes do not fit"
        );
    }

    /// Query, key and value of an image and head.
    fn head(&self, qkv: &'a [f32], head: usize) -> Head<'a> {
        let n = self.shape.n;
        let [q, k, v] = self
            .shape
            .parts(head)
            .map(|start| &qkv[start..start + self.d * n]);
        Head { of: *self, q, k, v }
    }

    pub(super) fn forward(&self, qkv: &[f32]) -> Vec<f32> {
        self.check(qkv);
        let (n, d) = (self.shape.n, self.d);
        let pieces = n.div_ceil(JOB_QUERIES);
        let lengths = [
            self.key_lines(),
            self.query_lines(),
            self.weight_lines(),
            self.query_lines(),
        ];
        // SAFETY: the jobs cover all heads and queries.
        unsafe {
            filled(qkv.len() / 3, |out: SharedMut<'_, f32>| {
                each_job(qkv.len() / (3 * d * n) * pieces, |job| {
                    let (head, first) = (job / pieces, job % pieces * JOB_QUERIES);
                    with_lines(lengths, |memory| {
                        self.simd.run(Forward {
                            head: self.head(qkv, head),
                            queries: first..(first + JOB_QUERIES).min(n),
                            memory,
                            out: out.as_mut_ptr().wrapping_add(head * d * n),
                        });
                    });
                });
            })
        }
    }

    pub(super) fn gradient(&self, qkv: &[f32], dout: &[f32]) -> Vec<f32> {
        self.check(qkv);
        assert_eq!(
            3 * dout.len(),
            qkv.len(),
            "attention: a gradient of another size"
        );
        let of_head = self.d * self.shape.n;
        let of_block = QUERIES * self.lines;
        let lengths = [
            self.key_lines(),
            self.key_lines(),
            self.key_lines(),
            self.key_lines(),
            self.weight_lines(),
            self.weight_lines(),
            self.query_lines(),
            self.query_lines(),
            of_block,
            of_block,
        ];
        // SAFETY: the jobs cover all heads, and a head its query, key and value.
        unsafe {
            filled(qkv.len(), |dqkv: SharedMut<'_, f32>| {
                each_job(dout.len() / of_head, |head| {
                    let dout = &dout[head * of_head..][..of_head];
                    let to = self.shape.parts(head);
                    with_lines(lengths, |memory| {
                        self.simd.run(Backward {
                            head: self.head(qkv, head),
                            dout,
                            memory,
                            to: to.map(|start| dqkv.as_mut_ptr().wrapping_add(start)),
                        });
                    });
                });
            })
        }
    }
}

/// Query, key and value of one head, each `[d, n]`.
#[derive(Clone, Copy)]
struct Head<'a> {
    of: Blocks<'a>,
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
}

impl Head<'_> {
    /// The positions `at` of `[d, n]` with the channels innermost; a multiple of sixteen positions is written.
    #[inline(always)]
    fn transpose<V: Lanes>(&self, x: &[f32], at: Range<usize>, to: &mut [Line]) {
        let (n, lines) = (self.of.shape.n, self.of.lines);
        assert!(at.end <= n && x.len() == self.of.d * n, "positions");
        for line in 0..lines {
            let channels = (self.of.d - 16 * line).min(16);
            let from = x.as_ptr().wrapping_add(16 * line * n + at.start);
            // SAFETY: channels and positions of the head.
            unsafe { gather::<V>(from, n, channels, at.len(), &mut to[line..], lines) };
        }
    }

    /// The positions `at` of `[d, n]` as rows of 32, with zeros behind the last position.
    #[inline(always)]
    fn block<V: Lanes>(&self, x: &[f32], at: &Range<usize>, to: &mut [Line]) {
        let n = self.of.shape.n;
        for (row, pair) in x.chunks_exact(n).zip(to.as_chunks_mut::<2>().0) {
            let row = &row[at.clone()];
            for (half, line) in pair.iter_mut().enumerate() {
                let row = &row[(16 * half).min(row.len())..];
                // SAFETY: sixteen floats, or as many as are left.
                let value = unsafe {
                    if row.len() >= 16 {
                        V::load(row.as_ptr())
                    } else {
                        V::load_first(row.as_ptr(), row.len())
                    }
                };
                put(line, value);
            }
        }
    }

    /// `left^T right` `[keys, 32]`, for `left` `[keys, d]` of [`Self::transpose`] and `right` of [`Self::block`].
    #[inline(always)]
    fn over_channels<V: Lanes>(&self, left: &[Line], right: &[Line], to: &mut [Line]) {
        let of = &self.of;
        assert!(
            left.len() >= of.key_lines()
                && right.len() >= of.query_lines()
                && to.len() >= of.weight_lines(),
            "attention: memory"
        );
        let (left, row) = (left.as_ptr().cast(), 16 * of.lines);
        // SAFETY: in bounds by the assertion.
        unsafe { multiply::<V>([of.keys, of.d], (left, row), right, to) }
    }

    /// `x weights` `[d, 32]`, for `x` `[d, n]` and weights with a row for each key.
    #[inline(always)]
    fn over_keys<V: Lanes>(&self, x: &[f32], weights: &[Line], to: &mut [Line]) {
        let (of, n) = (&self.of, self.of.shape.n);
        assert!(
            x.len() == of.d * n
                && weights.len() >= of.weight_lines()
                && to.len() >= of.query_lines(),
            "attention: memory"
        );
        // SAFETY: in bounds by the assertion.
        unsafe { multiply::<V>([of.d, n], (x.as_ptr(), n), weights, to) }
    }

    /// `weights x` `[keys, d]`, or adds it, for the first `queries` columns of the weights and `x` of [`Self::transpose`].
    #[inline(always)]
    fn over_queries<V: Lanes>(
        &self,
        weights: &[Line],
        x: &[Line],
        queries: usize,
        (to, add): (&mut [Line], bool),
    ) {
        let of = &self.of;
        assert!(
            queries <= QUERIES
                && weights.len() >= of.weight_lines()
                && x.len() >= queries * of.lines
                && to.len() >= of.key_lines(),
            "attention: memory"
        );
        let product = Product {
            rows: of.keys,
            columns: 16 * of.lines,
            depth: queries,
            a: weights.as_ptr().cast(),
            a_row: QUERIES,
            a_depth: 1,
            b: x.as_ptr().cast(),
            b_depth: 16 * of.lines,
            b_panel: 32,
            c: to.as_mut_ptr().cast(),
            c_row: 16 * of.lines,
            add,
            bias: std::ptr::null(),
        };
        // SAFETY: in bounds by the assertion.
        unsafe { product.run::<V>() }
    }
}

impl Blocks<'_> {
    /// Rows of 32 to the positions `at` of `[d, n]`.
    ///
    /// # Safety
    /// `d n` writable floats at `to`.
    #[inline(always)]
    unsafe fn store<V: Lanes>(&self, from: &[Line], at: &Range<usize>, to: *mut f32) {
        for (c, pair) in from.as_chunks::<2>().0[..self.d].iter().enumerate() {
            let to = to.wrapping_add(c * self.shape.n + at.start);
            for (half, line) in pair.iter().enumerate() {
                let to = to.wrapping_add(16 * half);
                let value: V = crate::workspace::get(line);
                // SAFETY: the positions of this channel.
                unsafe {
                    match at.len().saturating_sub(16 * half) {
                        left @ 0..16 => value.store_first(to, left),
                        _ => value.store(to),
                    }
                }
            }
        }
    }

    /// The blocks of some queries.
    #[inline(always)]
    fn blocks(&self, queries: Range<usize>) -> impl Iterator<Item = Range<usize>> {
        let end = queries.end;
        queries
            .step_by(QUERIES)
            .map(move |first| first..(first + QUERIES).min(end))
    }
}

/// `left right` with a column for each query, for `left` of these rows and columns, whose rows are so far apart.
///
/// # Safety
/// `left` has these elements, and `right` and `to` have that many rows of 32.
#[inline(always)]
unsafe fn multiply<V: Lanes>(
    [rows, depth]: [usize; 2],
    (left, row): (*const f32, usize),
    right: &[Line],
    to: &mut [Line],
) {
    let product = Product {
        rows,
        columns: QUERIES,
        depth,
        a: left,
        a_row: row,
        a_depth: 1,
        b: right.as_ptr().cast(),
        b_depth: QUERIES,
        b_panel: QUERIES,
        c: to.as_mut_ptr().cast(),
        c_row: QUERIES,
        add: false,
        bias: std::ptr::null(),
    };
    // SAFETY: the caller's promise.
    unsafe { product.run::<V>() }
}

/// The result of some queries of one head.
struct Forward<'a> {
    head: Head<'a>,
    queries: Range<usize>,
    memory: [&'a mut [Line]; 4],
    /// `[d, n]`.
    out: *mut f32,
}

impl Task for Forward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<V: Lanes>(self) {
        let head = self.head;
        let [keys, q, weights, out] = self.memory;
        head.transpose::<V>(head.k, 0..head.of.shape.n, keys);
        for at in head.of.blocks(self.queries) {
            head.block::<V>(head.q, &at, q);
            head.over_channels::<V>(keys, q, weights);
            let inverse = exponentials(head.of.shape, weights);
            head.over_keys::<V>(head.v, weights, out);
            scale_columns(out, &inverse);
            // SAFETY: the head's part of the result; jobs write different queries.
            unsafe { head.of.store::<V>(out, &at, self.out) };
        }
    }
}

/// The gradients of query, key and value of one head.
struct Backward<'a> {
    head: Head<'a>,
    dout: &'a [f32],
    memory: [&'a mut [Line]; 10],
    /// Each `[d, n]`.
    to: [*mut f32; 3],
}

impl Task for Backward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<V: Lanes>(self) {
        let (head, dout) = (self.head, self.dout);
        let (of, n) = (head.of, head.of.shape.n);
        let [
            keys,
            values,
            dkeys,
            dvalues,
            weights,
            dweights,
            rows,
            drows,
            columns,
            dcolumns,
        ] = self.memory;
        head.transpose::<V>(head.k, 0..n, keys);
        head.transpose::<V>(head.v, 0..n, values);
        for at in of.blocks(0..n) {
            let (queries, add) = (at.len(), at.start > 0);
            head.block::<V>(head.q, &at, rows);
            head.block::<V>(dout, &at, drows);
            head.over_channels::<V>(keys, rows, weights);
            let inverse = exponentials(of.shape, weights);
            scale_columns(weights, &inverse);
            head.over_channels::<V>(values, drows, dweights);
            through_softmax(of.shape, weights, dweights);
            head.over_keys::<V>(head.k, dweights, rows);
            // SAFETY: the query's gradient.
            unsafe { of.store::<V>(rows, &at, self.to[0]) };
            head.transpose::<V>(head.q, at.clone(), columns);
            head.transpose::<V>(dout, at, dcolumns);
            head.over_queries::<V>(dweights, columns, queries, (dkeys, add));
            head.over_queries::<V>(weights, dcolumns, queries, (dvalues, add));
        }
        for (from, to) in [(&*dkeys, self.to[1]), (&*dvalues, self.to[2])] {
            for line in 0..of.lines {
                let channels = (of.d - 16 * line).min(16);
                let to = to.wrapping_add(16 * line * n);
                // SAFETY: channels of the key's or value's gradient.
                unsafe { scatter::<V>(&from[line..], of.lines, to, n, channels, n) };
            }
        }
    }
}
