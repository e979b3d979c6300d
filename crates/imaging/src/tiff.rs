//! Decodes a page of a TIFF file.

use std::collections::HashSet;

use image::metadata::Orientation;

use crate::{
    Image, Result, Samples, alpha,
    bands::{self, Numbers},
    channels::Layout,
    decode::{Raw, Source},
    ifd::{Container, Directory},
    profile::Stated,
};

mod lzw;
mod parts;
mod tag;

/// How samples are to be understood, as numbered in the file.
const WHITE_IS_ZERO: u64 = 0;
const BLACK_IS_ZERO: u64 = 1;
const RGB: u64 = 2;
const PALETTE: u64 = 3;
const CMYK: u64 = 5;
const YCBCR: u64 = 6;

const LZW: u64 = 5;
const JPEG: u64 = 7;

/// A picture in the file.
struct Page {
    directory: Directory,
    /// Where its directory is.
    offset: u64,
}

/// The pictures of a file.
struct Pages<'a> {
    container: Container<'a>,
    pages: Vec<Page>,
    /// Number and length of the pictures of an ImageJ stack, whose only directory is that of the first.
    stack: Option<[u64; 2]>,
}

impl Pages<'_> {
    fn len(&self) -> usize {
        match self.stack {
            Some([images, _]) => usize::try_from(images).unwrap_or(usize::MAX),
            None => self.pages.len(),
        }
    }

    /// A picture, and how far its samples are behind those of its directory.
    fn get(&self, index: usize) -> (&Page, u64) {
        match self.stack {
            Some([_, len]) => (&self.pages[0], index as u64 * len),
            None => (&self.pages[index], 0),
        }
    }
}

/// Whether the file begins like one of a camera: its first picture is a preview.
pub(crate) fn is_camera_raw(start: &[u8]) -> bool {
    let Some((container, first)) = Container::open(start) else {
        return false;
    };
    if start.get(8..10) == Some(b"CR") {
        return true;
    }
    // The whole directory may not be in the first bytes, but its tags are sorted.
    let directory = container.number(first, container.offset_len());
    let entry = directory.and_then(|at| usize::try_from(at).ok()?.checked_add(2));
    let read = |at: usize, len: usize| container.number(at, len);
    entry.is_some_and(|at| {
        read(at, 2) == Some(tag::SUBFILE.into()) && read(at + 8, 4).is_some_and(|v| v & 1 == 1)
    })
}

/// Number of pictures in a file.
pub(crate) fn count_pages(source: &Source<'_>) -> Result<usize> {
    Ok(pages(source)?.len())
}

/// The pictures of a file. Thumbnails, smaller copies and masks are not counted.
fn pages<'a>(source: &Source<'a>) -> Result<Pages<'a>> {
    let broken = |reason: &str| source.broken(reason.to_owned());
    let (container, first) =
        Container::open(source.bytes).ok_or_else(|| broken("it has no header"))?;
    let mut pages = Vec::new();
    let mut offset = container
        .number(first, container.offset_len())
        .ok_or_else(|| broken("it ends within its header"))?;
    let mut seen = HashSet::new();
    let mut len = 0_usize;
    let mut any = false;
    while offset != 0 {
        if !seen.insert(offset) {
            return Err(broken("its directories form a loop"));
        }
        let directory = container
            .directory(offset)
            .ok_or_else(|| broken("a directory lies outside the file, so the file is truncated"))?;
        len = len.saturating_add(directory.len);
        if len > source.bytes.len() {
            return Err(broken("its directories overlap"));
        }
        any = true;
        let next = directory.next;
        let tags = Tags {
            container,
            directory: &directory,
        };
        if tags.has(tag::DNG) {
            return Err(broken("it is a camera raw file; convert it to TIFF or PNG"));
        }
        if tags.number(tag::SUBFILE).unwrap_or(0) & 0b101 == 0 {
            pages.push(Page { directory, offset });
        }
        offset = next;
    }
    if pages.is_empty() {
        return Err(broken(match any {
            true => {
                "it has thumbnails and masks only, as camera raw files do; convert it to TIFF or PNG"
            }
            false => "it has no pictures",
        }));
    }
    let stack = match &pages[..] {
        [page] => stack(container, page, source)?,
        _ => None,
    };
    Ok(Pages {
        container,
        pages,
        stack,
    })
}

