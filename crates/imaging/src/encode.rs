//! Encodes pictures of every form.

use image::{ExtendedColorType, ImageEncoder as _, codecs::png::PngEncoder};

use crate::{Image, ImageSpec, ImagingError, Result, Samples, picture::check_length};

/// Encodes a picture of the form `spec`; see [`ImageSpec::encode`].
pub(crate) fn encode_image(spec: &ImageSpec, image: &Image) -> Result<Vec<u8>> {
    let (width, height, channels) = (image.width, image.height, image.channels);
    check_length("encode", [width, height, channels], image.samples.len())?;
    let fail = |reason: String| ImagingError::Encode {
        width,
        height,
        reason,
    };
    if (spec.channels, spec.depth) != (channels, image.depth()) {
        return Err(fail(format!(
            "expected {spec}, found {channels} channels of {}",
            image.depth()
        )));
    }
    let (w, h) = u32::try_from(width)
        .and_then(|w| Ok((w, u32::try_from(height)?)))
        .map_err(|_| fail("a side of a PNG has at most 4294967295 pixels".to_owned()))?;
    let kind = match (channels, &image.samples) {
        (1, Samples::U8(_)) => ExtendedColorType::L8,
        (3, Samples::U8(_)) => ExtendedColorType::Rgb8,
        (4, Samples::U8(_)) => ExtendedColorType::Rgba8,
        (1, Samples::U16(_)) => ExtendedColorType::L16,
        (3, Samples::U16(_)) => ExtendedColorType::Rgb16,
        (4, Samples::U16(_)) => ExtendedColorType::Rgba16,
        _ => return Err(fail(format!("no format for {spec}"))),
    };
    let bytes: Vec<u8> = match &image.samples {
        Samples::U8(values) => values.clone(),
        Samples::U16(values) => values.iter().flat_map(|v| v.to_ne_bytes()).collect(),
        Samples::F32(values) => values.iter().flat_map(|v| v.to_ne_bytes()).collect(),
    };
    let mut out = Vec::new();
    PngEncoder::new(&mut out)
        .write_image(&bytes, w, h, kind)
        .map_err(|e| fail(e.to_string()))?;
    Ok(out)
}
