//! Images in the form of their files, and in the 8-bit RGB that networks take.

use crate::error::{EvalError, Result};
use sdft_files::plural;
use sdft_imaging::{Conversions, Depth, Image, ImageSpec, Limits, Reading, Rgb8, Samples};
use sdft_metrics::{Picture, PictureSamples};
use std::path::Path;

/// An image in the form of its file.
#[derive(Clone)]
pub(crate) struct Native {
    /// The file, or the image in an archive.
    pub(crate) origin: String,
    pub(crate) image: Image,
    /// The lowest and the highest possible value.
    pub(crate) range: [f64; 2],
    /// Number of values outside a range that the caller gave.
    pub(crate) outside: usize,
    /// Whether the last channel is alpha.
    pub(crate) has_alpha: bool,
    /// What happened while the file was read.
    pub(crate) conversions: Conversions,
}

/// Decodes page `page` of a file. `range` holds for images of 16 bits and of floats; without it, floats have the range of their file, or
/// 0 to 1.
///
/// # Errors
/// Fails if the file cannot be read, a float is NaN or infinite, or no range is given and a float is outside the file's.
pub(crate) fn read_native(
    bytes: &[u8],
    path: &Path,
    page: usize,
    limits: Limits,
    range: Option<[f64; 2]>,
) -> Result<Native> {
    let origin = path.display().to_string();
    let decoded = reading(limits).decode(bytes, &origin, page)?;
    Ok(Native {
        has_alpha: decoded.has_alpha,
        conversions: decoded.conversions(),
        ..Native::new(origin, decoded.image, range, decoded.range)?
    })
}

/// All channels in the depth of the file.
pub(crate) fn reading(limits: Limits) -> Reading {
    Reading {
        limits,
        ..Reading::default()
    }
}

impl Native {
    /// An image with the range of the caller, or else its `own`.
    ///
    /// # Errors
    /// Fails if a float is NaN or infinite, or if no range is given and a float is outside its own range.
    pub(crate) fn new(
        origin: String,
        image: Image,
        range: Option<[f64; 2]>,
        own: [f64; 2],
    ) -> Result<Self> {
        // 8 bits have no other range: a folder may hold 12 bits in 16 on one side and 8-bit samples on the other.
        if let Samples::F32(values) = &image.samples
            && let found @ 1.. = values.iter().filter(|v| !v.is_finite()).count()
        {
            return Err(EvalError::NotFinite {
                origin,
                found,
                values: values.len(),
            });
        }
        let given = range.filter(|_| image.depth() != Depth::U8);
        let range = given.unwrap_or(own);
        let outside = outside(&image.samples, range);
        if given.is_none()
            && let Some(found) = outside.extremes
        {
            return Err(EvalError::Range {
                origin,
                range,
                found,
            });
        }
        Ok(Self {
            origin,
            image,
            range,
            outside: outside.n,
            has_alpha: false,
            conversions: Conversions::default(),
        })
    }

    /// Its channels, depth and range for people: `1 channel of 16 bits, 0 to 65535`.
    pub(crate) fn form(&self) -> String {
        let channels = plural(self.image.channels, "channel", "channels");
        let depth = match self.image.depth() {
            Depth::F32 => "floats".to_owned(),
            depth => format!("{depth} bits"),
        };
        let alpha = if self.has_alpha { " with alpha" } else { "" };
        format!(
            "{channels} of {depth}{alpha}, {}",
            describe_range(self.range)
        )
    }

    /// Its channels, whether the last one is alpha, and its depth.
    pub(crate) fn channels_and_depth(&self) -> (usize, bool, Depth) {
        (self.image.channels, self.has_alpha, self.image.depth())
    }

