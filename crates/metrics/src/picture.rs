//! A picture with a known range of values.

use crate::{MetricsError, Result};

/// Tolerance for rounding beyond [-1, 1].
const SLACK: f32 = 1e-4;

/// A picture with a known range of values: 8-bit, or f32 in [-1, 1].
#[derive(Clone, Copy, Debug)]
pub struct Picture<'a> {
    values: Values<'a>,
    width: usize,
    height: usize,
}

#[derive(Clone, Copy, Debug)]
enum Values<'a> {
    /// `[H, W, 3]`.
    Bytes(&'a [u8]),
    /// `[3, H, W]`.
    Unit(&'a [f32]),
}

impl<'a> Picture<'a> {
    /// 8-bit RGB.
    ///
    /// # Shapes
    /// - `pixels`: `[height, width, 3]`
    ///
    /// # Errors
    /// Fails if the number of values does not match or is 0.
    pub fn rgb8(pixels: &'a [u8], width: usize, height: usize) -> Result<Self> {
        check(width, height, pixels.len())?;
        let values = Values::Bytes(pixels);
        Ok(Self {
            values,
            width,
            height,
        })
    }

    /// f32 in [-1, 1], channels first.
    ///
    /// # Shapes
    /// - `values`: `[3, height, width]`
    ///
    /// # Errors
    /// Fails if the number of values does not match or is 0, or if a value is NaN or outside the range.
    pub fn unit(values: &'a [f32], width: usize, height: usize) -> Result<Self> {
        check(width, height, values.len())?;
        let inside = |v: &f32| v.abs() <= 1.0 + SLACK;
        if let Some(index) = values.iter().position(|v| !inside(v)) {
            return Err(MetricsError::Range {
                index,
                value: values[index],
            });
        }
        let values = Values::Unit(values);
        Ok(Self {
            values,
            width,
            height,
        })
    }

    /// Width in pixels.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Height in pixels.
    pub fn height(&self) -> usize {
        self.height
    }

    /// One channel in [0, 1], row by row.
    pub(crate) fn plane(&self, channel: usize) -> Vec<f64> {
        match self.values {
            Values::Bytes(pixels) => pixels
                .iter()
                .skip(channel)
                .step_by(3)
                .map(|&v| f64::from(v) / 255.0)
                .collect(),
            Values::Unit(values) => {
                let n = self.width * self.height;
                let plane = values.iter().skip(channel * n).take(n);
                plane.map(|&v| (f64::from(v) + 1.0) / 2.0).collect()
            }
        }
    }
}

fn check(width: usize, height: usize, found: usize) -> Result<()> {
    let expected = width.saturating_mul(height).saturating_mul(3);
    if found != expected || found == 0 {
        return Err(MetricsError::Length {
            width,
            height,
            expected,
            found,
        });
    }
    Ok(())
}

/// Fails unless both pictures have the same size.
pub(crate) fn same_size(a: &Picture<'_>, b: &Picture<'_>) -> Result<()> {
    let (a, b) = ((a.width, a.height), (b.width, b.height));
    if a == b {
        Ok(())
    } else {
        Err(MetricsError::Sizes { a, b })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_another_range_or_number_are_refused() {
        assert!(Picture::unit(&[0.5; 12], 2, 2).is_ok());
        let error = Picture::unit(&[0.5, 0.5, 7.0], 1, 1).unwrap_err();
        assert!(error.to_string().contains("value 2 of a picture is 7"));
        assert!(Picture::unit(&[f32::NAN; 3], 1, 1).is_err());
        let error = Picture::rgb8(&[0; 11], 2, 2).unwrap_err().to_string();
        assert!(error.contains("12 values, found 11"), "{error}");
        assert!(Picture::rgb8(&[], 0, 4).is_err());
    }

    #[test]
    fn both_kinds_give_the_same_planes() {
        let bytes = Picture::rgb8(&[0, 51, 255, 255, 102, 0], 2, 1).unwrap();
        let values = [-1.0, 1.0, -0.6, -0.2, 1.0, -1.0];
        let unit = Picture::unit(&values, 2, 1).unwrap();
        for c in 0..3 {
            for (a, b) in bytes.plane(c).iter().zip(unit.plane(c)) {
                assert!((a - b).abs() < 1e-7);
            }
        }
    }
}
