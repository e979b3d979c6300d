//! Files to pictures, with limits.

use std::{
    fs::{self, File},
    io::{Cursor, Read as _},
    path::Path,
};

use image::{
    ColorType, DynamicImage, ImageDecoder, ImageFormat, ImageReader, RgbImage,
    metadata::Orientation,
};

use crate::{Conversions, ImagingError, Limits, Result, Rgb8, gif, jpeg, kind, upright};

/// More passes over a picture than any encoder makes; each costs as much as a whole picture.
const MAX_SCANS: usize = 100;

/// A decoded picture and what its file was like.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Decoded {
    /// The picture, upright and on white.
    pub image: Rgb8,
    /// The format told by the content: `PNG`, `JPEG`, `GIF`, `WebP` or `BMP`.
    pub format: &'static str,
    /// Some pixel was not fully opaque; the picture was composed on white.
    pub transparent: bool,
    /// Every pixel has equal red, green and blue.
    pub grey: bool,
    /// The file has 16 bits per channel, of which the upper 8 were kept.
    pub sixteen_bit: bool,
    /// EXIF or XMP asked for a rotation or reflection, which was applied.
    pub reoriented: bool,
    /// The file is an animation, of which this is the first frame.
    pub animated: bool,
}

impl Decoded {
    /// What was done to this picture, as numbers of 0 and 1.
    #[must_use]
    pub fn conversions(&self) -> Conversions {
        Conversions {
            transparent: usize::from(self.transparent),
            sixteen_bit: usize::from(self.sixteen_bit),
            reoriented: usize::from(self.reoriented),
            animated: usize::from(self.animated),
        }
    }
}

/// The picture in a file. See [`decode_bytes`] for how it is decoded.
///
/// # Errors
/// - the file cannot be read or is not a regular file · see [`decode_bytes`]; the message names `path`
pub fn decode_file(path: &Path, limits: &Limits) -> Result<Rgb8> {
    let bytes = read_image_file(path, limits)?;
    Ok(decode_described(&bytes, &path.display().to_string(), limits)?.image)
}

/// The picture in the bytes of a PNG, JPEG, GIF (first frame), WebP or BMP file.
///
/// The format is told by the content. Grey is replicated, palettes are expanded. An opaque picture that is stored upright is, in every
/// pixel, what Pillow's `convert("RGB")` gives ([`decode_as_pillow`]); the others are what people see:
/// - Choice: transparency is composed on white. What a file holds under it is not meant to be seen, and is often noise.
/// - Choice: 16-bit channels keep their upper byte. Pillow does so for colour; for grey its versions differ, some clip to 255.
/// - Choice: the orientation in EXIF, or in XMP if EXIF has none, is applied. guided-diffusion ignores both.
/// - JPEG decoders differ from each other: by less than half a level on average, by more at edges where colour is subsampled. A JPEG
///   without its end marker is truncated and refused.
///
/// # Errors
/// - unknown format · damaged or truncated data · larger than `limits` (then nothing was decoded)
pub fn decode_bytes(bytes: &[u8], limits: &Limits) -> Result<Rgb8> {
    Ok(decode_described(bytes, "picture in memory", limits)?.image)
}

/// As [`decode_bytes`], but exactly what `PIL.Image.open(..).convert("RGB")` gives: transparency is dropped, which uncovers the colours
/// under it, and the picture stays as it is stored. The reference implementations read their images so; parity is checked against it.
///
/// # Errors
/// - see [`decode_bytes`]
pub fn decode_as_pillow(bytes: &[u8], limits: &Limits) -> Result<Rgb8> {
    Ok(guarded(bytes, "picture in memory", limits, true)?.image)
}

/// As [`decode_bytes`], with what the file was like; `origin` names the bytes in error messages.
///
/// # Errors
/// - see [`decode_bytes`]
pub fn decode_described(bytes: &[u8], origin: &str, limits: &Limits) -> Result<Decoded> {
    guarded(bytes, origin, limits, false)
}

