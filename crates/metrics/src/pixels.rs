//! PSNR and SSIM.

use crate::picture::{Picture, same_size};
use crate::{MetricsError, Result};

/// SSIM's constants for a data range of 1.
const C1: f64 = 0.01 * 0.01;
const C2: f64 = 0.03 * 0.03;

/// Mean squared error over channels and pixels, for values in [0, 1].
///
/// # Errors
/// Fails if the pictures have different sizes.
pub fn mse(a: &Picture<'_>, b: &Picture<'_>) -> Result<f64> {
    same_size(a, b)?;
    let n = (3 * a.width() * a.height()) as f64;
    let sum = |c| -> f64 {
        let (a, b) = (a.plane(c), b.plane(c));
        a.iter().zip(&b).map(|(a, b)| (a - b) * (a - b)).sum()
    };
    Ok((0..3).map(sum).sum::<f64>() / n)
}

/// Peak signal-to-noise ratio in dB: `10 log10(1 / mse)`, infinite for equal pictures.
///
/// Source: scikit-image `peak_signal_noise_ratio`.
///
/// # Errors
/// Fails if the pictures have different sizes.
pub fn psnr(a: &Picture<'_>, b: &Picture<'_>) -> Result<f64> {
    Ok(-10.0 * mse(a, b)?.log10())
}

/// PSNR with a lower bound of the error, `10 log10(1 / (mse + 1e-10))`: 100 dB for equal pictures.
///
/// Source: EGSDE `tool/mse_psnr_ssim_mssim.py`, where averages over a folder stay finite this way.
///
/// # Errors
/// Fails if the pictures have different sizes.
pub fn psnr_floored(a: &Picture<'_>, b: &Picture<'_>) -> Result<f64> {
    Ok(-10.0 * (mse(a, b)? + 1e-10).log10())
}

/// The window of SSIM's local statistics. Only windows inside the picture count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SsimWindow {
    /// A Gaussian of 11 taps with standard deviation 1.5, population moments: the original paper, EGSDE.
    Gaussian11,
    /// The mean over 7 x 7, sample moments n/(n-1): scikit-image's default.
    Uniform7,
}

impl SsimWindow {
    fn taps(self) -> Vec<f64> {
        match self {
            Self::Uniform7 => vec![1.0 / 7.0; 7],
            Self::Gaussian11 => {
                let bell = |i: i32| (-f64::from(i * i) / (2.0 * 1.5 * 1.5)).exp();
                let sum: f64 = (-5..=5).map(bell).sum();
                (-5..=5).map(|i| bell(i) / sum).collect()
            }
        }
    }

    /// The factor from a population moment to the moment in use.
    fn correction(self) -> f64 {
        match self {
            Self::Gaussian11 => 1.0,
            Self::Uniform7 => 49.0 / 48.0,
        }
    }
}

/// Structural similarity: the mean over pixels and the three channels; 1 for equal pictures.
///
/// ```text
/// (2 mu_a mu_b + C1) (2 s_ab + C2) / ((mu_a^2 + mu_b^2 + C1) (s_a + s_b + C2))       C1 = 0.01^2, C2 = 0.03^2, range 1
/// ```
/// # Errors
/// Fails if the pictures have different sizes or are smaller than the window.
pub fn ssim(a: &Picture<'_>, b: &Picture<'_>, window: SsimWindow) -> Result<f64> {
    same_size(a, b)?;
    let mut sum = 0.0;
    for channel in 0..3 {
        sum += ssim_plane(&a.plane(channel), &b.plane(channel), a, window)?;
    }
    Ok(sum / 3.0)
}

/// [`ssim`] of the grey pictures, `0.299 R + 0.587 G + 0.114 B`, with the Gaussian window.
///
/// # Errors
/// Fails for the same reasons as [`ssim`].
pub fn ssim_gray(a: &Picture<'_>, b: &Picture<'_>) -> Result<f64> {
    same_size(a, b)?;
    let grey = |p: &Picture<'_>| -> Vec<f64> {
        let [red, green, blue] = [0, 1, 2].map(|c| p.plane(c));
        let pixels = red.iter().zip(&green).zip(&blue);
        pixels
            .map(|((r, g), b)| 0.299 * r + 0.587 * g + 0.114 * b)
            .collect()
    };
    ssim_plane(&grey(a), &grey(b), a, SsimWindow::Gaussian11)
}

