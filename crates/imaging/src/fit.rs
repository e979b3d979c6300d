//! Fits a picture of any shape into the size of a data set or model.

use serde::{Deserialize, Serialize};

use crate::{
    Depth, Filter, Image, ImageSpec, ImagingError, Result, Samples,
    crop::{cover, covering},
    resize,
    resize::{Span, resize_window},
};

/// How a picture is fitted into another shape.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fit {
    /// Resized so that it covers the target, and the middle cropped; for a square, [`center_crop`](crate::center_crop).
    #[default]
    Crop,
    /// Resized like [`Crop`](Self::Crop), and cropped at a given place.
    RandomCrop,
    /// Resized so that it fits into the target, and padded on both sides: Pillow's `ImageOps.pad` with a bicubic filter.
    Pad,
    /// Stretched to the target with a bicubic filter.
    Resize,
}

/// What pictures are fitted into, and how.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fitting {
    /// The target: its size, and the range for the padding.
    pub spec: ImageSpec,
    /// How.
    pub fit: Fit,
    /// Where [`Fit::RandomCrop`] crops, horizontally and vertically: from 0, the left or upper end, over 0.5, the middle, to 1.
    pub place: [f64; 2],
    /// The colour of the padding, in 8 bits.
    pub background: [u8; 3],
}

impl Fitting {
    /// Fits by `fit`, at the centre and on white.
    #[must_use]
    pub fn new(spec: ImageSpec, fit: Fit) -> Self {
        Self {
            spec,
            fit,
            place: [0.5; 2],
            background: [255; 3],
        }
    }

    fn size(&self) -> [usize; 2] {
        [self.spec.height.max(1), self.spec.width.max(1)]
    }
}

/// A fitted picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Fitted {
    /// The picture, with the channels and depth that it had.
    pub image: Image,
    /// One channel of 8 bits: 0 on the padding and 255 on the picture; `None` without padding.
    pub mask: Option<Image>,
}

/// Fits a picture into `fitting.spec`'s width and height; its channels and depth stay.
#[must_use]
pub fn fit(image: &Image, fitting: &Fitting) -> Fitted {
    let target @ [height, width] = fitting.size();
    let image = match fitting.fit {
        Fit::Crop => cover(image, target, [0.5; 2]),
        Fit::RandomCrop => cover(image, target, fitting.place),
        Fit::Resize => resize(image, width, height, Filter::Bicubic),
        Fit::Pad => {
            let [columns, rows] = contained([image.height, image.width], target);
            let inside = resize(image, columns.len, rows.len, Filter::Bicubic);
            let has_padding = (columns.full, rows.full) != (columns.len, rows.len);
            return Fitted {
                mask: has_padding.then(|| {
                    let counts = Image {
                        channels: 1,
                        samples: Samples::U8(vec![255; columns.len * rows.len]),
                        ..inside
                    };
                    padded(&counts, columns, rows, &[0.0])
                }),
                image: padded(
                    &inside,
                    columns,
                    rows,
                    &fitting.spec.fill(image.channels, fitting.background),
                ),
            };
        }
    };
    Fitted { image, mask: None }
}

