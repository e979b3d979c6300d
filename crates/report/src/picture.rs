//! Pictures inside the page: as they are if they are small, otherwise as JPEG, and reduced if that is still too large.

use crate::error::{Error, OnPath as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use image::codecs::jpeg::JpegEncoder;
use sdft_imaging::{Filter, Limits, Reading, Rgb8, resize};
use serde::Serialize;
use std::path::Path;

/// JPEG's quality, of 100.
const QUALITY: u8 = 90;
/// The first bytes of every PNG file.
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";

/// A picture as an address that holds its data.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Embedded {
    pub(crate) uri: String,
    pub(crate) width: usize,
    pub(crate) height: usize,
}

/// The picture in a file, 8-bit RGB on white.
pub(crate) fn read(path: &Path) -> Result<Rgb8> {
    let reading = Reading {
        limits: limits(path)?,
        ..Reading::default()
    };
    let decoded = reading
        .decode_file(path, 0)
        .map_err(|e| content(path, &e))?;
    Ok(Rgb8::from_image(decoded.image))
}

/// The picture in a file, in at most about `most` bytes.
pub(crate) fn embed(path: &Path, most: usize) -> Result<Embedded> {
    let bytes = std::fs::read(path).on("read", path)?;
    let picture = read(path)?;
    let (width, height) = (picture.width, picture.height);
    if bytes.len() <= most && bytes.starts_with(PNG) {
        return Ok(Embedded {
            uri: uri("png", &bytes),
            width,
            height,
        });
    }
    embed_picture(&picture, most)
}

/// A picture in at most about `most` bytes.
pub(crate) fn embed_picture(picture: &Rgb8, most: usize) -> Result<Embedded> {
    let mut shown = picture.clone();
    loop {
        let bytes = jpeg(&shown)?;
        let is_small = shown.width.min(shown.height) <= 32;
        if bytes.len() <= most || is_small {
            return Ok(Embedded {
                uri: uri("jpeg", &bytes),
                width: shown.width,
                height: shown.height,
            });
        }
        let [width, height] = [shown.width, shown.height].map(|side| (side * 3 / 4).max(1));
        shown = resize(picture, width, height, Filter::Lanczos);
    }
}

fn jpeg(picture: &Rgb8) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let side = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    JpegEncoder::new_with_quality(&mut bytes, QUALITY)
        .encode(
            &picture.pixels,
            side(picture.width),
            side(picture.height),
            image::ExtendedColorType::Rgb8,
        )
        .map_err(|error| Error::Content {
            path: "a picture".into(),
            problem: error.to_string(),
        })?;
    Ok(bytes)
}

fn uri(kind: &str, bytes: &[u8]) -> String {
    format!("data:image/{kind};base64,{}", STANDARD.encode(bytes))
}

fn limits(path: &Path) -> Result<Limits> {
    Limits::from_env().map_err(|error| content(path, &error))
}

fn content(path: &Path, error: &sdft_imaging::ImagingError) -> Error {
    Error::Content {
        path: path.to_owned(),
        problem: error.reason(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sdft_imaging::write_png;

    fn noisy(side: usize) -> Rgb8 {
        let pixels = (0..3 * side * side)
            .map(|i| (i * 7919 % 251) as u8)
            .collect();
        Rgb8::new(side, side, pixels).unwrap()
    }

    #[test]
    fn a_small_picture_stays_and_a_large_one_fits_the_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.png");
        write_png(&path, &Rgb8::filled(20, 10, [9, 8, 7])).unwrap();
        let small = embed(&path, 10_000).unwrap();
        assert!(small.uri.starts_with("data:image/png;base64,"));
        assert_eq!((small.width, small.height), (20, 10));
        write_png(&path, &noisy(300)).unwrap();
        let large = embed(&path, 20_000).unwrap();
        assert!(large.uri.starts_with("data:image/jpeg;base64,"));
        assert!(large.uri.len() < 30_000, "{}", large.uri.len());
        assert!(large.width < 300 && large.width == large.height);
    }

    #[test]
    fn a_file_that_is_no_picture_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.png");
        std::fs::write(&path, "text").unwrap();
        assert!(
            embed(&path, 1000)
                .unwrap_err()
                .to_string()
                .contains("a.png")
        );
    }
}
