//! Separable resampling by matrices.

use candle_core::{Result, Tensor};

/// Resamples height and width by one matrix each: `rows x cols^T` for every plane.
///
/// # Shapes
/// - `rows`: `[H', H]` · `x`: `[B, C, H, W]` · `cols`: `[W', W]` · returns: `[B, C, H', W']`
///
/// # Errors
/// Shapes or types that do not fit.
pub fn separable(rows: &Tensor, x: &Tensor, cols: &Tensor) -> Result<Tensor> {
    let (b, c, h, w) = x.dims4()?;
    let planes = x.contiguous()?.reshape((b * c, h, w))?;
    let wide = planes.broadcast_matmul(&cols.t()?)?;
    let out = rows.broadcast_matmul(&wide)?;
    out.reshape((b, c, rows.dim(0)?, cols.dim(0)?))
}
