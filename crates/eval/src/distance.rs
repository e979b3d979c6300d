//! The distance of image pairs in the layers of a judge.

use candle_core::{D, DType, Result, Tensor, bail};
use sdft_features::{AttributeJudge, Judgement};

/// Batch size of the judge.
const CHUNK: usize = 256;

/// How much two sets of images differ in the judge's layers, pair by pair: the mean of a distance as LPIPS's without learned weights; 0 for
/// equal images.
///
/// ```text
/// d = sum over layers of mean over pixels of |a/|a| - b/|b||^2
/// ```
///
/// # Shapes
/// - `a`, `b`: `[N, 3, side, side]` in [-1, 1], in the same order
///
/// # Errors
/// Fails if the sets have different sizes.
pub fn aligned_distance(judge: &impl AsRef<AttributeJudge>, a: &Tensor, b: &Tensor) -> Result<f64> {
    let (judge, n) = (judge.as_ref(), a.dim(0)?);
    if n == 0 || b.dim(0)? != n {
        bail!(
            "expected two sets of equal size, found {n} and {} samples",
            b.dim(0)?
        );
    }
    let mut total = 0.0;
    for start in (0..n).step_by(CHUNK) {
        let len = CHUNK.min(n - start);
        let (a, b) = (
            judge.classify(&a.narrow(0, start, len)?)?,
            judge.classify(&b.narrow(0, start, len)?)?,
        );
        total += distance(&a, &b)?;
    }
    Ok(total / n as f64)
}

/// Sum over the batch and over the layers of the spatial mean of `|a/|a| - b/|b||^2`.
fn distance(a: &Judgement, b: &Judgement) -> Result<f64> {
    let unit = |map: &Tensor| map.broadcast_div(&(map.sqr()?.sum_keepdim(1)?.sqrt()? + 1e-10)?);
    let mut total = 0.0;
    for (a, b) in a.maps.iter().zip(&b.maps) {
        let difference = (unit(a)? - unit(b)?)?
            .sqr()?
            .sum(1)?
            .mean((D::Minus2, D::Minus1))?;
        total += difference
            .sum_all()?
            .to_dtype(DType::F64)?
            .to_scalar::<f64>()?;
    }
    Ok(total)
}
