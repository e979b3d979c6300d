use candle_core::{DType, Device, Result, Tensor, bail};
use sdft_nn::separable;

/// What CLIP sees of a generated image, differentiably: resized without rounding or clamping, then normalised.
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

    /// For square images of `side` pixels, seen at `n`; `antialias` widens the kernel where the image shrinks, as torchvision does from
    /// 0.17 on.
    ///
    /// # Errors
    /// A side of 0.
    pub fn new(side: usize, n: usize, antialias: bool, device: &Device) -> Result<Self> {
        Self::with(side, n, antialias, Self::MEAN, Self::STD, device)
    }

    /// As [`ClipInput::new`], with another mean and deviation.
    ///
    /// # Errors
    /// A side of 0.
    pub fn with(
        side: usize,
        n: usize,
        antialias: bool,
        mean: [f64; 3],
        std: [f64; 3],
        device: &Device,
    ) -> Result<Self> {
        if side == 0 || n == 0 {
            bail!("images for CLIP: expected sides of at least one pixel, found {side} and {n}");
        }
        let matrix = Tensor::from_vec(bicubic(side, n, antialias), (n, side), device)?;
        let rows = matrix.to_dtype(DType::F32)?;
        let channel = |values: [f64; 3]| {
            Tensor::new(&values, device)?
                .to_dtype(DType::F32)?
                .reshape((1, 3, 1, 1))
        };
        Ok(Self {
            columns: rows.clone(),
            rows,
            mean: channel(mean)?,
            std: channel(std)?,
        })
    }

    /// `[B, 3, side, side]` in [-1, 1] to `[B, 3, n, n]`.
    ///
    /// # Errors
    /// An image of another size.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let light = x.affine(0.5, 0.5)?;
        let resized = separable(&self.rows, &light, &self.columns)?;
        resized.broadcast_sub(&self.mean)?.broadcast_div(&self.std)
    }
}

/// The matrix `[n, side]` that resizes a line of `side` pixels to `n`, row by row.
///
/// With antialiasing it is Pillow's: Keys' cubic with a = -0.5, as wide as a target pixel, cut off at the ends and normalised. Without, the
/// cubic with a = -0.75 on four pixels, those beyond the ends being the last ones.
fn bicubic(side: usize, n: usize, antialias: bool) -> Vec<f64> {
    let scale = side as f64 / n as f64;
    let mut matrix = vec![0.0; n * side];
    for (i, row) in matrix.chunks_exact_mut(side).enumerate() {
        let centre = (i as f64 + 0.5) * scale;
        if antialias {
            let wide = scale.max(1.0);
            let first = (centre - 2.0 * wide + 0.5).floor().max(0.0);
            let last = (centre + 2.0 * wide + 0.5).floor().min(side as f64);
            let mut sum = 0.0;
            for (place, value) in row.iter_mut().enumerate() {
                let at = place as f64;
                if at >= first && at < last {
                    *value = cubic((at - centre + 0.5) / wide, -0.5);
                    sum += *value;
                }
            }
            for value in row {
                *value /= sum;
            }
        } else {
            let at = centre - 0.5;
            let floor = at.floor();
            for tap in -1..=2 {
                let place = (floor + f64::from(tap)).clamp(0.0, (side - 1) as f64);
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "clamped to the pixels there are"
                )]
                let place = place as usize;
                row[place] += cubic(at - floor - f64::from(tap), -0.75);
            }
        }
    }
    matrix
}

/// Keys' cubic at distance `x`.
fn cubic(x: f64, a: f64) -> f64 {
    let d = x.abs();
    if d < 1.0 {
        ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0
    } else if d < 2.0 {
        (((d - 5.0) * d + 8.0) * d - 4.0) * a
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_constant_stays_what_it_is() {
        for (side, n, antialias) in [
            (60, 37, true),
            (60, 37, false),
            (31, 224, true),
            (31, 224, false),
            (5, 5, true),
        ] {
            for row in bicubic(side, n, antialias).chunks_exact(side) {
                assert!((row.iter().sum::<f64>() - 1.0).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn an_image_of_the_right_size_is_only_normalised() {
        let x = Tensor::rand(-1f32, 1f32, (2, 3, 7, 7), &Device::Cpu).unwrap();
        let input = ClipInput::with(7, 7, true, [0.5; 3], [0.5; 3], &Device::Cpu).unwrap();
        let difference = (input.forward(&x).unwrap() - &x).unwrap().abs().unwrap();
        assert!(difference.max_all().unwrap().to_scalar::<f32>().unwrap() < 1e-6);
    }
}
