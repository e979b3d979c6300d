//! What resizing and cropping need to know of a picture.

use crate::{Image, ImagingError, Result, Rgb8, Samples};

/// [`Image`] and [`Rgb8`], which are resized and cropped by the same functions.
pub trait Picture: Sealed {}

impl Picture for Image {}
impl Picture for Rgb8 {}

/// Access to the samples; private, so that no other type is a [`Picture`].
pub trait Sealed: Sized {
    /// Its size and samples.
    fn raster(&self) -> Raster<'_>;

    /// A picture of this type with the channels and depth of the picture it was made from.
    fn from_image(image: Image) -> Self;
}

/// A borrowed picture.
#[derive(Debug, Clone, Copy)]
pub struct Raster<'a> {
    pub(crate) width: usize,
    pub(crate) height: usize,
    pub(crate) channels: usize,
    pub(crate) samples: View<'a>,
}

/// Borrowed [`Samples`].
#[derive(Debug, Clone, Copy)]
pub(crate) enum View<'a> {
    /// 8 bits.
    U8(&'a [u8]),
    /// 16 bits.
    U16(&'a [u16]),
    /// Floats.
    F32(&'a [f32]),
}

impl Sealed for Image {
    fn raster(&self) -> Raster<'_> {
        Raster {
            width: self.width,
            height: self.height,
            channels: self.channels,
            samples: match &self.samples {
                Samples::U8(values) => View::U8(values),
                Samples::U16(values) => View::U16(values),
                Samples::F32(values) => View::F32(values),
            },
        }
    }

    fn from_image(image: Image) -> Self {
        image
    }
}

impl Sealed for Rgb8 {
    fn raster(&self) -> Raster<'_> {
        Raster {
            width: self.width,
            height: self.height,
            channels: 3,
            samples: View::U8(&self.pixels),
        }
    }

    fn from_image(image: Image) -> Self {
        Self::from_image(image)
    }
}

impl Raster<'_> {
    /// Fails unless a rectangle of columns and rows is inside the picture and not empty.
    pub(crate) fn check_crop(&self, [x, y]: [usize; 2], [width, height]: [usize; 2]) -> Result<()> {
        let fits = |at: usize, len: usize, side: usize| {
            len > 0 && at.checked_add(len).is_some_and(|end| end <= side)
        };
        if fits(x, width, self.width) && fits(y, height, self.height) {
            return Ok(());
        }
        Err(ImagingError::CropOutside {
            x,
            y,
            width,
            height,
            image_width: self.width,
            image_height: self.height,
        })
    }

    /// A rectangle that lies inside the picture.
    pub(crate) fn crop(&self, x: usize, y: usize, width: usize, height: usize) -> Image {
        fn rows<T: Copy>(values: &[T], stride: usize, at: [usize; 2], len: [usize; 2]) -> Vec<T> {
            let mut out = Vec::with_capacity(len[0] * len[1]);
            for row in values.chunks_exact(stride).skip(at[1]).take(len[1]) {
                out.extend_from_slice(&row[at[0]..at[0] + len[0]]);
            }
            out
        }
        let n = self.channels;
        let (stride, at, len) = (n * self.width, [n * x, y], [n * width, height]);
        Image {
            width,
            height,
            channels: n,
            samples: match self.samples {
                View::U8(values) => Samples::U8(rows(values, stride, at, len)),
                View::U16(values) => Samples::U16(rows(values, stride, at, len)),
                View::F32(values) => Samples::F32(rows(values, stride, at, len)),
            },
        }
    }
}
