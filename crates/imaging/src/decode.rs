//! Decodes image files within limits.

use std::{
    fs::{self, File},
    io::{Cursor, Read as _},
    path::Path,
};

use image::{ColorType, ImageDecoder, ImageFormat, ImageReader, metadata::Orientation};

use crate::{
    Conversions, Depth, Image, ImagingError, Limits, Reading, Result, Rgb8, Samples,
    channels::{self, Layout, compact},
    gif, jpeg,
    kind::{self, Format},
    levels,
    npy::{self, Store},
    profile::{self, Profile, Stated},
    tiff, upright,
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
    /// The values that are black and white: those of the file if it states them, or all levels of the depth.
    pub range: [f64; 2],
    /// Whether floats or numbers of more than 16 bits were rounded to the type of the samples.
    pub narrowed: bool,
    /// The colour profile of the file, if it has one.
    pub profile: Option<Profile>,
    /// Number of samples outside the range that was given, which were clamped to it.
    pub clamped: usize,
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
            profile: usize::from(matches!(self.profile, Some(Profile::Converted(_)))),
            ignored_profile: usize::from(matches!(self.profile, Some(Profile::Ignored { .. }))),
            narrowed: usize::from(self.narrowed),
            clamped: usize::from(self.clamped > 0),
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

/// Decodes a picture file in memory as 8-bit RGB on white: [`Reading::rgb8`].
///
/// The format is recognised by content. Grey is replicated and palettes are expanded. For an opaque picture of 8 bits in sRGB that is stored
/// upright, every pixel equals that of Pillow's `convert("RGB")` ([`decode_as_pillow`]); others are decoded as people see them:
/// - Choice: transparency is composed on white. The colours under it are not meant to be seen, and are often noise.
/// - Choice: 16-bit channels keep their upper byte. Pillow does the same for colour; for grey, some of its versions clip to 255.
/// - Choice: the orientation in EXIF, or in XMP if EXIF has none, is applied. guided-diffusion ignores both.
/// - Choice: another colour space than sRGB is converted to it, relative to the white point.
/// - JPEG decoders differ by less than half a level on average, and by more at edges where colour is subsampled. A JPEG without an
///   end-of-image marker is truncated and refused.
///
/// # Errors
/// Fails if the format is unknown, the data is damaged or truncated, or the picture exceeds `limits` (checked before decoding).
pub fn decode_bytes(bytes: &[u8], limits: &Limits) -> Result<Rgb8> {
    decoded_rgb8(bytes, "picture in memory", limits)
}

/// Like [`decode_bytes`], but exactly what `PIL.Image.open(..).convert("RGB")` returns: transparency is dropped, which shows the colours under
/// it, and the orientation and colour profiles are ignored. The reference implementations read images this way; the parity tests use it.
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

/// Decodes a page.
pub(crate) fn decode_page(
    bytes: &[u8],
    origin: &str,
    page: usize,
    reading: &Reading,
) -> Result<Decoded> {
    guarded(bytes, origin, reading, |source, format| {
        let raw = match format {
            Format::Image(format) => {
                source.check_page(page, 1)?;
                match format {
                    ImageFormat::Gif => gif::decode(source)?,
                    _ => decode(source, format)?,
                }
            }
            Format::Tiff => tiff::decode(source, page)?,
            Format::Npy => npy::decode(source, Store::Alone, page)?,
            Format::Npz => npy::decode(source, Store::Archive, page)?,
        };
        finish(raw, source)
    })
}

/// Counts pages.
pub(crate) fn count_pages(bytes: &[u8], origin: &str, reading: &Reading) -> Result<usize> {
    guarded(bytes, origin, reading, |source, format| match format {
        Format::Image(_) => Ok(1),
        Format::Tiff => tiff::count_pages(source),
        Format::Npy => npy::count_pages(source, Store::Alone),
        Format::Npz => npy::count_pages(source, Store::Archive),
    })
}

/// Turns a panic of a decoder into an error: decoders are third-party code and the input may be hostile.
fn guarded<T>(
    bytes: &[u8],
    origin: &str,
    reading: &Reading,
    read: impl FnOnce(&Source<'_>, Format) -> Result<T>,
) -> Result<T> {
    let Some((format, name)) = kind::readable(bytes) else {
        return Err(ImagingError::unknown(origin, bytes));
    };
    let source = Source {
        bytes,
        origin,
        format: name,
        reading,
    };
    sdft_files::guarded(|| read(&source, format))
        .unwrap_or_else(|| Err(source.broken("the decoder panicked".to_owned())))
}

/// A file in memory, and how it is read.
pub(crate) struct Source<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) origin: &'a str,
    pub(crate) format: &'static str,
    pub(crate) reading: &'a Reading,
}

