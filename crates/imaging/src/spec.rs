//! The form of the images of a data set or a model, and the conversion between it and [-1, 1].

use sdft_files::plural;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    Depth, Image, ImagingError, Result, Rgb8, Samples, alpha::Tone as _, encode::encode_image,
    picture::check_length,
};

/// The form of images: their size, channels and depth, and the values that become -1 and 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageSpec {
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// Number of channels.
    pub channels: usize,
    /// The type of the samples.
    pub depth: Depth,
    /// The values that become -1 and 1.
    pub range: [f64; 2],
}

impl ImageSpec {
    /// Images of this form with the full range of their depth.
    #[must_use]
    pub fn new(channels: usize, depth: Depth, width: usize, height: usize) -> Self {
        Self {
            width,
            height,
            channels,
            depth,
            range: depth.full_range(),
        }
    }

    /// 8-bit RGB images.
    #[must_use]
    pub fn rgb8(width: usize, height: usize) -> Self {
        Self::new(3, Depth::U8, width, height)
    }

    /// Whether the images are 8-bit RGB with the full range.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        *self == Self::rgb8(self.width, self.height)
    }

    /// Number of samples of an image.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "an image is never empty")]
    pub fn len(&self) -> usize {
        self.channels * self.width * self.height
    }

    /// `[channels, height, width]`, as a tensor has it.
    #[must_use]
    pub fn shape(&self) -> [usize; 3] {
        [self.channels, self.height, self.width]
    }

    /// Converts a picture to f32, channels first: `(v - low) / ((high - low) / 2) - 1`.
    ///
    /// All operations round to f32. For 8-bit images of the full range the values are those of numpy's
    /// `x.astype(float32) / 127.5 - 1`. The picture may have any size; its own channels and depth count.
    ///
    /// # Shapes
    /// - returns `[channels, height, width]`
    ///
    /// # Units
    /// - returns values in [-1, 1] for samples inside the range
    #[must_use]
    pub fn to_unit_range(&self, image: &Image) -> Vec<f32> {
        let [low, high] = self.range;
        let (low, half) = (low as f32, ((high - low) / 2.0) as f32);
        let unit = |v: f32| (v - low) / half - 1.0;
        match &image.samples {
            Samples::U8(v) => channels_first(v, image.channels, |v| unit(f32::from(v))),
            Samples::U16(v) => channels_first(v, image.channels, |v| unit(f32::from(v))),
            Samples::F32(v) => channels_first(v, image.channels, unit),
        }
    }

    /// Converts an image of a model to a picture of this form, rounded to the nearest level.
    ///
    /// ```text
    /// 8 bits    floor(255 * (clamp(x, -1, 1) + 1) / 2 + 0.5), as torchvision's save_image(normalize=True, value_range=(-1, 1)), rounded
    /// 16 bits   floor(low + (high - low) * (clamp(x, -1, 1) + 1) / 2 + 0.5)
    /// floats    low + (high - low) * (clamp(x, -1, 1) + 1) / 2
    /// ```
    /// A picture of integers is unchanged by [`to_unit_range`](Self::to_unit_range) and back.
    ///
    /// # Shapes
    /// - `x`: `[channels, height, width]`
    ///
    /// # Units
    /// - `x` in [-1, 1]; other values are clamped
    ///
    /// # Errors
    /// Fails if `x` has another length, or a value is NaN or infinite.
    pub fn from_unit_range(&self, x: &[f32]) -> Result<Image> {
        let (width, height, channels) = (self.width, self.height, self.channels);
        check_length("from_unit_range", [width, height, channels], x.len())?;
        let found = x.iter().filter(|v| !v.is_finite()).count();
        if found > 0 {
            return Err(ImagingError::NotFinite {
                found,
                values: x.len(),
            });
        }
        let [low, high] = self.range;
        let value = |v: f32| low + (high - low) * (f64::from(v.clamp(-1.0, 1.0)) + 1.0) / 2.0;
        let n = width * height;
        let samples = match self.depth {
            Depth::U8 if self.range == Depth::U8.full_range() => {
                // `as u8` truncates, so this rounds to nearest.
                let level = |v: f32| ((v.clamp(-1.0, 1.0) + 1.0) / 2.0 * 255.0 + 0.5) as u8;
                Samples::U8(channels_last(x, n, level))
            }
            Depth::U8 => Samples::U8(channels_last(x, n, |v| (value(v) + 0.5).floor() as u8)),
            Depth::U16 => Samples::U16(channels_last(x, n, |v| (value(v) + 0.5).floor() as u16)),
            Depth::F32 => Samples::F32(channels_last(x, n, |v| value(v) as f32)),
        };
        Ok(Image {
            width,
            height,
            channels,
            samples,
        })
    }
}

