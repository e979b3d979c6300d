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

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;
    use sdft_features::DigitsJudge;
    use sdft_nn::Params;

    #[test]
    fn the_distance_is_the_mean_over_pairs_and_zero_for_equal_images() {
        let specs = DigitsJudge::specs().unwrap();
        let params = Params::init(&specs, 0, &Device::Cpu).unwrap();
        let judge = DigitsJudge::load(&params).unwrap();
        let noise = |n| Tensor::rand(-1f32, 1.0, (n, 3, 16, 16), &Device::Cpu).unwrap();
        let (a, b) = (noise(1), noise(1));
        let far = aligned_distance(&judge, &a, &b).unwrap();
        assert!(far > 0.01, "{far}");
        let pairs = [(&a, &a), (&a, &b)].map(|(x, y)| Tensor::cat(&[x, y], 0).unwrap());
        let half = aligned_distance(&judge, &pairs[0], &pairs[1]).unwrap();
        assert!((half - far / 2.0).abs() < 1e-6, "{half} {far}");
        assert!(aligned_distance(&judge, &a, &noise(2)).is_err());
    }
}