    /// The picture for the metrics of pixels.
    ///
    /// # Errors
    /// Fails if a value is NaN or infinite.
    pub(crate) fn picture(&self) -> sdft_metrics::Result<Picture<'_>> {
        let samples = match &self.image.samples {
            Samples::U8(values) => PictureSamples::U8(values),
            Samples::U16(values) => PictureSamples::U16(values),
            Samples::F32(values) => PictureSamples::F32(values),
        };
        let image = &self.image;
        let shape = [image.height, image.width, image.channels];
        Picture::new(samples, shape, self.range)
    }

    /// Whether a pixel is not fully opaque.
    pub(crate) fn is_transparent(&self) -> bool {
        fn any_below<T: Copy + PartialEq>(values: &[T], channels: usize, opaque: T) -> bool {
            let pixels = values.chunks_exact(channels);
            pixels
                .filter_map(|p| p.last())
                .any(|&alpha| alpha != opaque)
        }
        let n = self.image.channels;
        self.has_alpha
            && match &self.image.samples {
                Samples::U8(values) => any_below(values, n, u8::MAX),
                Samples::U16(values) => any_below(values, n, u16::MAX),
                Samples::F32(values) => any_below(values, n, self.range[1] as f32),
            }
    }

    /// Removes an alpha channel, regardless of its values.
    pub(crate) fn without_alpha(&mut self) {
        if !std::mem::take(&mut self.has_alpha) {
            return;
        }
        fn colours<T: Copy>(values: &[T], channels: usize) -> Vec<T> {
            let pixels = values.chunks_exact(channels);
            pixels.flat_map(|p| &p[..channels - 1]).copied().collect()
        }
        let n = self.image.channels;
        self.image.samples = match &self.image.samples {
            Samples::U8(values) => Samples::U8(colours(values, n)),
            Samples::U16(values) => Samples::U16(colours(values, n)),
            Samples::F32(values) => Samples::F32(colours(values, n)),
        };
        self.image.channels = n - 1;
    }

    /// Whether [`into_rgb8`](Self::into_rgb8) accepts it: grey, RGB and RGBA.
    pub(crate) fn is_visible(&self) -> bool {
        matches!(self.image.channels, 1 | 3 | 4) || (self.image.channels == 2 && self.has_alpha)
    }

    /// 8-bit RGB: grey is repeated, alpha is composed on white, and the range becomes 0 to 255. 16 bits of the full range keep their upper
    /// byte, as Pillow does; all else is rounded.
    ///
    /// # Errors
    /// Fails unless the image is grey, RGB or RGBA.
    pub(crate) fn into_rgb8(mut self) -> Result<(Rgb8, Conversions)> {
        if !self.is_visible() {
            return Err(EvalError::NotRgb {
                origin: self.origin,
                found: self.image.channels,
            });
        }
        if self.is_transparent() {
            self.conversions.transparent = 1;
        }
        if self.outside > 0 {
            self.conversions.clamped = 1;
        }
        if let Samples::U16(values) = &self.image.samples
            && self.range == Depth::U16.full_range()
        {
            self.image.samples = Samples::U8(values.iter().map(|v| (v >> 8) as u8).collect());
            self.range = Depth::U8.full_range();
            self.conversions.sixteen_bit = 1;
        }
        let spec = ImageSpec {
            range: self.range,
            ..ImageSpec::new(
                self.image.channels,
                self.image.depth(),
                self.image.width,
                self.image.height,
            )
        };
        if self.image.channels == 2 {
            return Ok((spec.screen(&grey_with_alpha(&self.image)), self.conversions));
        }
        let plain = spec.is_plain();
        let image = match self.image.into_rgb8() {
            Ok(image) if plain => image,
            Ok(image) => spec.screen(&image.into()),
            Err(image) => spec.screen(&image),
        };
        Ok((image, self.conversions))
    }
}

/// Grey and alpha as red, green, blue and alpha.
fn grey_with_alpha(image: &Image) -> Image {
    fn repeated<T: Copy>(values: &[T]) -> Vec<T> {
        let pixels = values.as_chunks::<2>().0.iter();
        pixels
            .flat_map(|&[grey, alpha]| [grey, grey, grey, alpha])
            .collect()
    }
    Image {
        channels: 4,
        samples: match &image.samples {
            Samples::U8(values) => Samples::U8(repeated(values)),
            Samples::U16(values) => Samples::U16(repeated(values)),
            Samples::F32(values) => Samples::F32(repeated(values)),
        },
        ..*image
    }
}

/// `0 to 65535`.
pub(crate) fn describe_range([low, high]: [f64; 2]) -> String {
    format!("{low} to {high}")
}

/// Values outside a range.
struct Outside {
    n: usize,
    /// The smallest and the largest of all values, if some are outside.
    extremes: Option<[f64; 2]>,
}