/// Number and length of the pictures of an ImageJ stack that has one directory.
fn stack(container: Container<'_>, page: &Page, source: &Source<'_>) -> Result<Option<[u64; 2]>> {
    let tags = Tags {
        container,
        directory: &page.directory,
    };
    let text = tags.bytes(tag::DESCRIPTION).unwrap_or_default();
    let text = String::from_utf8_lossy(text);
    let lines = || text.lines().map(str::trim);
    let images = lines().find_map(|line| line.strip_prefix("images=")?.parse().ok());
    let images: u64 = match images {
        Some(n) if n > 1 && text.starts_with("ImageJ=") => n,
        _ => return Ok(None),
    };
    let one = |tag: u16| match tags.numbers(tag).as_deref() {
        Some([value]) => Some(*value),
        _ => None,
    };
    let (Some(start), Some(len)) = (one(tag::STRIP_OFFSETS), one(tag::STRIP_LENGTHS)) else {
        return Ok(None);
    };
    let end = len
        .checked_mul(images)
        .and_then(|all| all.checked_add(start));
    if len == 0 || tags.number(tag::COMPRESSION).unwrap_or(1) != 1 {
        return Ok(None);
    }
    if end.is_none_or(|end| end > source.bytes.len() as u64) {
        return Err(source.broken(format!(
            "its ImageJ stack of {images} pictures is longer than the file, so the file is truncated"
        )));
    }
    Ok(Some([images, len]))
}

/// The tags of a directory.
#[derive(Clone, Copy)]
struct Tags<'a> {
    container: Container<'a>,
    directory: &'a Directory,
}

impl<'a> Tags<'a> {
    fn has(self, tag: u16) -> bool {
        self.directory.entry(tag).is_some()
    }

    fn numbers(self, tag: u16) -> Option<Vec<u64>> {
        self.container.numbers(self.directory.entry(tag)?)
    }

    fn number(self, tag: u16) -> Option<u64> {
        self.numbers(tag)?.first().copied()
    }

    fn bytes(self, tag: u16) -> Option<&'a [u8]> {
        self.container.bytes(self.directory.entry(tag)?)
    }

    fn side(self, tag: u16) -> Option<u32> {
        u32::try_from(self.number(tag)?).ok()
    }

    /// The one value of all channels, or the error for channels that differ.
    fn same(self, tag: u16, usual: u64, what: &str, source: &Source<'_>) -> Result<u64> {
        let values = self.numbers(tag).unwrap_or_default();
        let first = values.first().copied().unwrap_or(usual);
        match values.iter().all(|&v| v == first) {
            true => Ok(first),
            false => Err(source.broken(format!("its channels differ in {what}: {values:?}"))),
        }
    }
}

/// Decodes a page.
pub(crate) fn decode(source: &Source<'_>, page: usize) -> Result<Raw> {
    let pages = pages(source)?;
    source.check_page(page, pages.len())?;
    let container = pages.container;
    let (page, shift) = pages.get(page);
    let tags = Tags {
        container,
        directory: &page.directory,
    };
    let form = Form::read(tags, source)?;
    let bytes = parts::samples(&form, tags, [page.offset, shift], source)?;
    let mut image = form.image(bytes, tags, source)?;
    let layout = form.layout(tags, image.channels);
    if layout.has_alpha && tags.number(tag::EXTRA) == Some(1) {
        match &mut image.samples {
            Samples::U8(values) => alpha::unpremultiply(values, layout.channels),
            Samples::U16(values) => alpha::unpremultiply(values, layout.channels),
            Samples::F32(values) => bands::divide_by_alpha(values, layout.channels),
        }
    }
    let limit = |tag: u16| {
        let values = container.floats(tags.directory.entry(tag)?)?;
        values.into_iter().reduce(match tag {
            tag::SAMPLE_MIN => f64::min,
            _ => f64::max,
        })
    };
    let range = match (limit(tag::SAMPLE_MIN), limit(tag::SAMPLE_MAX)) {
        (Some(low), Some(high)) if low < high && matches!(image.samples, Samples::F32(_)) => {
            Some([low, high])
        }
        _ => None,
    };
    let orientation = tags.number(tag::ORIENTATION).unwrap_or(1);
    let orientation = u8::try_from(orientation)
        .ok()
        .and_then(Orientation::from_exif);
    Ok(Raw {
        layout,
        image,
        range,
        narrowed: form.numbers.are_rounded(),
        profile: tags
            .bytes(tag::PROFILE)
            .map(|icc| Stated::Icc(icc.to_vec())),
        // Pillow applies it to this format.
        orientation: orientation.unwrap_or(Orientation::NoTransforms),
        animated: false,
        pages: pages.len(),
    })
}

