//! Means over the pixels of an image, with and without weights.

use candle_core::{Result, Tensor};

/// The mean of each image's values over channels and pixels, `[B]`.
///
/// With `weights` it is `sum(w v) / sum(w)` over the pixels of an image, each weight for all channels, and 0 if all weights of an image
/// are 0. Weights that are all 1 change no bit.
///
/// # Shapes
/// - `values`: `[B, C, H, W]` · `weights`: `[B, 1, H, W]` · returns: `[B]`
///
/// # Errors
/// Shapes that differ.
pub fn mean_over_pixels(values: &Tensor, weights: Option<&Tensor>) -> Result<Tensor> {
    let Some(weights) = weights else {
        return values.flatten_from(1)?.mean(1);
    };
    let [_, _, height, width] = *weights.dims() else {
        candle_core::bail!("weights: expected [B, 1, H, W], found {:?}", weights.dims());
    };
    let sum = weights.sum_keepdim((1, 2, 3))?;
    let pixels = (sum.ones_like()? * (height * width) as f64)?;
    // The smallest sum of weights that are not all 0 is far larger.
    let share = pixels.div(&sum.maximum(1e-12)?)?;
    let weights = weights.broadcast_mul(&share)?;
    values.broadcast_mul(&weights)?.flatten_from(1)?.mean(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    fn tensor(values: &[f32], channels: usize) -> Tensor {
        Tensor::from_slice(values, (2, channels, 1, 3), &Device::Cpu).unwrap()
    }

    fn values(mean: &Tensor) -> Vec<f32> {
        mean.to_vec1().unwrap()
    }

    #[test]
    fn weights_choose_the_pixels_of_each_image() {
        let v = tensor(
            &[1.0, 2.0, 3.0, 5.0, 7.0, 9.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0],
            2,
        );
        let w = tensor(&[1.0, 0.0, 0.5, 0.0, 0.0, 0.0], 1);
        let mean = values(&mean_over_pixels(&v, Some(&w)).unwrap());
        let expected = (1.0 + 1.5 + 5.0 + 4.5) / (2.0 * 1.5);
        assert!((mean[0] - expected).abs() < 1e-6, "{mean:?} {expected}");
        assert_eq!(mean[1], 0.0);
    }

    #[test]
    fn weights_of_one_change_no_bit() {
        let v = tensor(&[0.1, 0.7, 0.3, -2.0, 1e-3, 5.0], 1);
        let ones = v.ones_like().unwrap();
        assert_eq!(
            values(&mean_over_pixels(&v, Some(&ones)).unwrap()),
            values(&mean_over_pixels(&v, None).unwrap())
        );
    }
}
