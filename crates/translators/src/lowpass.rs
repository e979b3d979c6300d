//! The low-pass filter of EGSDE and ILVR.

use candle_core::{DType, Device, Result, Tensor, bail};
use sdft_autograd::separable;

/// A low-pass filter: down by a factor with an antialiasing triangle, and up again linearly. Borders are mirrored, the edge twice.
///
/// Source: EGSDE `functions/resizer.py` with its linear kernel, which follows MATLAB's `imresize`. Gradients flow through it.
#[derive(Clone, Debug)]
pub struct LowPass {
    down: [Tensor; 2],
    up: [Tensor; 2],
}

impl LowPass {
    /// The filter for images of `h` x `w`, both multiples of `factor`.
    ///
    /// # Errors
    /// A side that the factor does not divide.
    pub fn new(h: usize, w: usize, factor: usize, dtype: DType, device: &Device) -> Result<Self> {
        if factor == 0 || h == 0 || w == 0 || !h.is_multiple_of(factor) || !w.is_multiple_of(factor)
        {
            bail!(
                "a low-pass filter of factor {factor} needs sides that are multiples of it, found {h}x{w}"
            );
        }
        let matrix = |from: usize, to: usize| -> Result<Tensor> {
            Tensor::from_vec(resizer(from, to), (to, from), device)?.to_dtype(dtype)
        };
        Ok(Self {
            down: [matrix(h, h / factor)?, matrix(w, w / factor)?],
            up: [matrix(h / factor, h)?, matrix(w / factor, w)?],
        })
    }

    /// The small image, `[B, C, H / factor, W / factor]`.
    ///
    /// # Errors
    /// An image of another size or type.
    pub fn down(&self, x: &Tensor) -> Result<Tensor> {
        separable(&self.down[0], x, &self.down[1])
    }

    /// The coarse part of `x` `[B, C, H, W]`, in the same shape.
    ///
    /// # Errors
    /// An image of another size or type.
    pub fn apply(&self, x: &Tensor) -> Result<Tensor> {
        separable(&self.up[0], &self.down(x)?, &self.up[1])
    }
}

/// The matrix `[to, from]` that resizes a line of `from` pixels to `to`, row by row.
///
/// Output `p` is centred on the position `u = p / s + (1 - 1/s) / 2` (both counted from 1), `s = to / from`; a kernel of reach `r` takes the
/// pixels from `floor(u - r)` on. Smaller images are made with a triangle `1/s` times as wide.
fn resizer(from: usize, to: usize) -> Vec<f64> {
    let scale = to as f64 / from as f64;
    let shrink = scale.min(1.0);
    let width = 2.0 / shrink;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a positive number of pixels"
    )]
    let taps = width.ceil() as usize + 2;
    let mut matrix = vec![0.0; to * from];
    for (p, row) in matrix.chunks_exact_mut(from).enumerate() {
        let u = (p + 1) as f64 / scale + 0.5 * (1.0 - 1.0 / scale);
        let left = (u - width / 2.0).floor();
        let mut sum = 0.0;
        for tap in 0..taps {
            let place = left + tap as f64;
            let weight = (1.0 - (shrink * (u - place)).abs()).max(0.0);
            row[mirrored(place - 1.0, from)] += weight;
            sum += weight;
        }
        for value in row {
            *value /= sum;
        }
    }
    matrix
}

/// The pixel at `place` (counted from 0) of a line that is mirrored at its ends over and over: `.. 1 0 | 0 1 .. n-1 | n-1 ..`.
fn mirrored(place: f64, n: usize) -> usize {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a whole number between 0 and 2n"
    )]
    let i = place.rem_euclid(2.0 * n as f64) as usize;
    if i < n { i } else { 2 * n - 1 - i }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(side: usize, factor: usize) -> LowPass {
        LowPass::new(side, side, factor, DType::F64, &Device::Cpu).unwrap()
    }

    #[test]
    fn a_constant_stays_the_same() {
        for factor in [1, 2, 4, 8, 16, 32] {
            let x = Tensor::full(0.375f64, (1, 2, 32, 32), &Device::Cpu).unwrap();
            let difference = (filter(32, factor).apply(&x).unwrap() - x).unwrap();
            let largest = difference.abs().unwrap().max_all().unwrap();
            assert!(largest.to_scalar::<f64>().unwrap() < 1e-14, "{factor}");
        }
    }

    #[test]
    fn the_published_weights_of_factor_32() {
        let down = resizer(256, 8);
        // Output 3 sees inputs 32 * 3 - 16 .. 32 * 3 + 48.
        let row = &down[3 * 256..4 * 256];
        assert_eq!(row[79], 0.0);
        assert!((row[80] - 4.882_812_5e-4).abs() < 1e-12);
        assert!((row[111] - 0.030_761_718_75).abs() < 1e-12 && row[111] == row[112]);
        assert_eq!(row[144], 0.0);
        // The border pixels of the first output come twice: once for themselves, once mirrored.
        let mirrored = (16.5 + 15.5) / 1024.0;
        assert!((down[0] - mirrored).abs() < 1e-12, "{}", down[0]);
        let up = resizer(8, 256);
        assert_eq!(up[0..2], [1.0, 0.0]);
        assert_eq!(up[16 * 8..16 * 8 + 2], [0.984_375, 0.015_625]);
    }

    #[test]
    fn golden_sum_of_the_reference() {
        let wave: Vec<f32> = (0..2 * 3 * 256)
            .map(|n| (0.05 * n as f64).sin() as f32)
            .collect();
        let x = Tensor::from_vec(wave, (2, 3, 16, 16), &Device::Cpu).unwrap();
        let filter = LowPass::new(16, 16, 4, DType::F32, &Device::Cpu).unwrap();
        let y = filter
            .apply(&x)
            .unwrap()
            .flatten_all()
            .unwrap()
            .to_vec1::<f32>()
            .unwrap();
        let sum: f64 = y.iter().map(|&v| f64::from(v)).sum();
        let abs: f64 = y.iter().map(|&v| f64::from(v.abs())).sum();
        assert!(
            (sum - 16.139_331).abs() < 1e-4 && (abs - 307.954_423).abs() < 1e-3,
            "{sum} {abs}"
        );
        for (found, expected) in y
            .iter()
            .zip([0.487_413_8, 0.487_413_8, 0.489_742_9, 0.494_401_1])
        {
            assert!((found - expected).abs() < 1e-6, "{found} {expected}");
        }
    }

    #[test]
    fn sides_that_the_factor_does_not_divide_are_refused() {
        for (h, w, factor) in [
            (30, 32, 4),
            (32, 30, 4),
            (16, 16, 32),
            (16, 16, 0),
            (0, 16, 2),
        ] {
            let error = LowPass::new(h, w, factor, DType::F32, &Device::Cpu)
                .unwrap_err()
                .to_string();
            assert!(error.contains(&format!("{h}x{w}")), "{error}");
        }
    }
}