impl Source<'_> {
    /// The error for a damaged file.
    pub(crate) fn broken(&self, reason: String) -> ImagingError {
        ImagingError::Broken {
            origin: self.origin.to_owned(),
            format: self.format,
            reason,
        }
    }

    /// Checks the size of a picture before it is decoded, in the form that takes most memory.
    pub(crate) fn check_size(&self, [width, height]: [u32; 2], per_pixel: usize) -> Result<()> {
        if width == 0 || height == 0 {
            return Err(self.broken(format!("it has no pixels ({width}x{height})")));
        }
        let reading = self.reading;
        let asked = reading.channels.unwrap_or(1) * reading.depth.map_or(1, Depth::bytes);
        let per_pixel = per_pixel.max(asked) as u64;
        let file = self.bytes.len() as u64;
        let limits = &reading.limits;
        limits.check_picture([width, height], per_pixel, file, self.origin)
    }

    /// Checks that a file of `pages` pages has this one.
    pub(crate) fn check_page(&self, page: usize, pages: usize) -> Result<()> {
        if page < pages {
            return Ok(());
        }
        Err(ImagingError::Page {
            origin: self.origin.to_owned(),
            page,
            pages,
        })
    }
}

/// The output of a decoder.
pub(crate) struct Raw {
    /// All channels in the file's depth.
    pub(crate) image: Image,
    pub(crate) layout: Layout,
    /// The values that are black and white, if the file states them.
    pub(crate) range: Option<[f64; 2]>,
    /// Whether the numbers of the file were rounded to this depth.
    pub(crate) narrowed: bool,
    /// What the file states about its colours.
    pub(crate) profile: Option<Stated>,
    /// The orientation to apply.
    pub(crate) orientation: Orientation,
    /// Whether there are more frames.
    pub(crate) animated: bool,
    pub(crate) pages: usize,
}

/// Converts to the channels, depth and orientation that were asked for.
fn finish(raw: Raw, source: &Source<'_>) -> Result<Decoded> {
    let reading = source.reading;
    let Raw {
        mut image, layout, ..
    } = raw;
    let depth = image.depth();
    let mut range = levels::file_range(&image, raw.range);
    let stated = raw.profile.filter(|_| !reading.as_pillow);
    let profile = stated.map(|stated| profile::apply(&stated, &mut image, layout));
    if reading.depth == Some(Depth::U8) && depth == Depth::U16 {
        // Before alpha, so that 8-bit pictures do not depend on how a transparent one was stored.
        levels::convert(&mut image, reading, range);
        range = levels::file_range(&image, None);
    }
    let transparent = channels::convert(&mut image, layout, reading, range).ok_or_else(|| {
        ImagingError::Channels {
            origin: source.origin.to_owned(),
            expected: reading.channels.unwrap_or(layout.channels),
            found: layout.to_string(),
        }
    })?;
    let narrows = depth == Depth::F32 && reading.depth.is_some_and(|to| to != Depth::F32);
    if narrows {
        let inside = Reading {
            range: None,
            ..*reading
        };
        levels::check(&mut image, &inside, range, source.origin)?;
    }
    levels::convert(&mut image, reading, range);
    if image.depth() != depth {
        range = reading.range.unwrap_or_else(|| image.depth().full_range());
    }
    let clamped = levels::check(&mut image, reading, range, source.origin)?;
    Ok(Decoded {
        grey: is_grey(&image),
        image: upright::oriented(image, raw.orientation),
        format: source.format,
        channels: layout.channels,
        depth,
        has_alpha: layout.has_alpha,
        transparent,
        reoriented: raw.orientation != Orientation::NoTransforms,
        animated: raw.animated,
        pages: raw.pages,
        profile,
        narrowed: narrows || raw.narrowed,
        range: reading.range.unwrap_or(range),
        clamped,
    })
}