fn ssim_plane(a: &[f64], b: &[f64], size: &Picture<'_>, window: SsimWindow) -> Result<f64> {
    let (width, height) = (size.width(), size.height());
    let taps = window.taps();
    if width.min(height) < taps.len() {
        return Err(MetricsError::Window {
            width,
            height,
            window: taps.len(),
        });
    }
    let product = |f: &dyn Fn(f64, f64) -> f64| -> Vec<f64> {
        let values: Vec<f64> = a.iter().zip(b).map(|(&a, &b)| f(a, b)).collect();
        blur(&values, width, &taps)
    };
    let (mu_a, mu_b) = (blur(a, width, &taps), blur(b, width, &taps));
    let (aa, bb, ab) = (
        product(&|a, _| a * a),
        product(&|_, b| b * b),
        product(&|a, b| a * b),
    );
    let correction = window.correction();
    let mut sum = 0.0;
    for i in 0..mu_a.len() {
        let (m, n) = (mu_a[i], mu_b[i]);
        let (s_a, s_b, s_ab) = (
            correction * (aa[i] - m * m),
            correction * (bb[i] - n * n),
            correction * (ab[i] - m * n),
        );
        sum += (2.0 * m * n + C1) * (2.0 * s_ab + C2) / ((m * m + n * n + C1) * (s_a + s_b + C2));
    }
    Ok(sum / mu_a.len() as f64)
}

/// A separable filter, evaluated only where it fits into the picture.
fn blur(plane: &[f64], width: usize, taps: &[f64]) -> Vec<f64> {
    let out_w = width + 1 - taps.len();
    let mut rows = Vec::with_capacity(plane.len());
    for row in plane.chunks_exact(width) {
        rows.extend((0..out_w).map(|x| {
            let pairs = row[x..].iter().zip(taps);
            pairs.map(|(v, t)| v * t).sum::<f64>()
        }));
    }
    let out_h = plane.len() / width + 1 - taps.len();
    let mut out = vec![0.0; out_h * out_w];
    for (y, line) in out.chunks_exact_mut(out_w).enumerate() {
        for (row, &tap) in rows[y * out_w..].chunks_exact(out_w).zip(taps) {
            for (sum, v) in line.iter_mut().zip(row) {
                *sum += v * tap;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wave(f: impl Fn(f64) -> f64) -> Vec<f32> {
        (0..3 * 32 * 32).map(|n| f(f64::from(n)) as f32).collect()
    }

    #[test]
    fn the_golden_values() {
        let (s, c) = (wave(|n| (0.05 * n).sin()), wave(|n| (0.11 * n).cos()));
        // In [0, 1], 0.9 a + 0.05 is 0.9 s in [-1, 1].
        let affine = wave(|n| 0.9 * (0.05 * n).sin());
        let [s, c, affine] = [&s, &c, &affine].map(|v| Picture::unit(v, 32, 32).unwrap());
        for (other, ssim_value, psnr_value) in [
            (c, 0.003_149_878_0, 5.988_833_688),
            (affine, 0.994_489_193_0, 29.022_223_821),
        ] {
            let got = ssim(&s, &other, SsimWindow::Gaussian11).unwrap();
            assert!((got - ssim_value).abs() < 1e-6, "{got}");
            let got = psnr(&s, &other).unwrap();
            assert!((got - psnr_value).abs() < 1e-5, "{got}");
        }
    }

    #[test]
    fn equal_pictures_are_equal_and_black_is_far_from_white() {
        let (black, white) = ([0u8; 3 * 144], [255u8; 3 * 144]);
        let [black, white] = [&black, &white].map(|p| Picture::rgb8(p, 12, 12).unwrap());
        for window in [SsimWindow::Gaussian11, SsimWindow::Uniform7] {
            assert!((ssim(&white, &white, window).unwrap() - 1.0).abs() < 1e-12);
            assert!(ssim(&black, &white, window).unwrap() < 1e-3);
        }
        assert!((ssim_gray(&white, &white).unwrap() - 1.0).abs() < 1e-12);
        assert_eq!(psnr(&white, &white).unwrap(), f64::INFINITY);
        assert_eq!(psnr_floored(&white, &white).unwrap(), 100.0);
        assert_eq!(psnr(&black, &white).unwrap(), 0.0);
        assert_eq!(mse(&black, &white).unwrap(), 1.0);
    }

    #[test]
    fn pictures_that_cannot_be_compared_are_refused() {
        let pixels = [9u8; 3 * 60];
        let (a, b) = (
            Picture::rgb8(&pixels, 6, 10).unwrap(),
            Picture::rgb8(&pixels, 10, 6).unwrap(),
        );
        assert!(matches!(mse(&a, &b), Err(MetricsError::Sizes { .. })));
        let error = ssim(&a, &a, SsimWindow::Uniform7).unwrap_err().to_string();
        assert!(error.contains("6x10") && error.contains("7x7"), "{error}");
    }
}
