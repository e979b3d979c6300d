//! Queries, keys and values of separate layers, computed as one product.

use crate::layers::Linear;
use candle_core::{Result, Tensor};
use sdft_autograd::{join_rows, pointwise};
use std::sync::OnceLock;

/// The layers of queries, keys and values. Their joint weights are kept if they are frozen.
#[derive(Clone, Debug)]
pub struct Qkv {
    layers: [Linear; 3],
    kept: OnceLock<[Tensor; 2]>,
}

impl Qkv {
    /// The layers of queries, keys and values, in this order.
    pub fn new(layers: [Linear; 3]) -> Self {
        Self {
            layers,
            kept: OnceLock::new(),
        }
    }

    /// `[B, C, N]` to `[B, 3 I, N]`: queries, keys and values, as [`sdft_autograd::attention`] takes them with
    /// `AttentionOrder::Chunked`.
    ///
    /// # Errors
    /// Those of [`sdft_autograd::pointwise`].
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        if let Some([weight, bias]) = self.kept.get() {
            return pointwise(x, weight, bias);
        }
        let [q, k, v] = self.layers.each_ref().map(Linear::parameters);
        let weight = join_rows(&[q[0], k[0], v[0]])?;
        let bias = join_rows(&[q[1], k[1], v[1]])?;
        let y = pointwise(x, &weight, &bias)?;
        let mut parameters = [q, k, v].into_iter().flatten();
        if parameters.all(|parameter| !parameter.track_op()) {
            // Another thread may have been first, with the same values.
            let _ = self.kept.set([weight, bias]);
        }
        Ok(y)
    }
}
