//! The 8-bit RGB picture, and operations that only move pixels.

use crate::{Image, ImageSpec, Result, picture::check_length, raster::Sealed as _};

/// A picture of 8-bit RGB pixels, rows from top to bottom.
///
/// Code that sets the fields directly must keep `pixels.len() == 3 * width * height` with at least one pixel; [`Rgb8::new`] checks it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Rgb8 {
    /// Width in pixels, at least 1.
    pub width: usize,
    /// Height in pixels, at least 1.
    pub height: usize,
    /// `[height, width, 3]`, 0..=255.
    pub pixels: Vec<u8>,
}

impl Rgb8 {
    /// Makes a picture from its pixels.
    ///
    /// # Shapes
    /// - `pixels`: `[height, width, 3]`
    ///
    /// # Errors
    /// Fails if a side is 0 or `pixels` has another length; the error has both.
    pub fn new(width: usize, height: usize, pixels: Vec<u8>) -> Result<Self> {
        check_length("Rgb8::new", [width, height, 3], pixels.len())?;
        Ok(Self {
            width,
            height,
            pixels,
        })
    }

    /// A picture with 3 channels of 8 bits as it is; of another form as [`ImageSpec::screen`] shows it with the full range of its depth.
    #[must_use]
    pub fn from_image(image: Image) -> Self {
        image.into_rgb8().unwrap_or_else(|image| {
            ImageSpec::new(image.channels, image.depth(), image.width, image.height).screen(&image)
        })
    }

    /// A picture of one colour; a side of 0 is read as 1.
    #[must_use]
    pub fn filled(width: usize, height: usize, colour: [u8; 3]) -> Self {
        let (width, height) = (width.max(1), height.max(1));
        Self {
            width,
            height,
            pixels: colour.repeat(width * height),
        }
    }

    /// The colour at column `x` and row `y`, or `None` outside the picture.
    #[must_use]
    pub fn get(&self, x: usize, y: usize) -> Option<[u8; 3]> {
        if x >= self.width || y >= self.height {
            return None;
        }
        let at = 3 * (y * self.width + x);
        self.pixels.get(at..at + 3)?.try_into().ok()
    }

    /// Crops the rectangle of `width` x `height` with its top left corner at column `x` and row `y`.
    ///
    /// # Errors
    /// Fails if the rectangle is empty or extends beyond the picture.
    pub fn crop(&self, x: usize, y: usize, width: usize, height: usize) -> Result<Self> {
        self.raster().check_crop([x, y], [width, height])?;
        Ok(Self::from_image(self.raster().crop(x, y, width, height)))
    }

    /// Mirrors the picture left to right.
    #[must_use]
    pub fn flip_horizontal(&self) -> Self {
        Self::from_image(Image::from(self.clone()).flip_horizontal())
    }

    /// Shifts the picture by `dx` pixels to the right and `dy` pixels down (negative: left, up).
    ///
    /// The uncovered border repeats the edge pixels, so a constant background stays constant.
    #[must_use]
    pub fn shift(&self, dx: isize, dy: isize) -> Self {
        Self::from_image(Image::from(self.clone()).shift(dx, dy))
    }

    /// Copies `other` onto this picture with its top left corner at (`x`, `y`); parts beyond the picture are cut off.
    pub(crate) fn paste(&mut self, other: &Self, x: usize, y: usize) {
        let columns = other.width.min(self.width.saturating_sub(x));
        let rows = other.height.min(self.height.saturating_sub(y));
        if columns == 0 {
            return;
        }
        for row in 0..rows {
            let to = 3 * ((y + row) * self.width + x);
            let from = 3 * row * other.width;
            self.pixels[to..to + 3 * columns]
                .copy_from_slice(&other.pixels[from..from + 3 * columns]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ImagingError;

    /// Three columns, two rows; the red channel numbers the pixels.
    fn numbered() -> Rgb8 {
        let pixels = (0..6).flat_map(|i| [i, 10, 20]).collect();
        Rgb8::new(3, 2, pixels).expect("3 x 2 x 3 values")
    }

    fn reds(image: &Rgb8) -> Vec<u8> {
        image.pixels.iter().step_by(3).copied().collect()
    }

    #[test]
    fn a_wrong_length_or_an_empty_side_is_refused() {
        let message = Rgb8::new(3, 2, vec![0; 17]).unwrap_err().to_string();
        assert!(
            message.contains("3x2") && message.contains("18") && message.contains("17"),
            "{message}"
        );
        assert!(matches!(
            Rgb8::new(0, 2, vec![]),
            Err(ImagingError::NoPixels { .. })
        ));
        assert!(matches!(
            Rgb8::new(usize::MAX, 2, vec![0; 6]),
            Err(ImagingError::Length { .. })
        ));
    }

    #[test]
    fn a_crop_takes_its_rectangle_and_nothing_beyond_the_picture() {
        let crop = numbered().crop(1, 1, 2, 1).unwrap();
        assert_eq!(reds(&crop), [4, 5]);
        for (x, y, w, h) in [
            (2, 0, 2, 1),
            (0, 1, 1, 2),
            (0, 0, 0, 1),
            (usize::MAX, 0, 2, 1),
        ] {
            assert!(matches!(
                numbered().crop(x, y, w, h),
                Err(ImagingError::CropOutside { .. })
            ));
        }
    }

    #[test]
    fn a_flip_mirrors_each_row() {
        assert_eq!(reds(&numbered().flip_horizontal()), [2, 1, 0, 5, 4, 3]);
        assert_eq!(numbered().flip_horizontal().flip_horizontal(), numbered());
    }

    #[test]
    fn a_shift_moves_the_picture_and_repeats_its_edge() {
        assert_eq!(reds(&numbered().shift(1, 0)), [0, 0, 1, 3, 3, 4]);
        assert_eq!(reds(&numbered().shift(-1, 1)), [1, 2, 2, 1, 2, 2]);
        assert_eq!(reds(&numbered().shift(0, -5)), [3, 4, 5, 3, 4, 5]);
        assert_eq!(reds(&numbered().shift(isize::MIN, isize::MAX)), [2; 6]);
        assert_eq!(numbered().shift(0, 0), numbered());
    }

    #[test]
    fn get_answers_inside_only() {
        assert_eq!(numbered().get(2, 1), Some([5, 10, 20]));
        assert_eq!(numbered().get(3, 0), None);
        assert_eq!(numbered().get(0, 2), None);
    }
}
