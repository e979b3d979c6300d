//! Self-attention over the columns of `[batch, 3 * channels, n]`.

mod blocks;
mod softmax;
#[cfg(test)]
mod tests;
mod tiled;

use crate::choice::Choice;
use crate::element::{to_bf16, to_f32};
use crate::gemm::{View, gemm};
use crate::simd::Simd;
use crate::threads::{each_chunk_mut, each_job};
use crate::{Element, Real, SharedMut};
use blocks::Blocks;
use half::bf16;
use tiled::Tiled;

/// Queries of one block: two vectors, or the side of a block of tiles.
const QUERIES: usize = 32;
/// Queries of one job of the forward pass; a job transposes the keys once.
const JOB_QUERIES: usize = 128;

/// The order of the 3C channels of the joint projection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AttentionOrder {
    /// Head by head: `q0 k0 v0 q1 k1 v1 ..` (`QKVAttentionLegacy`, the default of ADM).
    Legacy,
    /// All queries, all keys, all values, each head by head (`QKVAttention`).
    Chunked,
}

/// The shapes of one self-attention.
#[derive(Clone, Copy, Debug)]
pub struct AttentionShape {
    /// Images.
    pub batch: usize,
    /// Channels of the result, a third of those of the input.
    pub channels: usize,
    /// Positions of one image.
    pub n: usize,
    /// Heads; they divide the channels.
    pub heads: usize,
    /// The layout of the input channels.
    pub order: AttentionOrder,
}

impl AttentionShape {
    fn head_channels(&self) -> usize {
        self.channels / self.heads
    }

    /// Where query, key and value of one job start in the input.
    fn parts(&self, job: usize) -> [usize; 3] {
        let (image, head) = (job / self.heads, job % self.heads);
        let size = self.head_channels() * self.n;
        [0, 1, 2].map(|part| {
            let row = match self.order {
                AttentionOrder::Legacy => head * 3 + part,
                AttentionOrder::Chunked => part * self.heads + head,
            };
            (image * 3 * self.heads + row) * size
        })
    }

    fn scale(&self) -> f64 {
        1.0 / (self.head_channels() as f64).sqrt()
    }

    /// `softmax(scale q^T k)`, row by row, into `weights` `[n, n]`.
    fn weights<T: Real>(&self, q: &[T], k: &[T], weights: &mut [T]) {
        let (n, scale) = (self.n, T::from_f64(self.scale()));
        gemm(
            n,
            n,
            self.head_channels(),
            weights,
            n,
            false,
            View::new(q, n).t(),
            View::new(k, n),
        );
        for row in weights.chunks_exact_mut(n) {
            let mut top = row[0];
            for &value in row.iter() {
                if value > top {
                    top = value;
                }
            }
            for value in row.iter_mut() {
                *value = ((*value - top) * scale).exp();
            }
            let inverse = T::from_f64(1.0 / crate::norm::sum(row));
            for value in row.iter_mut() {
                *value *= inverse;
            }
        }
    }
}

/// Multi-head self-attention of `qkv` `[batch, 3 channels, n]`; returns `[batch, channels, n]`.
pub fn attention<E: Element>(shape: &AttentionShape, qkv: &[E]) -> Vec<E> {
    E::attention(shape, qkv)
}

/// By tiles where the processor multiplies bf16 fast, otherwise in f32.
pub(crate) fn forward_bf16(choice: Choice, shape: &AttentionShape, qkv: &[bf16]) -> Vec<bf16> {
    match choice.bf16 {
        Some(unit) => Tiled::new(unit, choice.simd, shape).forward(qkv),
        None => to_bf16(&attention_by(choice.simd, shape, &to_f32(qkv))),
    }
}