impl ImageSpec {
    /// The ending of files in this form: `png` for 1, 3 and 4 channels of 8 and 16 bits, `tif` for 1, 3 and 4 channels of floats, `npy` for
    /// all other numbers of channels.
    #[must_use]
    pub fn ending(&self) -> &'static str {
        match (self.channels, self.depth) {
            (1 | 3 | 4, Depth::U8 | Depth::U16) => "png",
            (1 | 3 | 4, Depth::F32) => "tif",
            _ => "npy",
        }
    }

    /// The picture as a screen shows it: the range becomes 0 to 255, rounded.
    ///
    /// Grey is repeated; of 2 channels the first is grey; of 4 channels the last is alpha and composed on white; of 5 and more channels the
    /// first three are red, green and blue.
    #[must_use]
    pub fn screen(&self, image: &Image) -> Rgb8 {
        let [low, high] = self.range;
        let scale = 255.0 / (high - low);
        let level = |v: f64| (((v - low) * scale).clamp(0.0, 255.0) + 0.5) as u8;
        let levels: Vec<u8> = match &image.samples {
            Samples::U8(values) if self.range == Depth::U8.full_range() => values.clone(),
            Samples::U8(values) => values.iter().map(|&v| level(v.into())).collect(),
            Samples::U16(values) => values.iter().map(|&v| level(v.into())).collect(),
            Samples::F32(values) => values.iter().map(|&v| level(v.into())).collect(),
        };
        let on_white = |v: u8, alpha: u8| {
            let (v, a) = (u32::from(v), u32::from(alpha));
            ((v * a + 255 * (255 - a) + 127) / 255) as u8
        };
        let pixels = levels.chunks_exact(image.channels.max(1));
        let pixels = match image.channels {
            1 | 2 => pixels.flat_map(|p| [p[0]; 3]).collect(),
            3 => levels,
            4 => pixels
                .flat_map(|p| [p[0], p[1], p[2]].map(|v| on_white(v, p[3])))
                .collect(),
            _ => pixels.flat_map(|p| [p[0], p[1], p[2]]).collect(),
        };
        Rgb8 {
            width: image.width,
            height: image.height,
            pixels,
        }
    }

    /// A colour of 8 bits as the samples of one pixel of `channels` channels: grey for 1 and 2 channels and for 5 and more, opaque for 4.
    pub(crate) fn fill(&self, channels: usize, [r, g, b]: [u8; 3]) -> Vec<f64> {
        let [low, high] = self.range;
        let sample = |v: u8| {
            let value = low + (high - low) * f64::from(v) / 255.0;
            match self.depth {
                Depth::F32 => value,
                _ => value.round(),
            }
        };
        match channels {
            3 => [r, g, b].map(sample).to_vec(),
            4 => [r, g, b, 255].map(sample).to_vec(),
            n => vec![sample(u8::luma([r, g, b])); n],
        }
    }

    /// Encodes a picture of this form as a file with the ending of [`ending`](Self::ending).
    ///
    /// # Errors
    /// Fails if the picture has another form, or the fields of `image` do not match.
    pub fn encode(&self, image: &Image) -> Result<Vec<u8>> {
        encode_image(self, image)
    }
}

impl fmt::Display for ImageSpec {
    /// `24x16`, height first, with channels and depth where they are not 3 and 8: `24x16, 1 channel of 16 bits`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.height, self.width)?;
        if self.channels == 3 && self.depth == Depth::U8 {
            return Ok(());
        }
        write!(f, ", {} of ", plural(self.channels, "channel", "channels"))?;
        match self.depth {
            Depth::F32 => f.write_str("floats"),
            depth => write!(f, "{depth} bits"),
        }
    }
}

/// Converts a picture to f32, channels first: `v / 127.5 - 1`, as [`ImageSpec::to_unit_range`] of 8-bit RGB.
///
/// # Shapes
/// - returns `[3, height, width]`
///
/// # Units
/// - returns values in [-1, 1]
#[must_use]
pub fn to_unit_range(image: &Rgb8) -> Vec<f32> {
    channels_first(&image.pixels, 3, |v: u8| f32::from(v) / 127.5 - 1.0)
}

/// Converts from channels last to channels first.
fn channels_first<T: Copy>(samples: &[T], channels: usize, value: impl Fn(T) -> f32) -> Vec<f32> {
    let n = samples.len() / channels.max(1);
    let mut out = vec![0.0; samples.len()];
    for (c, plane) in out.chunks_exact_mut(n.max(1)).enumerate() {
        for (to, pixel) in plane.iter_mut().zip(samples.chunks_exact(channels)) {
            *to = value(pixel[c]);
        }
    }
    out
}