/// How the samples of a page are stored.
struct Form {
    width: u32,
    height: u32,
    channels: usize,
    numbers: Numbers,
    bits: u64,
    photometric: u64,
    is_planar: bool,
    compression: u64,
}

impl Form {
    fn read(tags: Tags<'_>, source: &Source<'_>) -> Result<Self> {
        let broken = |reason: String| source.broken(reason);
        let side = |tag: u16, what: &str| {
            let side = tags.side(tag);
            side.ok_or_else(|| broken(format!("it does not state its {what}")))
        };
        let (width, height) = (side(tag::WIDTH, "width")?, side(tag::HEIGHT, "height")?);
        let channels = tags.number(tag::CHANNELS).unwrap_or(1);
        let bits = tags.same(tag::BITS, 1, "bits", source)?;
        let format = tags.same(tag::SAMPLE_FORMAT, 1, "format", source)?;
        let numbers = Numbers::of(format, bits).ok_or_else(|| {
            let kind = match format {
                1 | 4 => "unsigned integers",
                2 => "signed integers",
                3 => "floats",
                5 | 6 => "complex numbers",
                _ => "an unknown kind",
            };
            broken(format!(
                "samples of {bits} bits, {kind}, are not supported; expected 1, 2, 4, 8, 16, 32 or 64 bits"
            ))
        })?;
        let photometric = tags
            .number(tag::PHOTOMETRIC)
            .ok_or_else(|| broken("it does not state its photometric interpretation".to_owned()))?;
        let compression = tags.number(tag::COMPRESSION).unwrap_or(1);
        let form = Self {
            width,
            height,
            channels: usize::try_from(channels).unwrap_or(usize::MAX),
            numbers,
            bits,
            photometric,
            is_planar: tags.number(tag::PLANAR) == Some(2),
            compression,
        };
        form.check(tags, source)?;
        let stored = form.channels.saturating_mul((bits as usize).div_ceil(8));
        let kept = form.channels.saturating_mul(form.numbers.depth().bytes());
        source.check_size([width, height], stored.max(kept).max(form.colours()))?;
        form.check_tiles(tags, source)?;
        Ok(form)
    }

    /// Number of channels that the photometric interpretation has.
    fn colours(&self) -> usize {
        match self.photometric {
            RGB | YCBCR => 3,
            CMYK => 4,
            _ => 1,
        }
    }

    /// Refuses by name what is not supported.
    fn check(&self, tags: Tags<'_>, source: &Source<'_>) -> Result<()> {
        let bits = self.bits;
        if self.channels < self.colours() {
            return Err(source.broken(format!(
                "it has {} channels, expected {}",
                self.channels,
                self.colours()
            )));
        }
        let name = match self.photometric {
            WHITE_IS_ZERO if !self.numbers.are_levels() => {
                "white as 0 in numbers without a largest value"
            }
            PALETTE if self.channels != 1 || bits > 8 || self.numbers != Numbers::U8 => {
                "a palette of other than 1 channel of up to 8 bits"
            }
            CMYK | YCBCR if !matches!(self.numbers, Numbers::U8 | Numbers::U16) || bits < 8 => {
                "inks or chroma of other than 8 or 16 bits"
            }
            CMYK if self.channels > 4 => "inks with more channels",
            YCBCR if self.channels > 3 || self.bits > 8 => {
                "chroma of more than 3 channels of 8 bits"
            }
            YCBCR
                if self.compression != JPEG
                    && tags.numbers(tag::SUBSAMPLING).unwrap_or(vec![2, 2]) != [1, 1] =>
            {
                "subsampled chroma without JPEG compression"
            }
            WHITE_IS_ZERO | BLACK_IS_ZERO | RGB | PALETTE | CMYK | YCBCR => "",
            4 => "a transparency mask",
            8..=10 => "Lab colours",
            32_803 | 34_892 => "sensor data of a camera (raw)",
            _ => "an unknown photometric interpretation",
        };
        if !name.is_empty() {
            return Err(source.broken(format!(
                "{name} is not supported; convert it to RGB or grey"
            )));
        }
        let compression = match self.compression {
            1 | LZW | JPEG | 8 | 32_773 | 32_946 => "",
            2..=4 => "fax",
            6 => "old-style JPEG",
            34_712 | 33_003 | 33_005 => "JPEG 2000",
            34_925 => "LZMA",
            50_000 | 34_926 => "Zstandard",
            50_001 | 34_927 => "WebP",
            34_887 => "LERC",
            50_002 | 52_546 => "JPEG XL",
            _ => "unknown",
        };
        if !compression.is_empty() {
            return Err(source.broken(format!(
                "compression {} ({compression}) is not supported; expected none, LZW, Deflate, PackBits or JPEG",
                self.compression
            )));
        }
        match tags.number(tag::FILL_ORDER) {
            None | Some(1) => Ok(()),
            Some(_) => {
                Err(source
                    .broken("bits from right to left (FillOrder 2) are not supported".to_owned()))
            }
        }
    }

