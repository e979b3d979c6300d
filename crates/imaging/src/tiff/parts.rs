//! Decompresses the strips and tiles of a page.

use std::{
    borrow::Cow,
    io::{Cursor, Read, Seek, SeekFrom},
};

use tiff::decoder::Decoder;

use super::{BLACK_IS_ZERO, Form, JPEG, LZW, Tags, lzw, tag};
use crate::{ImagingError, Result, decode::Source, jpeg};

/// Most bytes of samples for each compressed one; LZW reaches most.
const MOST_PER_BYTE: u64 = 1400;

/// Decompresses the samples of a page, plane after plane or pixel after pixel.
pub(super) fn samples(
    form: &Form,
    tags: Tags<'_>,
    [offset, shift]: [u64; 2],
    source: &Source<'_>,
) -> Result<Vec<u8>> {
    let fail = |error: tiff::TiffError| match error {
        tiff::TiffError::IoError(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
            truncated(source)
        }
        other => source.broken(other.to_string()),
    };
    let stored = check_parts(form, tags, shift, source)?;
    let mut limits = tiff::decoder::Limits::default();
    let (planes, channels) = match form.is_planar {
        true => (form.channels, 1),
        false => (1, form.channels),
    };
    let bits = u64::from(form.width) * form.bits * channels as u64;
    let expected = bits.div_ceil(8) * u64::from(form.height);
    let total = expected.saturating_mul(planes as u64);
    let most = match form.compression {
        1 => stored,
        _ => stored.saturating_mul(MOST_PER_BYTE),
    };
    if total > most {
        return Err(source.broken(format!(
            "its {stored} stored bytes are too few for {total} bytes of samples, so the file is truncated"
        )));
    }
    let mut bytes = vec![0; total as usize];
    for (plane, bytes) in bytes.chunks_exact_mut(expected as usize).enumerate() {
        let file = Patched::new(source, form, tags, [offset, shift], plane)?;
        limits.intermediate_buffer_size = file.file.get_ref().len();
        let mut decoder = Decoder::new(file)
            .map_err(fail)?
            .with_limits(limits.clone());
        let layout = decoder.image_buffer_layout().map_err(fail)?;
        if layout.complete_len as u64 != expected {
            return Err(source.broken(format!(
                "its samples take {} bytes, expected {expected}",
                layout.complete_len
            )));
        }
        decoder.read_image_bytes(bytes).map_err(fail)?;
    }
    Ok(bytes)
}

pub(super) fn truncated(source: &Source<'_>) -> ImagingError {
    source.broken("it ends within its samples, so the file is truncated".to_owned())
}

/// Checks that all strips and tiles are inside the file, and those of JPEG have no more pixels than the picture. Returns their bytes.
fn check_parts(form: &Form, tags: Tags<'_>, shift: u64, source: &Source<'_>) -> Result<u64> {
    let pairs = [
        (tag::STRIP_OFFSETS, tag::STRIP_LENGTHS),
        (tag::TILE_OFFSETS, tag::TILE_LENGTHS),
    ];
    let picture = u64::from(form.width) * u64::from(form.height);
    let tile = |tag: u16| tags.number(tag).unwrap_or(0);
    let most = picture.max(tile(tag::TILE_WIDTH) * tile(tag::TILE_HEIGHT));
    let mut stored = 0_u64;
    for (offsets, lengths) in pairs {
        let offsets = tags.numbers(offsets).unwrap_or_default();
        let lengths = tags.numbers(lengths).unwrap_or_default();
        for (&at, &len) in offsets.iter().zip(&lengths) {
            let from = at.saturating_add(shift);
            let to = usize::try_from(from.saturating_add(len)).unwrap_or(usize::MAX);
            let part = usize::try_from(from).ok();
            let part = part.and_then(|from| source.bytes.get(from..to));
            let part = part.ok_or_else(|| truncated(source))?;
            stored = stored.saturating_add(len);
            if form.compression != JPEG {
                continue;
            }
            let size = jpeg::frame(part);
            // Blocks of up to 32 x 32 pixels may extend beyond the picture.
            if size.is_none_or(|[w, h]| u64::from(w) * u64::from(h) > most + 64 * 1024) {
                return Err(source.broken(format!(
                    "a JPEG part of it has {size:?} pixels, expected at most {most}"
                )));
            }
        }
    }
    Ok(stored)
}

/// The file with a few bytes changed: its first directory is that of the page, and its interpretation is grey, so that the decoder returns
/// the samples as they are stored. Of planes it has one, because the decoder does not find all tiles of the others. Parts of LZW are
/// decompressed.
struct Patched<'a> {
    file: Cursor<Cow<'a, [u8]>>,
    patches: Vec<(u64, Vec<u8>)>,
}

impl<'a> Patched<'a> {
    fn new(
        source: &Source<'a>,
        form: &Form,
        tags: Tags<'_>,
        [offset, shift]: [u64; 2],
        plane: usize,
    ) -> Result<Self> {
        let container = tags.container;
        let len = container.offset_len();
        let mut patches = vec![(len as u64, container.to_bytes(offset, len))];
        let mut set = |tag: u16, value: u64, is_offset: bool| {
            if let Some(entry) = tags.directory.entry(tag) {
                let bytes = container.single(entry, value, is_offset);
                patches.push((entry.start as u64, bytes));
            }
        };
        set(tag::PHOTOMETRIC, BLACK_IS_ZERO, false);
        if shift > 0 {
            let start = tags.number(tag::STRIP_OFFSETS).unwrap_or(0);
            set(tag::STRIP_OFFSETS, start + shift, true);
        }
        if form.compression == LZW {
            set(tag::COMPRESSION, 1, false);
        }
        if form.is_planar && form.channels > 1 {
            set(tag::CHANNELS, 1, false);
            set(tag::PLANAR, 1, false);
            let mut keep = |tag: u16, part: std::ops::Range<usize>| {
                let entry = tags.directory.entry(tag);
                if let Some((entry, bytes)) =
                    entry.and_then(|e| Some((e, container.part(e, part)?)))
                {
                    patches.push((entry.start as u64, bytes));
                }
            };
            keep(tag::BITS, 0..1);
            keep(tag::SAMPLE_FORMAT, 0..1);
            keep(tag::EXTRA, 0..0);
            for tag in [
                tag::STRIP_OFFSETS,
                tag::STRIP_LENGTHS,
                tag::TILE_OFFSETS,
                tag::TILE_LENGTHS,
            ] {
                let n = tags.numbers(tag).map_or(0, |all| all.len() / form.channels);
                keep(tag, plane * n..(plane + 1) * n);
            }
        }
        let mut bytes = Cow::Borrowed(source.bytes);
        if form.compression == LZW {
            let more = lzw::decompress(form, tags, plane, source)?;
            bytes.to_mut().extend(more.bytes);
            patches.extend(more.patches);
        }
        Ok(Self {
            file: Cursor::new(bytes),
            patches,
        })
    }
}

impl Read for Patched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let start = self.file.position();
        let n = self.file.read(buffer)?;
        for (at, patch) in &self.patches {
            for (at, &byte) in (*at..).zip(patch) {
                if let Some(i) = at.checked_sub(start)
                    && i < n as u64
                {
                    buffer[i as usize] = byte;
                }
            }
        }
        Ok(n)
    }
}

impl Seek for Patched<'_> {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        self.file.seek(to)
    }
}
