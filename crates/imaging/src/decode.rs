//! Decodes image files within limits.

use std::{
    fs::{self, File},
    io::{Cursor, Read as _},
    path::Path,
};

use image::{
    ColorType, DynamicImage, ImageDecoder, ImageFormat, ImageReader, RgbImage,
    metadata::Orientation,
};

use crate::{
    Conversions, Depth, Image, ImagingError, Limits, Reading, Result, Rgb8, gif, jpeg, kind,
    upright,
};

/// Largest number of passes over a picture. Encoders write fewer, and each costs as much as a whole picture.
const MAX_SCANS: usize = 100;

/// Memory limit of a decoder besides the picture.
const BESIDES: u64 = 64 << 20;

/// A decoded picture and properties of its file.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Decoded {
    /// The picture, upright, in the channels and depth that were asked for.
    pub image: Image,
    /// The format, recognised by content: `PNG`, `JPEG`, `GIF`, `WebP`, `BMP`, ..
    pub format: &'static str,
    /// Number of channels in the file, alpha included.
    pub channels: usize,
    /// The depth of the file's samples.
    pub depth: Depth,
    /// Whether the last channel of the file is alpha.
    pub has_alpha: bool,
    /// Whether a pixel was not fully opaque, so the picture was composed on the background.
    pub transparent: bool,
    /// Whether red, green and blue are equal in every pixel.
    pub grey: bool,
    /// Whether EXIF or XMP asked for a rotation or reflection, which was applied.
    pub reoriented: bool,
    /// Whether the file is an animation, of which this is the first frame.
    pub animated: bool,
    /// Number of pages in the file.
    pub pages: usize,
}

impl Decoded {
    /// The conversions of this picture, as 0 or 1 each.
    #[must_use]
    pub fn conversions(&self) -> Conversions {
        Conversions {
            transparent: usize::from(self.transparent),
            sixteen_bit: usize::from(self.depth == Depth::U16 && self.image.depth() == Depth::U8),
            reoriented: usize::from(self.reoriented),
            animated: usize::from(self.animated),
        }
    }
}

/// Decodes a picture file, see [`decode_bytes`].
///
/// # Errors
/// Fails if the file cannot be read or is not a regular file, or for the same reasons as [`decode_bytes`]; the error names `path`.
pub fn decode_file(path: &Path, limits: &Limits) -> Result<Rgb8> {
    let bytes = read_image_file(path, limits)?;
    decoded_rgb8(&bytes, &path.display().to_string(), limits)
}

/// Decodes a PNG, JPEG, GIF (first frame), WebP or BMP file in memory.
///
/// The format is recognised by content. Grey is replicated and palettes are expanded. For an opaque picture that is stored upright, every
/// pixel equals that of Pillow's `convert("RGB")` ([`decode_as_pillow`]); others are decoded as people see them:
/// - Choice: transparency is composed on white. The colours under it are not meant to be seen, and are often noise.
/// - Choice: 16-bit channels keep their upper byte. Pillow does the same for colour; for grey, some of its versions clip to 255.
/// - Choice: the orientation in EXIF, or in XMP if EXIF has none, is applied. guided-diffusion ignores both.
/// - JPEG decoders differ by less than half a level on average, and by more at edges where colour is subsampled. A JPEG without an
///   end-of-image marker is truncated and refused.
///
/// # Errors
/// Fails if the format is unknown, the data is damaged or truncated, or the picture exceeds `limits` (checked before decoding).
pub fn decode_bytes(bytes: &[u8], limits: &Limits) -> Result<Rgb8> {
    decoded_rgb8(bytes, "picture in memory", limits)
}

/// Like [`decode_bytes`], but exactly what `PIL.Image.open(..).convert("RGB")` returns: transparency is dropped, which shows the colours under
/// it, and the orientation is ignored. The reference implementations read images this way; the parity tests use it.
///
/// # Errors
/// Fails for the same reasons as [`decode_bytes`].
pub fn decode_as_pillow(bytes: &[u8], limits: &Limits) -> Result<Rgb8> {
    let reading = Reading {
        as_pillow: true,
        ..Reading::rgb8(*limits)
    };
    rgb8(reading.decode(bytes, "picture in memory", 0)?)
}

fn decoded_rgb8(bytes: &[u8], origin: &str, limits: &Limits) -> Result<Rgb8> {
    rgb8(Reading::rgb8(*limits).decode(bytes, origin, 0)?)
}

/// The picture of a reading in 8-bit RGB.
fn rgb8(decoded: Decoded) -> Result<Rgb8> {
    Ok(Rgb8::from_image(decoded.image))
}