/// Whether the picture has one channel, or red, green and blue are equal in every pixel.
fn is_grey(image: &Image) -> bool {
    fn equal<T: PartialEq>(values: &[T], n: usize) -> bool {
        let mut pixels = values.chunks_exact(n);
        pixels.all(|p| p[0] == p[1] && p[1] == p[2])
    }
    match (image.channels, &image.samples) {
        (1, _) => true,
        (n @ (3 | 4), Samples::U8(values)) => equal(values, n),
        (n @ (3 | 4), Samples::U16(values)) => equal(values, n),
        (n @ (3 | 4), Samples::F32(values)) => equal(values, n),
        _ => false,
    }
}

/// Reads the header, checks the limits, then decodes the pixels.
fn decode(source: &Source<'_>, format: ImageFormat) -> Result<Raw> {
    let bytes = source.bytes;
    let limits = &source.reading.limits;
    let fail = |error: image::ImageError| match error {
        image::ImageError::Limits(e) => limits.refused(source.origin, &e),
        other => source.broken(other.to_string()),
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
    source.check_size([width, height], usize::from(color.bytes_per_pixel()))?;
    let mut has_profile = false;
    if format == ImageFormat::Jpeg {
        let segments = jpeg::segments(bytes);
        if !segments.complete {
            return Err(
                source.broken("it has no end-of-image marker, so the file is truncated".to_owned())
            );
        }
        has_profile = segments.has_profile;
        if segments.scans > MAX_SCANS {
            return Err(source.broken(format!(
                "it has {} scans, expected at most {MAX_SCANS}",
                segments.scans
            )));
        }
    }
    // A damaged EXIF block is no reason to refuse the picture.
    let orientation = match (source.reading.as_pillow, format) {
        (true, _) => None,
        (false, ImageFormat::Png) => upright::of_png(bytes),
        (false, _) => orientation(&mut decoder),
    };
    let profile = match (source.reading.as_pillow, format) {
        (true, _) => None,
        (false, ImageFormat::Png) => upright::png_profile(bytes, || decoder.icc_profile().ok()?),
        // Asking for a profile reads the headers again.
        (false, ImageFormat::Jpeg) if !has_profile => None,
        (false, ImageFormat::Bmp) => None,
        (false, _) => match decoder.icc_profile() {
            Ok(Some(icc)) => Some(Stated::Icc(icc)),
            Ok(None) => has_profile.then_some(Stated::Damaged),
            Err(_) => Some(Stated::Damaged),
        },
    };
    let mut data = vec![0; decoder.total_bytes() as usize];
    decoder.read_image(&mut data).map_err(fail)?;
    let (image, layout) = native([width, height], color, data, format).ok_or_else(|| {
        source.broken(format!("pixels of the kind {color:?} are not supported"))
    })??;
    Ok(Raw {
        image,
        layout,
        range: None,
        narrowed: false,
        profile,
        animated: match format {
            ImageFormat::Png => upright::is_animated_png(bytes),
            // The animation flag in the extended header.
            ImageFormat::WebP => {
                bytes.get(12..16) == Some(b"VP8X") && bytes.get(20).is_some_and(|b| b & 2 != 0)
            }
            _ => false,
        },
        orientation: orientation.unwrap_or(Orientation::NoTransforms),
        pages: 1,
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

/// A decoder's output as a picture; `None` for an unsupported kind of pixel.
fn native(
    [width, height]: [u32; 2],
    color: ColorType,
    mut data: Vec<u8>,
    format: ImageFormat,
) -> Option<Result<(Image, Layout)>> {
    use ColorType::{L8, L16, La8, La16, Rgb8, Rgb16, Rgba8, Rgba16};
    let mut channels = usize::from(color.channel_count());
    let mut has_alpha = color.has_alpha();
    let samples = match color {
        L8 | La8 | Rgb8 | Rgba8 => {
            // Some programs write bitmaps with a fourth channel that is not alpha but unused.
            if format == ImageFormat::Bmp
                && has_alpha
                && data.iter().skip(3).step_by(4).all(|&a| a == 0)
            {
                compact(&mut data, 4, 3);
                (channels, has_alpha) = (3, false);
            }
            Samples::U8(data)
        }
        L16 | La16 | Rgb16 | Rgba16 => {
            let pairs = data.as_chunks().0.iter();
            Samples::U16(pairs.map(|&pair| u16::from_ne_bytes(pair)).collect())
        }
        _ => return None,
    };
    let layout = Layout {
        channels,
        has_alpha,
        colours: channels - usize::from(has_alpha),
    };
    // Both sides are below the limits, which are 32-bit numbers.
    let image = Image::new(width as usize, height as usize, channels, samples);
    Some(image.map(|image| (image, layout)))
}
