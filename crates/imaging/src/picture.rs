//! The picture of any channels and depth, and operations that only move pixels.

use crate::{Depth, ImagingError, Result, Rgb8, raster::Sealed as _};

/// A picture as data: any number of channels, of 8 bits, 16 bits or floats; rows from top to bottom, channels innermost.
///
/// Code that sets the fields directly must keep `samples.len() == channels * width * height` with at least one pixel and channel;
/// [`Image::new`] checks it.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    /// Width in pixels, at least 1.
    pub width: usize,
    /// Height in pixels, at least 1.
    pub height: usize,
    /// Number of channels, at least 1.
    pub channels: usize,
    /// `[height, width, channels]`.
    pub samples: Samples,
}

/// The samples of a picture.
#[derive(Debug, Clone, PartialEq)]
pub enum Samples {
    /// 0..=255.
    U8(Vec<u8>),
    /// 0..=65535.
    U16(Vec<u16>),
    /// Any value.
    F32(Vec<f32>),
}

/// Runs an expression on the vector of samples, whatever its type, and wraps the resulting vector again.
macro_rules! map_samples {
    ($samples:expr, $values:ident => $body:expr) => {
        match $samples {
            $crate::Samples::U8($values) => $crate::Samples::U8($body),
            $crate::Samples::U16($values) => $crate::Samples::U16($body),
            $crate::Samples::F32($values) => $crate::Samples::F32($body),
        }
    };
}

pub(crate) use map_samples;

impl Samples {
    /// Number of samples.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::U8(values) => values.len(),
            Self::U16(values) => values.len(),
            Self::F32(values) => values.len(),
        }
    }

    /// Whether there are no samples.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Their type.
    #[must_use]
    pub fn depth(&self) -> Depth {
        match self {
            Self::U8(_) => Depth::U8,
            Self::U16(_) => Depth::U16,
            Self::F32(_) => Depth::F32,
        }
    }

    /// Their bytes in the machine's order, for hashes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::U8(values) => values.clone(),
            Self::U16(values) => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            Self::F32(values) => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        }
    }
}

impl Image {
    /// Makes a picture from its samples.
    ///
    /// # Shapes
    /// - `samples`: `[height, width, channels]`
    ///
    /// # Errors
    /// Fails if a side or `channels` is 0, or `samples` has another length; the error has both lengths.
    pub fn new(width: usize, height: usize, channels: usize, samples: Samples) -> Result<Self> {
        check_length("Image::new", [width, height, channels], samples.len())?;
        Ok(Self {
            width,
            height,
            channels,
            samples,
        })
    }

    /// The type of its samples.
    #[must_use]
    pub fn depth(&self) -> Depth {
        self.samples.depth()
    }

    /// The picture as 8-bit RGB without a copy, or the picture itself if it has another form.
    ///
    /// # Errors
    /// Returns the picture if it does not have 3 channels of 8 bits.
    pub fn into_rgb8(self) -> std::result::Result<Rgb8, Box<Self>> {
        let (width, height) = (self.width, self.height);
        match self.samples {
            Samples::U8(pixels) if self.channels == 3 => Ok(Rgb8 {
                width,
                height,
                pixels,
            }),
            samples => Err(Box::new(Self { samples, ..self })),
        }
    }

    /// Crops the rectangle of `width` x `height` with its top left corner at column `x` and row `y`.
    ///
    /// # Errors
    /// Fails if the rectangle is empty or extends beyond the picture.
    pub fn crop(&self, x: usize, y: usize, width: usize, height: usize) -> Result<Self> {
        self.raster().check_crop([x, y], [width, height])?;
        Ok(self.raster().crop(x, y, width, height))
    }

    /// Mirrors the picture left to right.
    #[must_use]
    pub fn flip_horizontal(&self) -> Self {
        let n = self.channels;
        let samples = map_samples!(&self.samples, values => {
            let mut out = Vec::with_capacity(values.len());
            for row in values.chunks_exact(n * self.width) {
                for pixel in row.chunks_exact(n).rev() {
                    out.extend_from_slice(pixel);
                }
            }
            out
        });
        Self { samples, ..*self }
    }

