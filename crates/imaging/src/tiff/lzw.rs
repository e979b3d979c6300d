//! Decompresses strips and tiles of LZW, as a file that has them without compression.

use weezl::{BitOrder, LzwStatus, decode::Configuration};

use super::{Form, Tags, parts::truncated, tag};
use crate::{Result, decode::Source};

/// Bytes of padding in tiles that are read regardless of the size of the picture.
const MOST_PADDING: usize = 64 << 20;

/// What follows the file: decompressed parts, and where they are.
pub(super) struct Appended {
    pub(super) bytes: Vec<u8>,
    /// Places and bytes of the directory's entries that change.
    pub(super) patches: Vec<(u64, Vec<u8>)>,
}

/// Decompresses the strips or tiles; of planes, those of `plane`.
///
/// The decoder of the crate `tiff` reads LZW row by row, and takes some tiles with padding for truncated ones.
///
/// # Errors
/// Invalid codes or too few of them; tiles that are far larger than the picture.
pub(super) fn decompress(
    form: &Form,
    tags: Tags<'_>,
    plane: usize,
    source: &Source<'_>,
) -> Result<Appended> {
    let [width, height] = [form.width, form.height].map(|side| side as usize);
    let (planes, channels) = match form.is_planar {
        true => (form.channels, 1),
        false => (1, form.channels),
    };
    let bits = form.bits as usize * channels;
    let picture = (width * bits).div_ceil(8) * height;
    let most = picture.saturating_mul(4).saturating_add(MOST_PADDING);
    let container = tags.container;
    let mut out = Appended {
        bytes: Vec::new(),
        patches: Vec::new(),
    };
    let side = |tag: u16| tags.side(tag).map_or(usize::MAX, |side| side as usize);
    for (offsets, lengths, part_width, rows) in [
        (
            tag::STRIP_OFFSETS,
            tag::STRIP_LENGTHS,
            width,
            side(tag::STRIP_ROWS),
        ),
        (
            tag::TILE_OFFSETS,
            tag::TILE_LENGTHS,
            side(tag::TILE_WIDTH),
            side(tag::TILE_HEIGHT),
        ),
    ] {
        let entries = tags
            .directory
            .entry(offsets)
            .zip(tags.directory.entry(lengths));
        let Some((of_offsets, of_lengths)) = entries else {
            continue;
        };
        let [offsets, lengths] =
            [of_offsets, of_lengths].map(|entry| container.numbers(entry).unwrap_or_default());
        let row = part_width.saturating_mul(bits).div_ceil(8);
        let across = width.div_ceil(part_width.max(1)).max(1);
        let (mut places, mut sizes) = (Vec::new(), Vec::new());
        let n = offsets.len() / planes;
        let parts = offsets.iter().zip(&lengths).skip(plane * n).take(n);
        for (i, (&at, &stored)) in parts.enumerate() {
            let top = (i / across).saturating_mul(rows);
            let len = row.saturating_mul(rows.min(height.saturating_sub(top)));
            if len > most.saturating_sub(out.bytes.len()) {
                return Err(source.broken(format!(
                    "its tiles have more than {most} bytes, expected about {picture} for {}x{} pixels",
                    form.width, form.height
                )));
            }
            // `check_parts` found all of them inside the file.
            let part = &source.bytes[at as usize..][..stored as usize];
            let start = out.bytes.len();
            inflate(part, len, &mut out.bytes, source)?;
            places.push((source.bytes.len() + start) as u64);
            sizes.push((out.bytes.len() - start) as u64);
        }
        for (entry, numbers) in [(of_offsets, places), (of_lengths, sizes)] {
            let at = (source.bytes.len() + out.bytes.len()) as u64;
            let (changed, values) = container.array(entry, &numbers, at);
            out.patches.push((entry.start as u64, changed));
            out.bytes.extend(values);
        }
    }
    Ok(out)
}

/// Appends the first `len` bytes of a part to `out`.
fn inflate(mut part: &[u8], len: usize, out: &mut Vec<u8>, source: &Source<'_>) -> Result<()> {
    let mut decoder = Configuration::with_tiff_size_switch(BitOrder::Msb, 8)
        .with_yield_on_full_buffer(true)
        .build();
    let (start, mut filled) = (out.len(), 0);
    out.resize(start + len, 0);
    while filled < len {
        let step = decoder.decode_bytes(part, &mut out[start + filled..]);
        part = &part[step.consumed_in..];
        filled += step.consumed_out;
        match step.status {
            Ok(LzwStatus::Ok) if step.consumed_in + step.consumed_out > 0 => {}
            Ok(_) => break,
            Err(error) => return Err(source.broken(format!("its LZW data: {error}"))),
        }
    }
    match filled == len {
        true => Ok(()),
        false => Err(truncated(source)),
    }
}