/// Gives a mask the geometry of its image, which had `[height, width]` before it was fitted. The mask may have another size; it is resized
/// with a bilinear filter, and is 0 on padding.
///
/// # Errors
/// Fails if the mask does not have one channel of 8 bits, or its aspect ratio differs from the image's by more than one pixel.
pub fn mask_like(mask: &Image, [height, width]: [usize; 2], fitting: &Fitting) -> Result<Image> {
    let refused = |expected: String, found: String| ImagingError::Mask { expected, found };
    if (mask.channels, mask.depth()) != (1, Depth::U8) {
        let found = ImageSpec::new(mask.channels, mask.depth(), mask.width, mask.height);
        return Err(refused(
            "one channel of 8 bits".to_owned(),
            found.to_string(),
        ));
    }
    let off_by = |side: usize, other: usize, from: usize, from_other: usize| {
        (side as f64 - other as f64 * from as f64 / from_other as f64).abs()
    };
    let (across, down) = (
        off_by(mask.width, mask.height, width, height),
        off_by(mask.height, mask.width, height, width),
    );
    if across.min(down) > 1.0 {
        return Err(refused(
            format!("the aspect ratio of its image ({width}x{height})"),
            format!("{}x{}", mask.width, mask.height),
        ));
    }
    let target = fitting.size();
    let [columns, rows] = match fitting.fit {
        Fit::Crop => covering([height, width], target, [0.5; 2]),
        Fit::RandomCrop => covering([height, width], target, fitting.place),
        Fit::Resize => [Span::whole(target[1]), Span::whole(target[0])],
        Fit::Pad => {
            let [columns, rows] = contained([height, width], target);
            let inside = resize(mask, columns.len, rows.len, Filter::Bilinear);
            return Ok(padded(&inside, columns, rows, &[0.0]));
        }
    };
    Ok(resize_window(mask, columns, rows, Filter::Bilinear))
}

/// Columns and rows that a padded picture takes in `target`, as `ImageOps.pad` rounds them.
fn contained([height, width]: [usize; 2], target: [usize; 2]) -> [Span; 2] {
    let (ratio, wanted) = (
        width as f64 / height as f64,
        target[1] as f64 / target[0] as f64,
    );
    let rounded = |n: f64, most: usize| (n.round_ties_even() as usize).clamp(1, most);
    let mut len = [target[1], target[0]];
    if ratio > wanted {
        len[1] = rounded(height as f64 / width as f64 * target[1] as f64, target[0]);
    } else if ratio < wanted {
        len[0] = rounded(ratio * target[0] as f64, target[1]);
    }
    let span = |len: usize, full: usize| Span {
        full,
        start: ((full - len) as f64 / 2.0).round_ties_even() as usize,
        len,
    };
    [span(len[0], target[1]), span(len[1], target[0])]
}