    /// Checks tiles, which may be larger than the picture.
    fn check_tiles(&self, tags: Tags<'_>, source: &Source<'_>) -> Result<()> {
        let sides = (tags.side(tag::TILE_WIDTH), tags.side(tag::TILE_HEIGHT));
        let (Some(width), Some(height)) = sides else {
            return Ok(());
        };
        let most = |side: u32| side.max(1).next_multiple_of(1 << 10).max(1 << 12);
        if width > most(self.width) || height > most(self.height) {
            return Err(source.broken(format!(
                "its tiles of {width}x{height} pixels are larger than the picture of {}x{}",
                self.width, self.height
            )));
        }
        Ok(())
    }

    /// Channels of the resulting picture.
    fn layout(&self, tags: Tags<'_>, channels: usize) -> Layout {
        let more = self.channels - self.colours();
        let extra = tags.numbers(tag::EXTRA);
        let has_alpha = more == 1
            && match (&extra, self.photometric) {
                (Some(kinds), _) => matches!(kinds[..], [1 | 2]),
                // Pillow reads a fourth channel as alpha if its kind is not stated.
                (None, photometric) => photometric == RGB,
            };
        Layout {
            channels,
            has_alpha,
            colours: match (self.photometric, has_alpha) {
                (_, true) => channels - 1,
                (RGB, false) => 3,
                _ => channels,
            },
        }
    }

    /// Samples as bytes in the machine's order become a picture.
    fn image(&self, bytes: Vec<u8>, tags: Tags<'_>, source: &Source<'_>) -> Result<Image> {
        let (width, height) = (self.width as usize, self.height as usize);
        let mut channels = self.channels;
        let bytes = match self.bits {
            ..8 => {
                let (rows, per_row) = match self.is_planar {
                    true => (height * channels, width),
                    false => (height, width * channels),
                };
                bands::unpack(&bytes, rows, per_row, self.bits)
            }
            _ => bytes,
        };
        let mut samples = self.numbers.samples(bytes);
        if self.is_planar && channels > 1 {
            samples = bands::interleave(&samples, channels);
        }
        match (self.photometric, &mut samples) {
            (PALETTE, Samples::U8(indices)) => {
                let map = tags.numbers(tag::COLOR_MAP).unwrap_or_default();
                samples = Samples::U8(bands::through_palette(indices, &map).ok_or_else(|| {
                    source.broken("its palette has fewer colours than are used".to_owned())
                })?);
                channels = 3;
            }
            (photometric, samples) => {
                if let (..8, Samples::U8(values)) = (self.bits, &mut *samples) {
                    let step = (255 / ((1_u16 << self.bits) - 1)) as u8;
                    values.iter_mut().for_each(|v| *v *= step);
                }
                match photometric {
                    WHITE_IS_ZERO => bands::invert_first(samples, channels),
                    CMYK => {
                        bands::from_cmyk(samples);
                        channels = 3;
                    }
                    YCBCR => bands::from_ycbcr(samples),
                    _ => {}
                }
            }
        }
        Image::new(width, height, channels, samples)
    }
}
