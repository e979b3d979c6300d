//! The order of the rows of a joint projection of queries, keys and values.

use super::op::{Op, apply, compute};
use candle_core::{
    CpuStorage, CudaStorage, Layout, Result, Shape, Tensor, backend::BackendStorage, bail,
};

/// Reorders the rows of a joint projection whose queries, keys and values alternate channel by channel, so that they follow one another
/// in each head, as [`attention`](crate::attention) with `AttentionOrder::Legacy` expects them.
///
/// Source: NVlabs/edm `UNetBlock`, whose projection is seen as `[heads, C / heads, 3]`.
///
/// # Shapes
/// - `w`: `[3 C, ..]` · returns: the shape of `w`
///
/// # Errors
/// Rows that do not split into 3 x `heads`.
pub fn heads_apart(w: &Tensor, heads: usize) -> Result<Tensor> {
    let rows = w.dim(0)?;
    if heads == 0 || !rows.is_multiple_of(3 * heads) {
        bail!(
            "heads_apart: {:?} does not split into 3 x {heads} heads",
            w.shape()
        );
    }
    let each = rows / (3 * heads);
    apply(Swap([heads, each, 3]), [&w.contiguous()?])
}

/// The rows `[a, b, c]` as `[a, c, b]`.
struct Swap([usize; 3]);

impl Swap {
    /// The rows of `shape`, in the order of the result.
    fn layout(&self, layout: &Layout) -> Result<Layout> {
        let [a, b, c] = self.0;
        let rest = layout.shape().elem_count() / (a * b * c).max(1);
        let rows = Layout::contiguous_with_offset((a, b, c, rest), layout.start_offset());
        rows.permute(&[0, 2, 1, 3])
    }
}

impl Op<1> for Swap {
    fn name(&self) -> &'static str {
        "heads_apart"
    }

    fn cpu(&self, [(w, layout)]: [(&CpuStorage, &Layout); 1]) -> Result<(CpuStorage, Shape)> {
        // The same type: this makes a contiguous copy.
        let out = w.to_dtype(&self.layout(layout)?, w.dtype())?;
        Ok((out, layout.shape().clone()))
    }

    fn cuda(&self, [(w, layout)]: [(&CudaStorage, &Layout); 1]) -> Result<(CudaStorage, Shape)> {
        let out = w.to_dtype(&self.layout(layout)?, w.dtype())?;
        Ok((out, layout.shape().clone()))
    }

    fn gradients(&self, _: [&Tensor; 1], dy: &Tensor, _: [bool; 1]) -> Result<[Option<Tensor>; 1]> {
        let [a, b, c] = self.0;
        Ok([Some(compute(&Self([a, c, b]), [&dy.contiguous()?])?)])
    }

    fn saved(&self, _: [bool; 1]) -> [bool; 1] {
        [false]
    }

    fn is_feature_map(&self) -> bool {
        false
    }
}
