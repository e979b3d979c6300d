//! Conversions between 8-bit pixels and f32 in [-1, 1].

use crate::{ImagingError, Result, Rgb8, picture::check_length};

/// Converts a picture to f32, channels first: `v / 127.5 - 1`.
///
/// Both operations round to f32, so the values are those of numpy's `x.astype(float32) / 127.5 - 1`.
///
/// # Shapes
/// - returns `[3, height, width]`
///
/// # Units
/// - returns values in [-1, 1]
#[must_use]
pub fn to_unit_range(image: &Rgb8) -> Vec<f32> {
    let n = image.width * image.height;
    let mut out = vec![0.0; 3 * n];
    let (red, rest) = out.split_at_mut(n);
    let (green, blue) = rest.split_at_mut(n);
    for (((pixel, r), g), b) in image.pixels.chunks_exact(3).zip(red).zip(green).zip(blue) {
        [*r, *g, *b] = [pixel[0], pixel[1], pixel[2]].map(|v| f32::from(v) / 127.5 - 1.0);
    }
    out
}

/// Converts to the picture that torchvision's `save_image(x, normalize=True, value_range=(-1, 1))` writes, rounded to the nearest level.
///
/// ```text
/// floor(255 * (clamp(x, -1, 1) + 1) / 2 + 0.5)
/// ```
/// A picture is unchanged by [`to_unit_range`] and back. The whole program uses this function, so files, arrays and the input of metric
/// networks have the same pixels.
///
/// # Shapes
/// - `x`: `[3, height, width]`
///
/// # Units
/// - `x` in [-1, 1]; other values are clamped
///
/// # Errors
/// Fails if `x` has another length, a side is 0, or a value is NaN or infinite.
pub fn from_unit_range_round(x: &[f32], width: usize, height: usize) -> Result<Rgb8> {
    check_length("from_unit_range_round", [width, height, 3], x.len())?;
    let found = x.iter().filter(|v| !v.is_finite()).count();
    if found > 0 {
        return Err(ImagingError::NotFinite {
            found,
            values: x.len(),
        });
    }
    Ok(interleave(x, width, height, |v| {
        // `as u8` truncates, so this rounds to nearest.
        ((v.clamp(-1.0, 1.0) + 1.0) / 2.0 * 255.0 + 0.5) as u8
    }))
}

/// Converts from channels first to channels last with `level`; the caller has checked the length.
fn interleave(x: &[f32], width: usize, height: usize, level: impl Fn(f32) -> u8) -> Rgb8 {
    let n = width * height;
    let (red, rest) = x.split_at(n);
    let (green, blue) = rest.split_at(n);
    let mut pixels = Vec::with_capacity(3 * n);
    for ((&r, &g), &b) in red.iter().zip(green).zip(blue) {
        pixels.extend([r, g, b].map(&level));
    }
    Rgb8 {
        width,
        height,
        pixels,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_level_survives_the_round_trip_by_rounding() {
        let ramp = Rgb8::new(16, 16, (0..768).map(|i| (i / 3) as u8).collect()).unwrap();
        let x = to_unit_range(&ramp);
        assert_eq!((x[0], x[255], x[51]), (-1.0, 1.0, -0.6));
        assert_eq!(from_unit_range_round(&x, 16, 16).unwrap(), ramp);
    }

    #[test]
    fn channels_move_first_and_back() {
        let image = Rgb8::new(2, 1, vec![0, 51, 102, 153, 204, 255]).unwrap();
        let x = to_unit_range(&image);
        let expected = [-1.0, 0.2, -0.6, 0.6, -0.2, 1.0];
        for (got, expected) in x.iter().zip(expected) {
            assert!((got - expected).abs() < 1e-6, "{x:?}");
        }
        assert_eq!(from_unit_range_round(&x, 2, 1).unwrap(), image);
    }

    #[test]
    fn values_are_rounded_to_the_nearest_level_and_clamped() {
        // 0 is 127.5 levels, 0.99 is 253.7 and -0.99 is 1.3.
        let pixels = |x: [f32; 3]| from_unit_range_round(&x, 1, 1).unwrap().pixels;
        assert_eq!(pixels([0.0, 0.99, -0.99]), [128, 254, 1]);
        assert_eq!(pixels([7.0, -7.0, 1e30]), [255, 0, 255]);
    }

    #[test]
    fn values_that_are_not_finite_are_counted_and_never_become_a_picture() {
        let x = [f32::NAN, 0.5, f32::NEG_INFINITY];
        let message = from_unit_range_round(&x, 1, 1).unwrap_err().to_string();
        assert_eq!(message, "2 of 3 values are NaN or infinite");
    }

    #[test]
    fn a_wrong_length_is_refused() {
        let error = from_unit_range_round(&[0.0; 11], 2, 2).unwrap_err();
        let message = error.to_string();
        assert!(
            message.contains("12") && message.contains("11"),
            "{message}"
        );
    }
}