/// The content of a picture file, refused unread when it is larger than `limits.max_bytes` or no regular file.
///
/// # Errors
/// - the file cannot be read · it is a folder, pipe, socket or device · it is too large
pub fn read_image_file(path: &Path, limits: &Limits) -> Result<Vec<u8>> {
    let fail = |source| ImagingError::Read {
        path: path.to_owned(),
        source,
    };
    // Asked before opening: opening a pipe would wait for its writer.
    let metadata = fs::metadata(path).map_err(fail)?;
    if !metadata.is_file() {
        return Err(ImagingError::NotAFile {
            path: path.to_owned(),
            found: sdft_files::kind_of(metadata.file_type()),
        });
    }
    let origin = path.display().to_string();
    limits.check_file(metadata.len(), &origin)?;
    let mut bytes = Vec::new();
    // The file may grow while it is read.
    File::open(path)
        .and_then(|file| {
            file.take(limits.max_bytes.saturating_add(1))
                .read_to_end(&mut bytes)
        })
        .map_err(fail)?;
    limits.check_file(bytes.len() as u64, &origin)?;
    Ok(bytes)
}

/// The decoders are other people's code on hostile input: a panic in one of them must not take the run down.
fn guarded(bytes: &[u8], origin: &str, limits: &Limits, as_pillow: bool) -> Result<Decoded> {
    let Some((format, name)) = kind::readable(bytes) else {
        return Err(ImagingError::unknown(origin, bytes));
    };
    let broken = |reason: String| ImagingError::Broken {
        origin: origin.to_owned(),
        format: name,
        reason,
    };
    sdft_files::guarded(|| {
        let raw = match format {
            ImageFormat::Gif => gif::decode(bytes, origin, limits, &broken)?,
            _ => decode(bytes, format, origin, limits, &broken)?,
        };
        let orientation = match as_pillow {
            true => None,
            false => orientation(bytes, format),
        };
        let [width, height] = raw.size;
        let (color, animated) = (raw.color, raw.animated);
        let (pixels, transparent) = to_rgb(raw.data, color, as_pillow, format)
            .ok_or_else(|| broken(format!("pixels of the kind {color:?} are not supported")))?;
        let upright = orientation.unwrap_or(Orientation::NoTransforms);
        let image = orient(width, height, pixels, upright)
            .ok_or_else(|| broken(format!("its data do not fill {width}x{height} pixels")))?;
        Ok(Decoded {
            grey: image
                .pixels
                .chunks_exact(3)
                .all(|p| p[0] == p[1] && p[1] == p[2]),
            image,
            format: name,
            transparent,
            sixteen_bit: color.bytes_per_pixel() / color.channel_count() == 2,
            reoriented: upright != Orientation::NoTransforms,
            animated,
        })
    })
    .unwrap_or_else(|| Err(broken("the decoder panicked".to_owned())))
}

/// What a decoder gives.
pub(crate) struct Raw {
    /// Width and height.
    pub(crate) size: [u32; 2],
    pub(crate) color: ColorType,
    pub(crate) data: Vec<u8>,
    /// There are more frames.
    pub(crate) animated: bool,
}

/// Header, limits, pixels: in that order.
fn decode(
    bytes: &[u8],
    format: ImageFormat,
    origin: &str,
    limits: &Limits,
    broken: &dyn Fn(String) -> ImagingError,
) -> Result<Raw> {
    let fail = |error: image::ImageError| match error {
        image::ImageError::Limits(e) => limits.refused(origin, &e),
        other => broken(other.to_string()),
    };
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    // The size is checked again below, where the message can name it.
    let mut theirs = image::Limits::no_limits();
    theirs.max_image_width = Some(limits.max_side);
    theirs.max_image_height = Some(limits.max_side);
    theirs.max_alloc = Some(limits.max_bytes.saturating_mul(2));
    reader.limits(theirs);
    let decoder = reader.into_decoder().map_err(fail)?;
    let (width, height) = decoder.dimensions();
    let color = decoder.color_type();
    if width == 0 || height == 0 {
        return Err(broken(format!("it has no pixels ({width}x{height})")));
    }
    let per_pixel = u64::from(color.bytes_per_pixel()).max(3);
    limits.check_picture([width, height], per_pixel, bytes.len() as u64, origin)?;
    if format == ImageFormat::Jpeg {
        let segments = jpeg::segments(bytes);
        if !segments.complete {
            return Err(broken(
                "it stops before its end-of-image marker: the file is truncated".to_owned(),
            ));
        }
        if segments.scans > MAX_SCANS {
            return Err(broken(format!(
                "it has {} scans, expected at most {MAX_SCANS}",
                segments.scans
            )));
        }
    }
    let mut data = vec![0; decoder.total_bytes() as usize];
    decoder.read_image(&mut data).map_err(fail)?;
    Ok(Raw {
        size: [width, height],
        color,
        data,
        animated: match format {
            ImageFormat::Png => upright::is_animated_png(bytes),
            // The flag in the extended header.
            ImageFormat::WebP => {
                bytes.get(12..16) == Some(b"VP8X") && bytes.get(20).is_some_and(|b| b & 2 != 0)
            }
            _ => false,
        },
    })
}

