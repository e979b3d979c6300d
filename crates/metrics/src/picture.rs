//! A picture with a known range of values.

use crate::{MetricsError, Result};

/// Tolerance for rounding beyond [-1, 1].
const SLACK: f32 = 1e-4;

/// A picture of any number of channels with a known range of values.
///
/// The metrics of pixels divide values by the width of the range, `high - low`, which is scikit-image's `data_range`. They do not clamp.
#[derive(Clone, Copy, Debug)]
pub struct Picture<'a> {
    values: Values<'a>,
    width: usize,
    height: usize,
    channels: usize,
    range: [f64; 2],
}

/// The samples of a picture, `[height, width, channels]`.
#[derive(Clone, Copy, Debug)]
pub enum PictureSamples<'a> {
    /// 8 bits.
    U8(&'a [u8]),
    /// 16 bits.
    U16(&'a [u16]),
    /// Floats.
    F32(&'a [f32]),
}

#[derive(Clone, Copy, Debug)]
enum Values<'a> {
    /// `[H, W, C]`.
    Samples(PictureSamples<'a>),
    /// `[3, H, W]` in [-1, 1].
    Unit(&'a [f32]),
}

impl PictureSamples<'_> {
    fn len(&self) -> usize {
        match self {
            Self::U8(values) => values.len(),
            Self::U16(values) => values.len(),
            Self::F32(values) => values.len(),
        }
    }

    /// The values `first`, `first + step`, ..
    fn every(&self, first: usize, step: usize) -> Vec<f64> {
        fn take<T: Copy + Into<f64>>(values: &[T], first: usize, step: usize) -> Vec<f64> {
            let values = values.iter().skip(first).step_by(step);
            values.map(|&v| v.into()).collect()
        }
        match self {
            Self::U8(values) => take(values, first, step),
            Self::U16(values) => take(values, first, step),
            Self::F32(values) => take(values, first, step),
        }
    }
}

impl<'a> Picture<'a> {
    /// A picture in its own depth. `range` is the lowest and the highest possible value, such as `[0, 65535]`.
    ///
    /// # Shapes
    /// - `samples`: `shape`, which is `[height, width, channels]`
    ///
    /// # Errors
    /// Fails if the number of values does not match or is 0, a value is NaN or infinite, or the range is empty.
    pub fn new(samples: PictureSamples<'a>, shape: [usize; 3], range: [f64; 2]) -> Result<Self> {
        let [height, width, channels] = shape;
        check([width, height, channels], samples.len())?;
        let [low, high] = range;
        if !(low < high && (high - low).is_finite()) {
            return Err(MetricsError::EmptyRange { low, high });
        }
        if let PictureSamples::F32(values) = samples {
            let finite = values.iter().map(|&v| f64::from(v));
            crate::features::finite("a picture", finite, width * channels)?;
        }
        Ok(Self {
            values: Values::Samples(samples),
            width,
            height,
            channels,
            range,
        })
    }

    /// 8-bit RGB.
    ///
    /// # Shapes
    /// - `pixels`: `[height, width, 3]`
    ///
    /// # Errors
    /// Fails if the number of values does not match or is 0.
    pub fn rgb8(pixels: &'a [u8], width: usize, height: usize) -> Result<Self> {
        let samples = PictureSamples::U8(pixels);
        Self::new(samples, [height, width, 3], [0.0, 255.0])
    }

    /// RGB as f32 in [-1, 1], channels first. The metrics use `(v + 1) / 2`, in [0, 1].
    ///
    /// # Shapes
    /// - `values`: `[3, height, width]`
    ///
    /// # Errors
    /// Fails if the number of values does not match or is 0, or if a value is NaN or outside the range.
    pub fn unit(values: &'a [f32], width: usize, height: usize) -> Result<Self> {
        check([width, height, 3], values.len())?;
        let inside = |v: &f32| v.abs() <= 1.0 + SLACK;
        if let Some(index) = values.iter().position(|v| !inside(v)) {
            return Err(MetricsError::Range {
                index,
                value: values[index],
            });
        }
        Ok(Self {
            values: Values::Unit(values),
            width,
            height,
            channels: 3,
            range: [0.0, 1.0],
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

    /// Number of channels.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// One channel divided by the width of the range, row by row.
    pub(crate) fn plane(&self, channel: usize) -> Vec<f64> {
        match self.values {
            Values::Samples(samples) => {
                let width = self.range[1] - self.range[0];
                let mut plane = samples.every(channel, self.channels);
                plane.iter_mut().for_each(|v| *v /= width);
                plane
            }
            Values::Unit(values) => {
                let n = self.width * self.height;
                let plane = values.iter().skip(channel * n).take(n);
                plane.map(|&v| (f64::from(v) + 1.0) / 2.0).collect()
            }
        }
    }
}

fn check([width, height, channels]: [usize; 3], found: usize) -> Result<()> {
    let expected = width.saturating_mul(height).saturating_mul(channels);
    if found != expected || found == 0 {
        return Err(MetricsError::Length {
            width,
            height,
            channels,
            expected,
            found,
        });
    }
    Ok(())
}

/// Fails unless both pictures have the same size, channels and range.
pub(crate) fn same_form(a: &Picture<'_>, b: &Picture<'_>) -> Result<()> {
    let size = |p: &Picture<'_>| (p.width, p.height);
    if size(a) != size(b) {
        let (a, b) = (size(a), size(b));
        return Err(MetricsError::Sizes { a, b });
    }
    if a.channels != b.channels {
        let (a, b) = (a.channels, b.channels);
        return Err(MetricsError::Channels { a, b });
    }
    if a.range != b.range {
        let (a, b) = (a.range, b.range);
        return Err(MetricsError::Ranges { a, b });
    }
    Ok(())
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
        let float = |values, range| Picture::new(PictureSamples::F32(values), [1, 2, 1], range);
        let error = float(&[0.0, f32::INFINITY], [0.0, 1.0]).unwrap_err();
        assert!(error.to_string().contains("row 0, column 1"), "{error}");
        for range in [[1.0, 1.0], [0.0, f64::NAN], [f64::MIN, f64::MAX]] {
            assert!(float(&[0.0, 0.5], range).is_err());
        }
    }

    #[test]
    fn pictures_of_different_channels_or_ranges_are_not_comparable() {
        let values = [0u16; 12];
        let picture = |shape, high| {
            let samples = PictureSamples::U16(&values);
            Picture::new(samples, shape, [0.0, high]).unwrap()
        };
        let (a, b) = (picture([2, 2, 3], 65_535.0), picture([2, 2, 3], 4095.0));
        let error = same_form(&a, &b).unwrap_err().to_string();
        assert!(error.contains("65535") && error.contains("4095"), "{error}");
        let (a, b) = (picture([2, 2, 3], 1.0), picture([2, 3, 2], 1.0));
        assert!(matches!(same_form(&a, &b), Err(MetricsError::Sizes { .. })));
        let b = Picture::new(PictureSamples::U16(&values[..4]), [2, 2, 1], [0.0, 1.0]).unwrap();
        let error = same_form(&a, &b).unwrap_err().to_string();
        assert!(error.contains("3 and 1"), "{error}");
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
