//! Self-attention over the columns of `[batch, 3 * channels, n]`, one job per image and head.

use super::gemm::{View, gemm};
use super::{Real, SharedMut};
use rayon::prelude::*;

/// How the 3C channels of the joint projection are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AttentionOrder {
    /// Head by head: `q0 k0 v0 q1 k1 v1 ..` (`QKVAttentionLegacy`, the default of ADM).
    Legacy,
    /// All queries, all keys, all values, each head by head (`QKVAttention`).
    Chunked,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct AttentionShape {
    pub(crate) batch: usize,
    pub(crate) channels: usize,
    pub(crate) n: usize,
    pub(crate) heads: usize,
    pub(crate) order: AttentionOrder,
}

impl AttentionShape {
    /// The same for a GPU.
    #[cfg(feature = "cuda")]
    pub(crate) fn on_gpu(&self) -> sdft_cuda::Attention {
        sdft_cuda::Attention {
            batch: self.batch,
            channels: self.channels,
            n: self.n,
            heads: self.heads,
            head_by_head: self.order == AttentionOrder::Legacy,
        }
    }

    fn head_channels(&self) -> usize {
        self.channels / self.heads
    }

    /// Where query, key and value of one job begin in the input.
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
        let (n, scale) = (self.n, T::of(self.scale()));
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
            let inverse = T::of(1.0 / super::norm::sum(row));
            for value in row.iter_mut() {
                *value *= inverse;
            }
        }
    }
}

/// `[batch, channels, n]`: for each head, values averaged with the softmax of the scaled products.
pub(crate) fn forward<T: Real>(shape: &AttentionShape, qkv: &[T]) -> Vec<T> {
    let (n, d) = (shape.n, shape.head_channels());
    let mut out = vec![T::default(); shape.batch * shape.channels * n];
    out.par_chunks_mut(d * n).enumerate().for_each_init(
        || vec![T::default(); n * n],
        |weights, (job, out)| {
            let [q, k, v] = shape.parts(job).map(|start| &qkv[start..start + d * n]);
            shape.weights(q, k, weights);
            gemm(
                d,
                n,
                n,
                out,
                n,
                false,
                View::new(v, n),
                View::new(weights, n).t(),
            );
        },
    );
    out
}

/// The gradient of `qkv`; the weights are computed again rather than kept.
pub(crate) fn backward<T: Real>(shape: &AttentionShape, qkv: &[T], dout: &[T]) -> Vec<T> {
    let (n, d) = (shape.n, shape.head_channels());
    let mut dqkv = vec![T::default(); qkv.len()];
    let shared = SharedMut::new(&mut dqkv);
    let scale = T::of(shape.scale());
    dout.par_chunks(d * n).enumerate().for_each_init(
        || (vec![T::default(); n * n], vec![T::default(); n * n]),
        |(weights, dweights), (job, dout)| {
            let starts = shape.parts(job);
            let [q, k, v] = starts.map(|start| &qkv[start..start + d * n]);
            // SAFETY: the three parts of a job are distinct, and so are those of two jobs.
            let [dq, dk, dv] = starts.map(|start| unsafe { shared.slice(start, d * n) });
            shape.weights(q, k, weights);
            gemm(
                d,
                n,
                n,
                dv,
                n,
                false,
                View::new(dout, n),
                View::new(weights, n),
            );
            gemm(
                n,
                n,
                d,
                dweights,
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
                    .map(|(&p, &dp)| p.f64() * dp.f64())
                    .sum();
                let dot = T::of(dot);
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
                View::new(dweights, n).t(),
            );
            gemm(
                d,
                n,
                n,
                dk,
                n,
                false,
                View::new(q, n),
                View::new(dweights, n),
            );
        },
    );
    dqkv
}
