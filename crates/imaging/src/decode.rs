//! Files to pictures, with limits.

use std::{
    fmt,
    fs::{self, File},
    io::{Cursor, Read as _},
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use image::{
    ColorType, DynamicImage, ImageDecoder, ImageFormat, ImageReader, RgbImage,
    metadata::Orientation,
};

use crate::{ImagingError, Result, Rgb8, jpeg};

/// How large a picture may be; checked against the file's header before anything is decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Largest width and height in pixels.
    pub max_side: u32,
    /// Largest size in bytes, of the file and of the decoded pixels.
    pub max_bytes: u64,
}

impl Default for Limits {
    /// 32,768 pixels a side and 512 MiB: a photograph of 170 megapixels, and no decompression bomb.
    fn default() -> Self {
        Self {
            max_side: 32_768,
            max_bytes: 512 << 20,
        }
    }
}

/// A decoded picture and what its file was like.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Decoded {
    /// The picture, turned upright.
    pub image: Rgb8,
    /// The format told by the content: `PNG`, `JPEG`, `GIF`, `WebP` or `BMP`.
    pub format: &'static str,
    /// Some pixel was not fully opaque; its transparency was dropped.
    pub transparent: bool,
    /// Every pixel has equal red, green and blue.
    pub grey: bool,
    /// The file has 16 bits per channel, of which the upper 8 were kept.
    pub sixteen_bit: bool,
    /// The EXIF orientation asked for a rotation or reflection, which was applied.
    pub reoriented: bool,
}

/// The picture in a file. See [`decode_bytes`] for how it is decoded.
///
/// # Errors
/// - the file cannot be read or is not a regular file · see [`decode_bytes`]; the message names `path`
pub fn decode_file(path: &Path, limits: &Limits) -> Result<Rgb8> {
    let bytes = read_image_file(path, limits)?;
    Ok(decode_described(&bytes, &path.display().to_string(), limits)?.image)
}

/// The picture in the bytes of a PNG, JPEG, GIF (first frame), WebP or BMP file, as Pillow's `convert("RGB")` gives it.
///
/// The format is told by the content. Grey is replicated, palettes are expanded, and alpha is dropped, not blended.
/// - Choice: 16-bit channels keep their upper byte. Pillow does so for colour; for grey its versions differ, some clip to 255.
/// - Choice: the EXIF orientation is applied, because people look at upright pictures. guided-diffusion ignores it; files without the tag,
///   or stored upright, are the same in both.
/// - JPEG decoders differ from each other: by less than half a level on average, by more at edges where colour is subsampled. A JPEG
///   without its end marker is truncated and refused.
///
/// # Errors
/// - unknown format · damaged or truncated data · larger than `limits` (then nothing was decoded)
pub fn decode_bytes(bytes: &[u8], limits: &Limits) -> Result<Rgb8> {
    Ok(decode_described(bytes, "picture in memory", limits)?.image)
}

/// As [`decode_bytes`], with what the file was like; `origin` names the bytes in error messages.
///
/// # Errors
/// - see [`decode_bytes`]
pub fn decode_described(bytes: &[u8], origin: &str, limits: &Limits) -> Result<Decoded> {
    let (format, name) = guess_format(bytes, origin)?;
    let broken = |reason: String| ImagingError::Broken {
        origin: origin.to_owned(),
        format: name,
        reason,
    };
    // The decoders are other people's code on hostile input: a panic in one of them must not take the run down.
    catch_unwind(AssertUnwindSafe(|| {
        decode(bytes, format, name, origin, limits)
    }))
    .unwrap_or_else(|_| Err(broken("the decoder panicked".to_owned())))
}

/// The content of a picture file, refused unread when it is larger than `limits.max_bytes` or no regular file.
///
/// # Errors
/// - the file cannot be read · it is a folder, pipe or device · it is too large
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
            found: if metadata.is_dir() {
                "a folder"
            } else {
                "a pipe or device"
            },
        });
    }
    let too_large = |found: u64| ImagingError::TooLarge {
        origin: path.display().to_string(),
        found: format!("a file of {}", Bytes(found)),
        limit: Bytes(limits.max_bytes).to_string(),
    };
    if metadata.len() > limits.max_bytes {
        return Err(too_large(metadata.len()));
    }
    let mut bytes = Vec::new();
    // The file may grow while it is read.
    File::open(path)
        .and_then(|file| {
            file.take(limits.max_bytes.saturating_add(1))
                .read_to_end(&mut bytes)
        })
        .map_err(fail)?;
    if bytes.len() as u64 > limits.max_bytes {
        return Err(too_large(bytes.len() as u64));
    }
    Ok(bytes)
}