/// Places a picture at the start of `columns` and `rows` of a larger one of the colour `fill`, which has a value for each channel.
fn padded(image: &Image, columns: Span, rows: Span, fill: &[f64]) -> Image {
    fn paste<T: Copy>(values: &[T], fill: Vec<T>, columns: Span, rows: Span) -> Vec<T> {
        let n = fill.len();
        let mut out = fill.repeat(columns.full * rows.full);
        let lines = out.chunks_exact_mut(n * columns.full).skip(rows.start);
        for (to, from) in lines.zip(values.chunks_exact(n * columns.len)) {
            to[n * columns.start..][..n * columns.len].copy_from_slice(from);
        }
        out
    }
    let fill = fill.iter();
    let samples = match &image.samples {
        Samples::U8(v) => Samples::U8(paste(v, fill.map(|&f| f as u8).collect(), columns, rows)),
        Samples::U16(v) => Samples::U16(paste(v, fill.map(|&f| f as u16).collect(), columns, rows)),
        Samples::F32(v) => Samples::F32(paste(v, fill.map(|&f| f as f32).collect(), columns, rows)),
    };
    Image {
        width: columns.full,
        height: rows.full,
        channels: image.channels,
        samples,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 16-bit pictures of two channels: columns and rows.
    fn numbered(width: usize, height: usize) -> Image {
        let samples = (0..height)
            .flat_map(|y| (0..width).flat_map(move |x| [1000 * x as u16, 1000 * y as u16]))
            .collect();
        Image::new(width, height, 2, Samples::U16(samples)).unwrap()
    }

    fn fitting(height: usize, width: usize, fit: Fit) -> Fitting {
        Fitting::new(ImageSpec::new(2, Depth::U16, width, height), fit)
    }

    #[test]
    fn every_fit_has_the_size_asked_for_and_keeps_channels_and_depth() {
        for fit_by in [Fit::Crop, Fit::RandomCrop, Fit::Pad, Fit::Resize] {
            for [h, w] in [[7, 5], [5, 7], [1, 9], [24, 16]] {
                for (width, height) in [(30, 20), (20, 30), (1, 40), (5, 7)] {
                    let fitted = fit(&numbered(width, height), &fitting(h, w, fit_by));
                    let image = fitted.image;
                    assert_eq!([image.height, image.width], [h, w], "{fit_by:?}");
                    assert_eq!((image.channels, image.depth()), (2, Depth::U16));
                    assert_eq!(image.samples.len(), 2 * h * w);
                    if let Some(mask) = fitted.mask {
                        assert_eq!((fit_by, mask.samples.len()), (Fit::Pad, h * w));
                    }
                }
            }
        }
    }

    #[test]
    fn a_random_crop_reaches_both_ends_and_its_middle_is_the_centre() {
        let image = numbered(9, 3);
        let crop = |x: f64| {
            let at = Fitting {
                place: [x, 0.5],
                ..fitting(3, 4, Fit::RandomCrop)
            };
            fit(&image, &at).image
        };
        for (x, first) in [
            (0.0, 0),
            (0.5, 2),
            (1.0, 5),
            (0.17, 1),
            (-3.0, 0),
            (f64::NAN, 0),
        ] {
            assert_eq!(crop(x), image.crop(first, 0, 4, 3).unwrap(), "{x}");
        }
        assert_eq!(crop(0.5), fit(&image, &fitting(3, 4, Fit::Crop)).image);
    }

    #[test]
    fn a_padded_picture_is_in_the_middle_of_its_background_and_of_its_mask() {
        let white = Image::new(4, 2, 1, Samples::F32(vec![-2.0; 8])).unwrap();
        let spec = ImageSpec {
            range: [-2.0, 6.0],
            ..ImageSpec::new(1, Depth::F32, 4, 5)
        };
        let fitted = fit(&white, &Fitting::new(spec, Fit::Pad));
        let rows = |edge: f32, inside: f32| [edge, edge, inside, inside, edge].map(|v| [v; 4]);
        assert_eq!(fitted.image.samples, Samples::F32(rows(6.0, -2.0).concat()));
        let expected = rows(0.0, 255.0).concat().iter().map(|&v| v as u8).collect();
        assert_eq!(fitted.mask.unwrap().samples, Samples::U8(expected));
        assert!(
            fit(
                &white,
                &Fitting::new(ImageSpec::new(1, Depth::F32, 2, 1), Fit::Pad)
            )
            .mask
            .is_none()
        );
    }

    #[test]
    fn a_mask_gets_the_geometry_of_its_image() {
        // The right half of a wide picture is masked out.
        let mask = |w: usize, h: usize| {
            let row: Vec<u8> = (0..w).map(|x| if 2 * x < w { 255 } else { 0 }).collect();
            Image::new(w, h, 1, Samples::U8(row.repeat(h))).unwrap()
        };
        for (w, h) in [(40, 20), (80, 40), (20, 10), (41, 20)] {
            let like = |fitting: &Fitting| {
                let out = mask_like(&mask(w, h), [20, 40], fitting).unwrap();
                let Samples::U8(values) = out.samples else {
                    panic!("8 bits")
                };
                values
            };
            assert_eq!(like(&fitting(4, 8, Fit::Resize))[..3], [255; 3]);
            assert_eq!(like(&fitting(4, 4, Fit::Crop))[3], 0);
            let right = Fitting {
                place: [1.0, 0.5],
                ..fitting(4, 4, Fit::RandomCrop)
            };
            assert_eq!(like(&right)[1..4], [0; 3]);
            let padded = like(&fitting(8, 8, Fit::Pad));
            assert_eq!(padded[..16], [0; 16]);
            assert_eq!(padded[16..19], [255; 3]);
        }
        let error = mask_like(&mask(40, 24), [20, 40], &fitting(4, 4, Fit::Crop));
        let text = error.unwrap_err().to_string();
        assert!(text.contains("40x20") && text.contains("40x24"), "{text}");
        assert!(mask_like(&numbered(4, 2), [2, 4], &fitting(4, 4, Fit::Crop)).is_err());
    }
}