fn outside(samples: &Samples, [low, high]: [f64; 2]) -> Outside {
    fn count<T: Copy + Into<f64>>(values: &[T], low: f64, high: f64) -> Outside {
        let (mut n, mut least, mut most) = (0, f64::INFINITY, f64::NEG_INFINITY);
        for value in values {
            let value: f64 = (*value).into();
            n += usize::from(!(low..=high).contains(&value));
            (least, most) = (least.min(value), most.max(value));
        }
        let extremes = (n > 0).then_some([least, most]);
        Outside { n, extremes }
    }
    match samples {
        Samples::U8(_) => Outside {
            n: 0,
            extremes: None,
        },
        Samples::U16(values) => count(values, low, high),
        Samples::F32(values) => count(values, low, high),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn native(channels: usize, samples: Samples, range: Option<[f64; 2]>) -> Native {
        let width = samples.len() / channels;
        let image = Image::new(width, 1, channels, samples).unwrap();
        let own = image.depth().full_range();
        Native::new("x.png".into(), image, range, own).unwrap()
    }

    fn pixels(native: Native) -> Vec<u8> {
        native.into_rgb8().unwrap().0.pixels
    }

    #[test]
    fn networks_see_8_bits_of_every_depth() {
        assert_eq!(
            pixels(native(1, Samples::U8(vec![7, 200]), None)),
            [7, 7, 7, 200, 200, 200]
        );
        // 257 v is v on a scale of 16 bits; the upper byte of 257 * 100 + 255 is 101, its rounded level too.
        let sixteen = Samples::U16(vec![0, 65_535, 25_700, 25_955, 128, 255]);
        let full = native(3, sixteen.clone(), None);
        assert_eq!(pixels(full.clone()), [0, 255, 100, 101, 0, 0]);
        assert_eq!(full.into_rgb8().unwrap().1.sixteen_bit, 1);
        let twelve = native(
            1,
            Samples::U16(vec![0, 2048, 4095, 5000]),
            Some([0.0, 4095.0]),
        );
        assert_eq!(twelve.outside, 1);
        let (image, conversions) = twelve.into_rgb8().unwrap();
        assert_eq!(
            image.pixels.iter().step_by(3).copied().collect::<Vec<_>>(),
            [0, 128, 255, 255]
        );
        assert_eq!(conversions.sixteen_bit, 0);
        let float = native(1, Samples::F32(vec![-1.0, 0.0, 1.0]), Some([-1.0, 1.0]));
        assert_eq!(pixels(float), [0, 0, 0, 128, 128, 128, 255, 255, 255]);
        // A range of other images does not hold for 8 bits.
        assert_eq!(
            pixels(native(3, Samples::U8(vec![1, 2, 3]), Some([0.0, 4095.0]))),
            [1, 2, 3]
        );
    }

    #[test]
    fn alpha_is_composed_on_white_and_other_channels_are_refused() {
        let clear = Samples::U8(vec![7, 8, 9, 0, 7, 8, 9, 255]);
        assert_eq!(pixels(native(4, clear, None)), [255, 255, 255, 7, 8, 9]);
        let mut grey = native(2, Samples::U8(vec![7, 0, 7, 255]), None);
        let error = grey.clone().into_rgb8().unwrap_err().to_string();
        assert!(
            error.contains("found 2 channels") && error.contains("PSNR"),
            "{error}"
        );
        grey.has_alpha = true;
        let (image, conversions) = grey.clone().into_rgb8().unwrap();
        assert_eq!(image.pixels, [255, 255, 255, 7, 7, 7]);
        assert_eq!(conversions.transparent, 1);
        assert!(
            grey.form()
                .contains("2 channels of 8 bits with alpha, 0 to 255")
        );
        grey.without_alpha();
        assert_eq!((pixels(grey.clone()), grey.image.channels), (vec![7; 6], 1));
        let five = native(5, Samples::F32(vec![0.5; 10]), None);
        let error = five.into_rgb8().unwrap_err().to_string();
        assert!(
            error.contains("x.png") && error.contains("found 5 channels"),
            "{error}"
        );
    }

    #[test]
    fn floats_outside_0_to_1_need_a_range() {
        let image = Image::new(3, 1, 1, Samples::F32(vec![0.5, 300.0, -2.0])).unwrap();
        let error = Native::new("x.tif".into(), image.clone(), None, [0.0, 1.0])
            .err()
            .unwrap()
            .to_string();
        assert!(
            error.contains("-2 to 300") && error.contains("--range"),
            "{error}"
        );
        let range = Some([-2.0, 300.0]);
        assert_eq!(
            Native::new("x.tif".into(), image, range, [0.0, 1.0])
                .ok()
                .unwrap()
                .outside,
            0
        );
        let image = Image::new(1, 1, 1, Samples::F32(vec![f32::NAN])).unwrap();
        let error = Native::new("x.tif".into(), image, Some([0.0, 1.0]), [0.0, 1.0]);
        let text = error.err().unwrap().to_string();
        assert!(text.contains("1 of 1 values are NaN"), "{text}");
    }
}
