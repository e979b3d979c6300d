//! Encodes pictures of every form.

use std::io::Cursor;

use image::{ExtendedColorType, ImageEncoder as _, codecs::png::PngEncoder};
use sdft_npz::{Array, Values, encode_npy};
use tiff::{
    encoder::{TiffEncoder, colortype},
    tags::{ExtraSamples, Tag},
};

use crate::{Image, ImageSpec, ImagingError, Result, Samples, picture::check_length};

/// Encodes a picture of the form `spec`; see [`ImageSpec::encode`].
pub(crate) fn encode_image(spec: &ImageSpec, image: &Image) -> Result<Vec<u8>> {
    let (width, height, channels) = (image.width, image.height, image.channels);
    check_length("encode", [width, height, channels], image.samples.len())?;
    if (spec.channels, spec.depth) != (channels, image.depth()) {
        let found = ImageSpec::new(channels, image.depth(), width, height);
        return Err(failed(image, format!("expected {spec}, found {found}")));
    }
    match (channels, &image.samples) {
        (1, Samples::U8(values)) => png([width, height], ExtendedColorType::L8, values),
        (3, Samples::U8(values)) => png([width, height], ExtendedColorType::Rgb8, values),
        (4, Samples::U8(values)) => png([width, height], ExtendedColorType::Rgba8, values),
        (1 | 3 | 4, Samples::U16(values)) => {
            let kind = match channels {
                1 => ExtendedColorType::L16,
                3 => ExtendedColorType::Rgb16,
                _ => ExtendedColorType::Rgba16,
            };
            let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_ne_bytes()).collect();
            png([width, height], kind, &bytes)
        }
        (1 | 3 | 4, Samples::F32(values)) => {
            tiff(spec, image, values).map_err(|e| failed(image, e.to_string()))
        }
        (_, samples) => npy(image, samples),
    }
}

fn failed(image: &Image, reason: String) -> ImagingError {
    ImagingError::Encode {
        width: image.width,
        height: image.height,
        reason,
    }
}

/// Encodes a PNG from bytes in the machine's order; the caller has checked their number.
pub(crate) fn png(
    [width, height]: [usize; 2],
    kind: ExtendedColorType,
    bytes: &[u8],
) -> Result<Vec<u8>> {
    let fail = |reason: String| ImagingError::Encode {
        width,
        height,
        reason,
    };
    let (w, h) = u32::try_from(width)
        .and_then(|w| Ok((w, u32::try_from(height)?)))
        .map_err(|_| fail("a side of a PNG has at most 4294967295 pixels".to_owned()))?;
    let mut out = Vec::new();
    PngEncoder::new(&mut out)
        .write_image(bytes, w, h, kind)
        .map_err(|e| fail(e.to_string()))?;
    Ok(out)
}

/// Encodes an uncompressed TIFF of floats, whose tags for the smallest and the largest sample value are the range.
fn tiff(spec: &ImageSpec, image: &Image, values: &[f32]) -> tiff::TiffResult<Vec<u8>> {
    let mut out = Cursor::new(Vec::new());
    let mut file = TiffEncoder::new(&mut out)?;
    let (width, height) = (u32::try_from(image.width)?, u32::try_from(image.height)?);
    let [low, high] = spec.range.map(|limit| vec![limit; image.channels]);
    macro_rules! write {
        ($kind:ty, $extra:expr) => {{
            let mut page = file.new_image::<$kind>(width, height)?;
            page.extra_samples($extra)?;
            page.encoder().write_tag(Tag::SMinSampleValue, &low[..])?;
            page.encoder().write_tag(Tag::SMaxSampleValue, &high[..])?;
            page.write_data(values)?;
        }};
    }
    match image.channels {
        1 => write!(colortype::Gray32Float, &[]),
        3 => write!(colortype::RGB32Float, &[]),
        _ => write!(colortype::RGB32Float, &[ExtraSamples::UnassociatedAlpha]),
    }
    Ok(out.into_inner())
}

/// Encodes an array `[height, width, channels]`.
fn npy(image: &Image, samples: &Samples) -> Result<Vec<u8>> {
    let array = Array {
        shape: vec![image.height, image.width, image.channels],
        values: match samples {
            Samples::U8(values) => Values::U8(values.clone()),
            Samples::U16(values) => Values::U16(values.clone()),
            Samples::F32(values) => Values::F32(values.clone()),
        },
    };
    encode_npy(&array).map_err(|e| failed(image, e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Depth, Reading};

    #[test]
    fn every_form_is_read_back_from_the_file_with_its_ending() {
        for channels in 1..7 {
            for depth in [Depth::U8, Depth::U16, Depth::F32] {
                let spec = ImageSpec {
                    range: match depth {
                        Depth::F32 => [-3.0, 70_000.0],
                        depth => depth.full_range(),
                    },
                    ..ImageSpec::new(channels, depth, 5, 3)
                };
                let values = 0..15 * channels;
                let samples = match depth {
                    Depth::U8 => Samples::U8(values.map(|i| (i * 2) as u8).collect()),
                    Depth::U16 => Samples::U16(values.map(|i| (i * 700) as u16).collect()),
                    Depth::F32 => Samples::F32(values.map(|i| i as f32 * 700.5 - 3.0).collect()),
                };
                let image = Image::new(5, 3, channels, samples).unwrap();
                let bytes = spec.encode(&image).unwrap();
                // Three rows of five channels could be three channels first, so the channels are stated.
                let reading = Reading {
                    channels: Some(channels),
                    ..Reading::default()
                };
                let read = reading.decode(&bytes, "x", 0).unwrap();
                assert_eq!(read.image, image, "{spec}");
                let format = match spec.ending() {
                    "tif" => "TIFF",
                    "npy" => "NPY",
                    _ => "PNG",
                };
                assert_eq!(read.format, format, "{spec}");
                if format == "TIFF" {
                    assert_eq!(read.range, spec.range, "{spec}");
                }
            }
        }
    }

    #[test]
    fn a_picture_of_another_form_is_refused() {
        let image = Image::new(1, 1, 1, Samples::U8(vec![0])).unwrap();
        let error = ImageSpec::new(1, Depth::U16, 1, 1).encode(&image);
        let text = error.unwrap_err().to_string();
        assert!(
            text.contains("16 bits") && text.contains("8 bits"),
            "{text}"
        );
    }
}