    /// Mirrors the picture top to bottom.
    #[must_use]
    pub fn flip_vertical(&self) -> Self {
        let samples = map_samples!(&self.samples, values => {
            values.chunks_exact(self.channels * self.width).rev().flatten().copied().collect()
        });
        Self { samples, ..*self }
    }

    /// Shifts the picture by `dx` pixels to the right and `dy` pixels down (negative: left, up).
    ///
    /// The uncovered border repeats the edge pixels, so a constant background stays constant.
    #[must_use]
    pub fn shift(&self, dx: isize, dy: isize) -> Self {
        let from = |to: usize, by: isize, side: usize| {
            // A side fits into isize, because the pixels are in memory.
            (to as isize).saturating_sub(by).clamp(0, side as isize - 1) as usize
        };
        let n = self.channels;
        let samples = map_samples!(&self.samples, values => {
            let mut out = Vec::with_capacity(values.len());
            for y in 0..self.height {
                let row = &values[n * self.width * from(y, dy, self.height)..][..n * self.width];
                for x in 0..self.width {
                    out.extend_from_slice(&row[n * from(x, dx, self.width)..][..n]);
                }
            }
            out
        });
        Self { samples, ..*self }
    }
}

impl From<Rgb8> for Image {
    fn from(image: Rgb8) -> Self {
        Self {
            width: image.width,
            height: image.height,
            channels: 3,
            samples: Samples::U8(image.pixels),
        }
    }
}

/// Checks that `found` samples make a picture of these sides and channels with at least one of each.
pub(crate) fn check_length(
    what: &'static str,
    [width, height, channels]: [usize; 3],
    found: usize,
) -> Result<()> {
    if width == 0 || height == 0 || channels == 0 {
        return Err(ImagingError::NoPixels {
            what,
            width,
            height,
            channels,
        });
    }
    let expected = width.saturating_mul(height).saturating_mul(channels);
    if expected != found {
        return Err(ImagingError::Length {
            what,
            width,
            height,
            channels,
            expected,
            found,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three columns, two rows, two channels; the first channel numbers the pixels.
    fn numbered() -> Image {
        let samples = (0..6).flat_map(|i| [1000 + i, 7]).collect();
        Image::new(3, 2, 2, Samples::U16(samples)).expect("3 x 2 x 2 values")
    }

    fn firsts(image: &Image) -> Vec<u16> {
        let Samples::U16(values) = &image.samples else {
            panic!("16 bits stay 16 bits")
        };
        values
            .chunks_exact(2)
            .map(|pixel| pixel[0] - 1000)
            .collect()
    }

    #[test]
    fn a_wrong_length_or_an_empty_side_is_refused() {
        let error = Image::new(3, 2, 4, Samples::U8(vec![0; 17])).unwrap_err();
        let message = error.to_string();
        assert!(
            message.contains("3x2") && message.contains("24") && message.contains("17"),
            "{message}"
        );
        for [w, h, c] in [[0, 2, 1], [2, 0, 1], [2, 2, 0]] {
            let image = Image::new(w, h, c, Samples::F32(vec![]));
            assert!(matches!(image, Err(ImagingError::NoPixels { .. })));
        }
    }

    #[test]
    fn pixels_move_with_all_their_channels() {
        assert_eq!(firsts(&numbered().crop(1, 1, 2, 1).unwrap()), [4, 5]);
        assert!(numbered().crop(2, 0, 2, 1).is_err());
        assert_eq!(firsts(&numbered().flip_horizontal()), [2, 1, 0, 5, 4, 3]);
        assert_eq!(firsts(&numbered().flip_vertical()), [3, 4, 5, 0, 1, 2]);
        assert_eq!(firsts(&numbered().shift(-1, 1)), [1, 2, 2, 1, 2, 2]);
        assert_eq!(firsts(&numbered().shift(isize::MIN, isize::MAX)), [2; 6]);
    }

    #[test]
    fn a_picture_of_8_bit_rgb_and_no_other_moves_to_rgb8_and_back() {
        let rgb = Rgb8::filled(3, 2, [1, 2, 3]);
        let image = Image::from(rgb.clone());
        assert_eq!(image.clone().into_rgb8().unwrap(), rgb);
        let other = numbered().into_rgb8().unwrap_err();
        assert_eq!(*other, numbered());
    }
}