/// The orientation that a file asks for. A damaged tag is no reason to lose the picture.
fn orientation(bytes: &[u8], format: ImageFormat) -> Option<Orientation> {
    if format == ImageFormat::Png {
        return upright::of_png(bytes);
    }
    let mut decoder = ImageReader::with_format(Cursor::new(bytes), format)
        .into_decoder()
        .ok()?;
    let exif = decoder.exif_metadata().ok().flatten();
    exif.and_then(|block| upright::of_exif(&block)).or_else(|| {
        let xmp = decoder.xmp_metadata().ok().flatten();
        xmp.and_then(|packet| upright::of_xmp(&packet))
    })
}

/// Raw decoder output as RGB and whether any pixel is not fully opaque; `None` for a kind of pixel that no 8- or 16-bit file has.
///
/// Everything happens in place where pixels do not grow: a large picture is in memory once.
fn to_rgb(
    mut data: Vec<u8>,
    color: ColorType,
    as_pillow: bool,
    format: ImageFormat,
) -> Option<(Vec<u8>, bool)> {
    match color {
        ColorType::Rgb8 => return Some((data, false)),
        ColorType::L8 | ColorType::La8 | ColorType::Rgba8 => {}
        ColorType::L16 | ColorType::La16 | ColorType::Rgb16 | ColorType::Rgba16 => {
            for i in 0..data.len() / 2 {
                data[i] = (u16::from_ne_bytes([data[2 * i], data[2 * i + 1]]) >> 8) as u8;
            }
            data.truncate(data.len() / 2);
        }
        _ => return None,
    }
    let n_channels = usize::from(color.channel_count());
    let mut transparent = false;
    if color.has_alpha() {
        let alpha = |pixel: &[u8]| pixel[n_channels - 1];
        // Some programs write bitmaps with a fourth channel that they never fill.
        let is_unused = format == ImageFormat::Bmp
            && data.chunks_exact(n_channels).all(|pixel| alpha(pixel) == 0);
        for pixel in data.chunks_exact_mut(n_channels) {
            let a = u32::from(alpha(pixel));
            if a != 255 && !is_unused {
                transparent = true;
                if !as_pillow {
                    for level in &mut pixel[..n_channels - 1] {
                        *level = ((u32::from(*level) * a + 255 * (255 - a) + 127) / 255) as u8;
                    }
                }
            }
        }
    }
    if n_channels < 3 {
        let grey = data.chunks_exact(n_channels);
        return Some((grey.flat_map(|pixel| [pixel[0]; 3]).collect(), transparent));
    }
    if n_channels == 4 {
        for i in 0..data.len() / 4 {
            data.copy_within(4 * i..4 * i + 3, 3 * i);
        }
        data.truncate(data.len() / 4 * 3);
    }
    Some((data, transparent))
}

/// The picture turned upright; `None` when the pixels are too few.
fn orient(width: u32, height: u32, pixels: Vec<u8>, orientation: Orientation) -> Option<Rgb8> {
    let mut image = DynamicImage::ImageRgb8(RgbImage::from_raw(width, height, pixels)?);
    image.apply_orientation(orientation);
    let (width, height) = (image.width() as usize, image.height() as usize);
    let mut pixels = image.into_rgb8().into_raw();
    pixels.truncate(3 * width * height);
    Rgb8::new(width, height, pixels).ok()
}