pub(crate) fn attention_by<T: Real>(simd: Simd, shape: &AttentionShape, qkv: &[T]) -> Vec<T> {
    if let (Some(qkv), Some(blocks)) = (T::as_f32(qkv), Blocks::of(shape, simd)) {
        return T::from_f32(blocks.forward(qkv));
    }
    let (n, d) = (shape.n, shape.head_channels());
    let mut out = vec![T::default(); shape.batch * shape.channels * n];
    each_chunk_mut(&mut out, d * n, |job, out| {
        let mut weights = vec![T::default(); n * n];
        let [q, k, v] = shape.parts(job).map(|start| &qkv[start..start + d * n]);
        shape.weights(q, k, &mut weights);
        gemm(
            d,
            n,
            n,
            out,
            n,
            false,
            View::new(v, n),
            View::new(&weights, n).t(),
        );
    });
    out
}

/// The gradient of `qkv`, from `dout` shaped like the result. The attention weights are computed again instead of saved.
pub fn attention_gradient<E: Element>(shape: &AttentionShape, qkv: &[E], dout: &[E]) -> Vec<E> {
    E::attention_gradient(shape, qkv, dout)
}

/// By tiles where the processor multiplies bf16 fast, otherwise in f32.
pub(crate) fn gradient_bf16(
    choice: Choice,
    shape: &AttentionShape,
    qkv: &[bf16],
    dout: &[bf16],
) -> Vec<bf16> {
    match choice.bf16 {
        Some(unit) => Tiled::new(unit, choice.simd, shape).gradient(qkv, dout),
        None => to_bf16(&gradient_by(
            choice.simd,
            shape,
            &to_f32(qkv),
            &to_f32(dout),
        )),
    }
}

pub(crate) fn gradient_by<T: Real>(
    simd: Simd,
    shape: &AttentionShape,
    qkv: &[T],
    dout: &[T],
) -> Vec<T> {
    if let (Some(qkv), Some(dout), Some(blocks)) =
        (T::as_f32(qkv), T::as_f32(dout), Blocks::of(shape, simd))
    {
        return T::from_f32(blocks.gradient(qkv, dout));
    }
    let (n, d) = (shape.n, shape.head_channels());
    assert!(
        dout.len() == shape.batch * shape.channels * n && qkv.len() == 3 * dout.len(),
        "attention: sizes do not fit"
    );
    let mut dqkv = vec![T::default(); qkv.len()];
    let shared = SharedMut::new(&mut dqkv);
    let scale = T::from_f64(shape.scale());
    each_job(shape.batch * shape.heads, |job| {
        let mut weights = vec![T::default(); n * n];
        let mut dweights = vec![T::default(); n * n];
        let dout = &dout[job * d * n..][..d * n];
        let starts = shape.parts(job);
        let [q, k, v] = starts.map(|start| &qkv[start..start + d * n]);
        // SAFETY: the three parts of a job are distinct, and so are those of two jobs.
        let [dq, dk, dv] = starts.map(|start| unsafe { shared.slice(start, d * n) });
        shape.weights(q, k, &mut weights);
        gemm(
            d,
            n,
            n,
            dv,
            n,
            false,
            View::new(dout, n),
            View::new(&weights, n),
        );
        gemm(
            n,
            n,
            d,
            &mut dweights,
            n,
            false,
            View::new(dout, n).t(),
            View::new(v, n),
        );
        // Through softmax and scale: ds = scale * p (dp - sum(p dp)).
        for (p, dp) in weights.chunks_exact(n).zip(dweights.chunks_exact_mut(n)) {
            let dot: f64 = p
                .iter()
                .zip(dp.iter())
                .map(|(&p, &dp)| p.to_f64() * dp.to_f64())
                .sum();
            let dot = T::from_f64(dot);
            for (&p, dp) in p.iter().zip(dp.iter_mut()) {
                *dp = p * (*dp - dot) * scale;
            }
        }
        gemm(
            d,
            n,
            n,
            dq,
            n,
            false,
            View::new(k, n),
            View::new(&dweights, n).t(),
        );
        gemm(
            d,
            n,
            n,
            dk,
            n,
            false,
            View::new(q, n),
            View::new(&dweights, n),
        );
    });
    dqkv
}
