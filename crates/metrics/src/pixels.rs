//! PSNR and SSIM.

use crate::picture::{Picture, same_form};
use crate::{MetricsError, Result};

/// SSIM's constants for a data range of 1.
const C1: f64 = 0.01 * 0.01;
const C2: f64 = 0.03 * 0.03;

/// Mean squared error over channels and pixels, for a range of width 1.
///
/// # Errors
/// Fails if the pictures have different sizes, channels or ranges.
pub fn mse(a: &Picture<'_>, b: &Picture<'_>) -> Result<f64> {
    same_form(a, b)?;
    let n = (a.channels() * a.width() * a.height()) as f64;
    let sum = |c| -> f64 {
        let (a, b) = (a.plane(c), b.plane(c));
        a.iter().zip(&b).map(|(a, b)| (a - b) * (a - b)).sum()
    };
    Ok((0..a.channels()).map(sum).sum::<f64>() / n)
}

/// Peak signal-to-noise ratio in dB: `10 log10(1 / mse)`, infinite for equal pictures.
///
/// Source: scikit-image `peak_signal_noise_ratio`, with the width of the range as `data_range`.
///
/// # Errors
/// Fails for the same reasons as [`mse`].
pub fn psnr(a: &Picture<'_>, b: &Picture<'_>) -> Result<f64> {
    Ok(-10.0 * mse(a, b)?.log10())
}

/// PSNR with a lower bound of the error, `10 log10(1 / (mse + 1e-10))`: 100 dB for equal pictures.
///
/// Source: EGSDE `tool/mse_psnr_ssim_mssim.py`, where averages over a folder stay finite this way.
///
/// # Errors
/// Fails for the same reasons as [`mse`].
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

/// Structural similarity: the mean over pixels and channels; 1 for equal pictures.
///
/// ```text
/// (2 mu_a mu_b + C1) (2 s_ab + C2) / ((mu_a^2 + mu_b^2 + C1) (s_a + s_b + C2))       C1 = 0.01^2, C2 = 0.03^2, range 1
/// ```
/// Source: scikit-image `structural_similarity`, with the width of the range as `data_range`.
///
/// # Errors
/// Fails for the same reasons as [`mse`], or if the pictures are smaller than the window.
pub fn ssim(a: &Picture<'_>, b: &Picture<'_>, window: SsimWindow) -> Result<f64> {
    same_form(a, b)?;
    let mut sum = 0.0;
    for channel in 0..a.channels() {
        sum += ssim_plane(&a.plane(channel), &b.plane(channel), a, window)?;
    }
    Ok(sum / a.channels() as f64)
}

/// [`ssim`] of the grey pictures, `0.299 R + 0.587 G + 0.114 B`, with the Gaussian window.
///
/// # Errors
/// Fails for the same reasons as [`ssim`], or unless the pictures have 3 channels.
pub fn ssim_gray(a: &Picture<'_>, b: &Picture<'_>) -> Result<f64> {
    same_form(a, b)?;
    if a.channels() != 3 {
        let found = a.channels();
        return Err(MetricsError::NotRgb { found });
    }
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
    use crate::PictureSamples;

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

    /// Pictures are `(i^2 * 3191 + 7 i) mod m` and a mean of it and `(i^2 * 3191 + 11 i) mod m`; floats are these over 128, minus 1.
    /// The values are those of `peak_signal_noise_ratio(a, b, data_range=R)` and of `structural_similarity(a, b, data_range=R,
    /// channel_axis=2)` with `gaussian_weights=True, sigma=1.5, use_sample_covariance=False` and without, in float64.
    #[test]
    fn values_of_every_depth_and_number_of_channels_are_those_of_scikit_image() {
        let golden = [
            (
                8,
                256,
                1,
                [
                    19.958_351_538_484_31,
                    0.931_098_568_069_200_2,
                    0.931_719_755_350_185_9,
                ],
            ),
            (
                16,
                65_536,
                1,
                [
                    54.242_365_876_240_98,
                    0.999_993_807_882_469,
                    0.999_992_818_541_809_1,
                ],
            ),
            (
                16,
                65_536,
                3,
                [
                    30.321_640_134_132_41,
                    0.988_914_986_957_127_8,
                    0.992_077_809_581_543_3,
                ],
            ),
            (
                16,
                4096,
                4,
                [
                    19.284_197_868_202_25,
                    0.871_264_174_064_250_5,
                    0.890_128_344_840_506_8,
                ],
            ),
            (
                32,
                257,
                1,
                [
                    19.561_636_088_247_14,
                    0.859_433_253_268_903_4,
                    0.827_290_756_793_374_5,
                ],
            ),
            (
                32,
                257,
                5,
                [
                    19.558_341_170_826_72,
                    0.719_187_308_877_672_6,
                    0.807_396_052_587_684_2,
                ],
            ),
        ];
        for (bits, modulus, channels, expected) in golden {
            let shape = [13, 17, channels];
            let n = shape.iter().product::<usize>() as u64;
            let level = |i: u64, k: u64| (i * i * 3191 + i * k) % modulus;
            let a: Vec<u64> = (0..n).map(|i| level(i, 7)).collect();
            let b: Vec<u64> = (0..n)
                .map(|i| (3 * level(i, 7) + level(i, 11)) / 4)
                .collect();
            let bytes = [&a, &b].map(|v| v.iter().map(|&v| v as u8).collect::<Vec<_>>());
            let words = [&a, &b].map(|v| v.iter().map(|&v| v as u16).collect::<Vec<_>>());
            let float = |v: &u64| *v as f32 / 128.0 - 1.0;
            let floats = [&a, &b].map(|v| v.iter().map(float).collect::<Vec<_>>());
            let [a, b] = [0, 1].map(|i| {
                let (samples, range) = match bits {
                    8 => (PictureSamples::U8(&bytes[i]), [0.0, 255.0]),
                    16 => (PictureSamples::U16(&words[i]), [0.0, (modulus - 1) as f64]),
                    _ => (PictureSamples::F32(&floats[i]), [-1.0, 1.0]),
                };
                Picture::new(samples, shape, range).unwrap()
            });
            let found = [
                psnr(&a, &b).unwrap(),
                ssim(&a, &b, SsimWindow::Gaussian11).unwrap(),
                ssim(&a, &b, SsimWindow::Uniform7).unwrap(),
            ];
            for (found, expected) in found.into_iter().zip(expected) {
                assert!(
                    (found - expected).abs() < 1e-10,
                    "{bits}: {found} {expected}"
                );
            }
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
