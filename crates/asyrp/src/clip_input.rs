//! The input of CLIP, differentiably.

use candle_core::{DType, Device, Result, Tensor, bail};
use sdft_autograd::separable;
use sdft_imaging::{Filter, resize_matrix};

/// Makes CLIP's input of a generated image, differentiably: resized without rounding or clamping, then normalised.
///
/// Source: torchvision `Resize(n, BICUBIC)`, `CenterCrop(n)` and `Normalize` on tensors, after `(x + 1) / 2`.
#[derive(Clone, Debug)]
pub struct ClipInput {
    rows: Tensor,
    columns: Tensor,
    mean: Tensor,
    std: Tensor,
}

impl ClipInput {
    /// The mean of CLIP's training images.
    pub const MEAN: [f64; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
    /// Their standard deviation.
    pub const STD: [f64; 3] = [0.268_629_54, 0.261_302_58, 0.275_777_11];

    /// From images of this height and width to the middle square of `n` pixels; `antialias` widens the kernel where the image shrinks, as
    /// torchvision does from 0.17 on.
    ///
    /// # Errors
    /// A side of 0.
    pub fn new(size: [usize; 2], n: usize, antialias: bool, device: &Device) -> Result<Self> {
        Self::with(size, n, antialias, Self::MEAN, Self::STD, device)
    }

    /// As [`ClipInput::new`], with another mean and deviation.
    ///
    /// # Errors
    /// A side of 0.
    pub fn with(
        size: [usize; 2],
        n: usize,
        antialias: bool,
        mean: [f64; 3],
        std: [f64; 3],
        device: &Device,
    ) -> Result<Self> {
        let [height, width] = size;
        let short = height.min(width);
        if short == 0 || n == 0 {
            bail!(
                "images for CLIP: expected sides of at least one pixel, found {height}x{width} and {n}"
            );
        }
        let matrix = |side: usize| {
            // The short side becomes n, and the long one is in proportion, rounded down.
            let whole = (n as u128 * side as u128 / short as u128) as usize;
            // With antialiasing, PyTorch's kernel is Pillow's.
            let matrix = match antialias {
                true => resize_matrix(side, whole, Filter::Bicubic),
                false => four_taps(side, whole),
            };
            let matrix = Tensor::from_vec(matrix, (whole, side), device)?.to_dtype(DType::F32)?;
            let first = ((whole - n) as f64 / 2.0).round_ties_even() as usize;
            matrix.narrow(0, first, n)?.contiguous()
        };
        let channel = |values: [f64; 3]| {
            Tensor::new(&values, device)?
                .to_dtype(DType::F32)?
                .reshape((1, 3, 1, 1))
        };
        Ok(Self {
            rows: matrix(height)?,
            columns: matrix(width)?,
            mean: channel(mean)?,
            std: channel(std)?,
        })
    }

    /// `[B, 3, H, W]` in [-1, 1] to `[B, 3, n, n]`.
    ///
    /// # Errors
    /// An image of another size.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let light = x.affine(0.5, 0.5)?;
        let resized = separable(&self.rows, &light, &self.columns)?;
        resized.broadcast_sub(&self.mean)?.broadcast_div(&self.std)
    }
}

/// The matrix `[n, side]` of the cubic with a = -0.75 on four pixels, those beyond the ends being the last ones: PyTorch's `bicubic` without
/// antialiasing, `align_corners=False`.
fn four_taps(side: usize, n: usize) -> Vec<f64> {
    const A: f64 = -0.75;
    let cubic = |x: f64| match x.abs() {
        d if d < 1.0 => ((A + 2.0) * d - (A + 3.0)) * d * d + 1.0,
        d if d < 2.0 => (((d - 5.0) * d + 8.0) * d - 4.0) * A,
        _ => 0.0,
    };
    let scale = side as f64 / n as f64;
    let mut matrix = vec![0.0; n * side];
    for (i, row) in matrix.chunks_exact_mut(side).enumerate() {
        let at = (i as f64 + 0.5) * scale - 0.5;
        for tap in -1..=2 {
            let place = at.floor() + f64::from(tap);
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "clamped to the pixels there are"
            )]
            let inside = place.clamp(0.0, (side - 1) as f64) as usize;
            row[inside] += cubic(at - place);
        }
    }
    matrix
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_constant_stays_the_same() {
        for (side, n) in [(60, 37), (31, 224), (5, 5), (1, 3)] {
            for row in four_taps(side, n).chunks_exact(side) {
                assert!((row.iter().sum::<f64>() - 1.0).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn an_image_of_the_right_size_is_only_normalised() {
        let x = Tensor::rand(-1f32, 1f32, (2, 3, 7, 7), &Device::Cpu).unwrap();
        let input = ClipInput::with([7, 7], 7, true, [0.5; 3], [0.5; 3], &Device::Cpu).unwrap();
        let difference = (input.forward(&x).unwrap() - &x).unwrap().abs().unwrap();
        assert!(difference.max_all().unwrap().to_scalar::<f32>().unwrap() < 1e-6);
    }

    #[test]
    fn of_a_rectangle_the_middle_square_is_seen() {
        let x = Tensor::rand(-1f32, 1f32, (2, 3, 7, 12), &Device::Cpu).unwrap();
        let of = |size| ClipInput::with(size, 7, false, [0.5; 3], [0.5; 3], &Device::Cpu).unwrap();
        // Half a pixel rounds to the even place.
        let middle = x.narrow(3, 2, 7).unwrap().contiguous().unwrap();
        for (size, x) in [
            ([7, 12], x.clone()),
            ([12, 7], x.t().unwrap().contiguous().unwrap()),
        ] {
            let seen = of(size).forward(&x).unwrap();
            let expected = match size {
                [7, _] => middle.clone(),
                _ => middle.t().unwrap(),
            };
            let difference = (seen - expected).unwrap().abs().unwrap();
            assert!(difference.max_all().unwrap().to_scalar::<f32>().unwrap() < 1e-6);
        }
    }
}