/// The format and its name, by content.
fn guess_format(bytes: &[u8], origin: &str) -> Result<(ImageFormat, &'static str)> {
    match image::guess_format(bytes) {
        Ok(ImageFormat::Png) => Ok((ImageFormat::Png, "PNG")),
        Ok(ImageFormat::Jpeg) => Ok((ImageFormat::Jpeg, "JPEG")),
        Ok(ImageFormat::Gif) => Ok((ImageFormat::Gif, "GIF")),
        Ok(ImageFormat::WebP) => Ok((ImageFormat::WebP, "WebP")),
        Ok(ImageFormat::Bmp) => Ok((ImageFormat::Bmp, "BMP")),
        other => Err(ImagingError::UnknownFormat {
            origin: origin.to_owned(),
            found: match other {
                _ if bytes.is_empty() => "no bytes at all".to_owned(),
                Ok(known) => format!("{known:?}"),
                Err(_) => format!("bytes that start {:02x?}", &bytes[..bytes.len().min(8)]),
            },
        }),
    }
}

/// Header, limits, pixels, RGB, orientation: in that order.
fn decode(
    bytes: &[u8],
    format: ImageFormat,
    name: &'static str,
    origin: &str,
    limits: &Limits,
) -> Result<Decoded> {
    let broken = |reason: String| ImagingError::Broken {
        origin: origin.to_owned(),
        format: name,
        reason,
    };
    let fail = |error: image::ImageError| match error {
        image::ImageError::Limits(e) => ImagingError::TooLarge {
            origin: origin.to_owned(),
            found: format!("the picture ({e})"),
            limit: limits.to_string(),
        },
        other => broken(other.to_string()),
    };
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut theirs = image::Limits::no_limits();
    theirs.max_image_width = Some(limits.max_side);
    theirs.max_image_height = Some(limits.max_side);
    theirs.max_alloc = Some(limits.max_bytes);
    reader.limits(theirs);
    let mut decoder = reader.into_decoder().map_err(fail)?;

    let (width, height) = decoder.dimensions();
    let color = decoder.color_type();
    if width == 0 || height == 0 {
        return Err(broken(format!("it has no pixels ({width}x{height})")));
    }
    let n_pixels = u64::from(width) * u64::from(height);
    let n_bytes = n_pixels.saturating_mul(u64::from(color.bytes_per_pixel()).max(3));
    if width.max(height) > limits.max_side || n_bytes > limits.max_bytes {
        return Err(ImagingError::TooLarge {
            origin: origin.to_owned(),
            found: format!("a picture of {width}x{height} ({})", Bytes(n_bytes)),
            limit: limits.to_string(),
        });
    }
    if format == ImageFormat::Jpeg && !jpeg::is_complete(bytes) {
        return Err(broken(
            "it stops before its end-of-image marker: the file is truncated".to_owned(),
        ));
    }

    // A damaged tag is no reason to lose the picture.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut raw = vec![0; decoder.total_bytes() as usize];
    decoder.read_image(&mut raw).map_err(fail)?;
    let (pixels, transparent) = to_rgb(raw, color)
        .ok_or_else(|| broken(format!("pixels of the kind {color:?} are not supported")))?;
    let image = orient(width, height, pixels, orientation)
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
        reoriented: orientation != Orientation::NoTransforms,
    })
}

/// Raw decoder output as RGB and whether any pixel is not fully opaque; `None` for a kind of pixel that no 8- or 16-bit file has.
fn to_rgb(raw: Vec<u8>, color: ColorType) -> Option<(Vec<u8>, bool)> {
    let levels = match color {
        ColorType::Rgb8 => return Some((raw, false)),
        ColorType::L8 | ColorType::La8 | ColorType::Rgba8 => raw,
        ColorType::L16 | ColorType::La16 | ColorType::Rgb16 | ColorType::Rgba16 => raw
            .chunks_exact(2)
            .map(|two| (u16::from_ne_bytes([two[0], two[1]]) >> 8) as u8)
            .collect(),
        _ => return None,
    };
    let n_channels = usize::from(color.channel_count());
    let n_colours = n_channels - usize::from(color.has_alpha());
    let mut pixels = Vec::with_capacity(levels.len() / n_channels * 3);
    let mut transparent = false;
    for pixel in levels.chunks_exact(n_channels) {
        transparent |= pixel[n_colours..].iter().any(|&alpha| alpha != 255);
        match n_colours {
            1 => pixels.extend([pixel[0]; 3]),
            _ => pixels.extend_from_slice(&pixel[..3]),
        }
    }
    Some((pixels, transparent))
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

impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{0}x{0} and {1}", self.max_side, Bytes(self.max_bytes))
    }
}

/// A number of bytes as people read it.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            n if n < 10_000 => write!(f, "{n} bytes"),
            n if n < 10 << 20 => write!(f, "{} KiB", n >> 10),
            n => write!(f, "{} MiB", n >> 20),
        }
    }
}
