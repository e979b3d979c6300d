//! Bilinear interpolation as in the preprocessing of metric networks: the kernel does not widen, so shrinking aliases.

/// How output pixels map to source positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sampling {
    /// Pixel centres to pixel centres: `(i + 0.5) source / target - 0.5`, clamped to the first. PyTorch's `align_corners=False`.
    Centres,
    /// Corners to corners: `i source / target`. TensorFlow 1's `resize_bilinear`.
    Corners,
}

/// The two source pixels of an output pixel, and the weight of the second.
struct Tap {
    low: usize,
    high: usize,
    share: f32,
}

fn taps(source: usize, target: usize, sampling: Sampling) -> Vec<Tap> {
    let scale = source as f32 / target as f32;
    (0..target)
        .map(|i| {
            let at = match sampling {
                Sampling::Centres => ((i as f32 + 0.5) * scale - 0.5).max(0.0),
                Sampling::Corners => i as f32 * scale,
            };
            let low = (at as usize).min(source - 1);
            Tap {
                low,
                high: (low + 1).min(source - 1),
                share: at - low as f32,
            }
        })
        .collect()
}

/// Interpolates one plane of f32 to `width` x `height`.
///
/// Source: `F.interpolate(mode="bilinear", align_corners=False)` of pytorch-fid, and torch-fidelity's `interpolate_bilinear_2d_like_tensorflow1x`.
/// A size of 0 is read as 1.
///
/// # Shapes
/// - `plane`: `[plane_height, plane_width]` with `plane_height = plane.len() / plane_width`
/// - returns `[height, width]`; empty if the plane is empty or `plane_width` does not divide its length
#[must_use]
pub fn interpolate(
    plane: &[f32],
    plane_width: usize,
    width: usize,
    height: usize,
    sampling: Sampling,
) -> Vec<f32> {
    if plane_width == 0 || plane.is_empty() || !plane.len().is_multiple_of(plane_width) {
        return Vec::new();
    }
    let (width, height) = (width.max(1), height.max(1));
    let columns = taps(plane_width, width, sampling);
    let mut out = Vec::with_capacity(width * height);
    for row in taps(plane.len() / plane_width, height, sampling) {
        let top = &plane[row.low * plane_width..][..plane_width];
        let bottom = &plane[row.high * plane_width..][..plane_width];
        out.extend(columns.iter().map(|column| {
            let along = |line: &[f32]| {
                line[column.low] * (1.0 - column.share) + line[column.high] * column.share
            };
            along(top) * (1.0 - row.share) + along(bottom) * row.share
        }));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn centres_have_pytorchs_values() {
        // The test picture b of the golden values, its first 256 x 256 pixels.
        let level = |y: usize, x: usize, c: usize| (3 * y + 5 * x + 17 * c + x * y / 11) % 256;
        let mut sum = 0.0;
        for c in 0..3 {
            let plane: Vec<f32> = (0..256 * 256)
                .map(|i| level(i / 256, i % 256, c) as f32 / 255.0)
                .collect();
            let out = interpolate(&plane, 256, 299, 299, Sampling::Centres);
            sum += out.iter().map(|&v| f64::from(v)).sum::<f64>();
            if c == 0 {
                let expected = [0.0, 0.015_378_057, 0.032_166_045, 0.048_954_03];
                for (got, expected) in out.iter().zip(expected) {
                    assert!((got - expected).abs() < 1e-6, "{got} {expected}");
                }
            }
        }
        assert!((sum - 134_210.146_52).abs() < 0.01, "{sum}");
    }

    #[test]
    fn corners_start_at_the_first_pixel_and_do_not_shift() {
        let out = interpolate(&[0.0, 1.0, 2.0, 3.0], 4, 2, 1, Sampling::Corners);
        assert_eq!(out, [0.0, 2.0]);
        let out = interpolate(&[0.0, 1.0, 2.0, 3.0], 4, 8, 1, Sampling::Corners);
        assert_eq!(out, [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.0]);
        let out = interpolate(&[0.0, 1.0, 2.0, 3.0], 4, 2, 1, Sampling::Centres);
        assert_eq!(out, [0.5, 2.5]);
    }

    #[test]
    fn a_constant_stays_and_bad_planes_give_nothing() {
        for sampling in [Sampling::Centres, Sampling::Corners] {
            assert_eq!(interpolate(&[0.25; 15], 5, 7, 2, sampling), [0.25; 14]);
            assert!(interpolate(&[1.0; 5], 2, 4, 4, sampling).is_empty());
            assert!(interpolate(&[], 0, 4, 4, sampling).is_empty());
        }
    }
}