/// Reads a picture file; checks `limits.max_bytes` and that it is a regular file before reading.
///
/// # Errors
/// Fails if the file cannot be read, is not a regular file, or is too large.
pub fn read_image_file(path: &Path, limits: &Limits) -> Result<Vec<u8>> {
    let fail = |source| ImagingError::Read {
        path: path.to_owned(),
        source,
    };
    // Check before opening, because opening a pipe would block.
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

/// Decodes, and turns a panic of a decoder into an error: decoders are third-party code and the input may be hostile.
pub(crate) fn guarded(bytes: &[u8], origin: &str, reading: &Reading) -> Result<Decoded> {
    let limits = &reading.limits;
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
        let [width, height] = raw.size;
        let (color, animated) = (raw.color, raw.animated);
        let upright = match reading.as_pillow {
            true => Orientation::NoTransforms,
            false => raw.orientation,
        };
        let (pixels, transparent) = to_rgb(raw.data, color, reading.as_pillow, format)
            .ok_or_else(|| broken(format!("pixels of the kind {color:?} are not supported")))?;
        let image = orient(width, height, pixels, upright)
            .ok_or_else(|| broken(format!("its data does not fill {width}x{height} pixels")))?;
        Ok(Decoded {
            grey: image
                .pixels
                .chunks_exact(3)
                .all(|p| p[0] == p[1] && p[1] == p[2]),
            image: image.into(),
            format: name,
            channels: usize::from(color.channel_count()),
            depth: match color.bytes_per_pixel() / color.channel_count() {
                2 => Depth::U16,
                _ => Depth::U8,
            },
            has_alpha: color.has_alpha(),
            transparent,
            reoriented: upright != Orientation::NoTransforms,
            animated,
            pages: 1,
        })
    })
    .unwrap_or_else(|| Err(broken("the decoder panicked".to_owned())))
}

/// The output of a decoder.
pub(crate) struct Raw {
    /// Width and height.
    pub(crate) size: [u32; 2],
    pub(crate) color: ColorType,
    pub(crate) data: Vec<u8>,
    /// Whether there are more frames.
    pub(crate) animated: bool,
    /// The orientation to apply.
    pub(crate) orientation: Orientation,
}

/// Reads the header, checks the limits, then decodes the pixels.
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
    // The size is checked again below, where the error can name it.
    let mut theirs = image::Limits::no_limits();
    theirs.max_image_width = Some(limits.max_side);
    theirs.max_image_height = Some(limits.max_side);
    // Memory besides the picture: rows, colour profiles and texts, which may be compressed in the file.
    theirs.max_alloc = Some(BESIDES);
    reader.limits(theirs);
    let mut decoder = reader.into_decoder().map_err(fail)?;
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
                "it has no end-of-image marker, so the file is truncated".to_owned(),
            ));
        }
        if segments.scans > MAX_SCANS {
            return Err(broken(format!(
                "it has {} scans, expected at most {MAX_SCANS}",
                segments.scans
            )));
        }
    }
    // A damaged EXIF block is no reason to refuse the picture.
    let orientation = match format {
        ImageFormat::Png => upright::of_png(bytes),
        _ => orientation(&mut decoder),
    };
    let mut data = vec![0; decoder.total_bytes() as usize];
    decoder.read_image(&mut data).map_err(fail)?;
    Ok(Raw {
        size: [width, height],
        color,
        data,
        animated: match format {
            ImageFormat::Png => upright::is_animated_png(bytes),
            // The animation flag in the extended header.
            ImageFormat::WebP => {
                bytes.get(12..16) == Some(b"VP8X") && bytes.get(20).is_some_and(|b| b & 2 != 0)
            }
            _ => false,
        },
        orientation: orientation.unwrap_or(Orientation::NoTransforms),
    })
}

/// The orientation from EXIF, or else from XMP.
fn orientation(decoder: &mut impl ImageDecoder) -> Option<Orientation> {
    let exif = decoder.exif_metadata().ok().flatten();
    exif.and_then(|block| upright::of_exif(&block)).or_else(|| {
        let xmp = decoder.xmp_metadata().ok().flatten();
        xmp.and_then(|packet| upright::of_xmp(&packet))
    })
}

/// Converts a decoder's output to RGB, and returns whether a pixel is not fully opaque; `None` for an unsupported kind of pixel.
///
/// Works in place unless pixels grow, so that a large picture is in memory once.
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
        // Some programs write bitmaps with a fourth channel that is not alpha but unused.
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

/// Rotates the picture upright; `None` if there are too few pixels.
fn orient(width: u32, height: u32, pixels: Vec<u8>, orientation: Orientation) -> Option<Rgb8> {
    let mut image = DynamicImage::ImageRgb8(RgbImage::from_raw(width, height, pixels)?);
    image.apply_orientation(orientation);
    let (width, height) = (image.width() as usize, image.height() as usize);
    let mut pixels = image.into_rgb8().into_raw();
    pixels.truncate(3 * width * height);
    Rgb8::new(width, height, pixels).ok()
}