/// Converts from channels first, `n` pixels each, to channels last.
fn channels_last<T>(x: &[f32], n: usize, level: impl Fn(f32) -> T) -> Vec<T> {
    let mut out = Vec::with_capacity(x.len());
    for i in 0..n {
        out.extend(x[i..].iter().step_by(n).map(|&v| level(v)));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_level_survives_the_round_trip() {
        let all: Vec<u16> = (0..=65_535).collect();
        for (depth, range, top) in [
            (Depth::U8, [0.0, 255.0], 255u16),
            (Depth::U8, [0.0, 100.0], 100),
            (Depth::U16, [0.0, 65_535.0], 65_535),
            (Depth::U16, [0.0, 4095.0], 4095),
            (Depth::U16, [1000.0, 3000.0], 3000),
        ] {
            let low = range[0] as usize;
            let levels = &all[low..=usize::from(top)];
            let spec = ImageSpec {
                range,
                ..ImageSpec::new(1, depth, levels.len(), 1)
            };
            let samples = match depth {
                Depth::U8 => Samples::U8(levels.iter().map(|&v| v as u8).collect()),
                _ => Samples::U16(levels.to_vec()),
            };
            let image = Image::new(levels.len(), 1, 1, samples).unwrap();
            let x = spec.to_unit_range(&image);
            assert_eq!((x[0], x[x.len() - 1]), (-1.0, 1.0));
            assert_eq!(spec.from_unit_range(&x).unwrap(), image);
        }
    }

    #[test]
    fn floats_are_mapped_from_their_range_and_back() {
        let spec = ImageSpec {
            range: [-1000.0, 3000.0],
            ..ImageSpec::new(2, Depth::F32, 2, 1)
        };
        let samples = Samples::F32(vec![-1000.0, 0.0, 1000.0, 3000.0]);
        let image = Image::new(2, 1, 2, samples).unwrap();
        let x = spec.to_unit_range(&image);
        assert_eq!(x, [-1.0, 0.0, -0.5, 1.0]);
        assert_eq!(spec.from_unit_range(&x).unwrap(), image);
        let clamped = spec.from_unit_range(&[-3.0, 7.0, 0.0, 0.0]).unwrap();
        assert_eq!(
            clamped.samples,
            Samples::F32(vec![-1000.0, 1000.0, 3000.0, 1000.0])
        );
    }

    #[test]
    fn channels_move_first_and_back() {
        let spec = ImageSpec::rgb8(2, 1);
        let pixels = Samples::U8(vec![0, 51, 102, 153, 204, 255]);
        let image = Image::new(2, 1, 3, pixels).unwrap();
        let x = spec.to_unit_range(&image);
        let expected = [-1.0, 0.2, -0.6, 0.6, -0.2, 1.0];
        for (got, expected) in x.iter().zip(expected) {
            assert!((got - expected).abs() < 1e-6, "{x:?}");
        }
        assert_eq!(spec.from_unit_range(&x).unwrap(), image);
    }

    #[test]
    fn values_are_rounded_to_the_nearest_level_and_clamped() {
        // 0 is 127.5 levels, 0.99 is 253.7 and -0.99 is 1.3.
        let samples = |x: [f32; 3]| ImageSpec::rgb8(1, 1).from_unit_range(&x).unwrap().samples;
        assert_eq!(samples([0.0, 0.99, -0.99]), Samples::U8(vec![128, 254, 1]));
        assert_eq!(samples([7.0, -7.0, 1e30]), Samples::U8(vec![255, 0, 255]));
    }

    #[test]
    fn a_screen_picture_has_the_values_of_its_image() {
        let picture = Rgb8::new(16, 16, (0..768).map(|i| (i / 3) as u8).collect()).unwrap();
        let spec = ImageSpec::rgb8(16, 16);
        assert_eq!(
            to_unit_range(&picture),
            spec.to_unit_range(&picture.clone().into())
        );
    }

    #[test]
    fn values_that_are_not_finite_are_counted_and_never_become_a_picture() {
        let spec = ImageSpec::rgb8(1, 1);
        let error = spec.from_unit_range(&[f32::NAN, 0.5, f32::NEG_INFINITY]);
        assert_eq!(
            error.unwrap_err().to_string(),
            "2 of 3 values are NaN or infinite"
        );
        let error = spec.from_unit_range(&[0.0; 4]).unwrap_err().to_string();
        assert!(error.contains('3') && error.contains('4'), "{error}");
    }

    #[test]
    fn a_screen_shows_the_range_in_8_bits_and_known_channels() {
        let spec = ImageSpec {
            range: [0.0, 4095.0],
            ..ImageSpec::new(1, Depth::U16, 3, 1)
        };
        let image = Image::new(3, 1, 1, Samples::U16(vec![0, 2048, 5000])).unwrap();
        assert_eq!(
            spec.screen(&image).pixels,
            [0, 0, 0, 128, 128, 128, 255, 255, 255]
        );
        let one = |channels: usize, samples: Vec<u8>| {
            let spec = ImageSpec::new(channels, Depth::U8, 1, 1);
            spec.screen(&Image::new(1, 1, channels, Samples::U8(samples)).unwrap())
                .pixels
        };
        assert_eq!(one(2, vec![7, 9]), [7; 3]);
        assert_eq!(one(3, vec![7, 8, 9]), [7, 8, 9]);
        assert_eq!(one(4, vec![7, 8, 9, 0]), [255; 3]);
        assert_eq!(one(5, vec![7, 8, 9, 10, 11]), [7, 8, 9]);
    }

    #[test]
    fn a_spec_is_described_by_height_and_width() {
        assert_eq!(ImageSpec::rgb8(16, 24).to_string(), "24x16");
        let spec = ImageSpec::new(1, Depth::U16, 16, 24);
        assert_eq!(spec.to_string(), "24x16, 1 channel of 16 bits");
        assert!(!spec.is_plain() && ImageSpec::rgb8(1, 2).is_plain());
    }
}
