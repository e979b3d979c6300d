//! Writes TIFF files of all kinds by hand, and reads them.

use sdft_imaging::{Decoded, Reading};

/// A tag with its type (3 for 16, 4 for 32, 16 for 64 bits, 12 for doubles as bits, 1 for bytes) and values.
pub(crate) type Tag = (u16, u16, Vec<u64>);

/// A directory, and the samples that its strips or tiles consist of. Their offsets and lengths are added as tags 273 and 279, or 324 and 325
/// if there is a tag for the width of tiles.
#[derive(Clone)]
pub(crate) struct Page {
    pub(crate) tags: Vec<Tag>,
    pub(crate) parts: Vec<Vec<u8>>,
}

pub(crate) fn page(width: u64, height: u64, tags: Vec<Tag>, parts: Vec<Vec<u8>>) -> Page {
    let mut all = vec![(256, 3, vec![width]), (257, 3, vec![height])];
    all.extend(tags);
    Page { tags: all, parts }
}

#[derive(Clone, Copy, Default)]
pub(crate) struct Writer {
    pub(crate) is_big_endian: bool,
    pub(crate) is_big: bool,
    /// The last directory is followed by the first.
    pub(crate) is_loop: bool,
}

impl Writer {
    pub(crate) fn number(self, number: u64, len: usize) -> Vec<u8> {
        match self.is_big_endian {
            true => number.to_be_bytes()[8 - len..].to_vec(),
            false => number.to_le_bytes()[..len].to_vec(),
        }
    }

    pub(crate) fn write(self, pages: &[Page]) -> Vec<u8> {
        let offset = if self.is_big { 8 } else { 4 };
        let mut out = if self.is_big_endian { b"MM" } else { b"II" }.to_vec();
        out.extend(self.number(if self.is_big { 43 } else { 42 }, 2));
        if self.is_big {
            out.extend(self.number(8, 2));
            out.extend(self.number(0, 2));
        }
        let mut link = out.len();
        let first = link;
        out.extend(vec![0; offset]);
        for page in pages {
            let mut tags = page.tags.clone();
            let tiles = tags.iter().any(|tag| tag.0 == 322);
            let places = page.parts.iter().map(|part| {
                let at = out.len() as u64;
                out.extend(part);
                (at, part.len() as u64)
            });
            let (at, len): (Vec<u64>, Vec<u64>) = places.unzip();
            let kind = if self.is_big { 16 } else { 4 };
            let numbers = if tiles { [324, 325] } else { [273, 279] };
            tags.push((numbers[0], kind, at));
            tags.push((numbers[1], kind, len));
            tags.sort_by_key(|tag| tag.0);
            let mut entries = Vec::new();
            for (tag, kind, values) in &tags {
                let len = match kind {
                    1 => 1,
                    3 => 2,
                    4 => 4,
                    _ => 8,
                };
                let mut bytes: Vec<u8> = values.iter().flat_map(|&v| self.number(v, len)).collect();
                if bytes.len() > offset {
                    let at = out.len() as u64;
                    out.extend(bytes);
                    bytes = self.number(at, offset);
                }
                bytes.resize(offset, 0);
                entries.extend(self.number((*tag).into(), 2));
                entries.extend(self.number((*kind).into(), 2));
                entries.extend(self.number(values.len() as u64, offset));
                entries.extend(bytes);
            }
            let at = self.number(out.len() as u64, offset);
            out[link..link + offset].copy_from_slice(&at);
            out.extend(self.number(tags.len() as u64, if self.is_big { 8 } else { 2 }));
            out.extend(entries);
            link = out.len();
            out.extend(vec![0; offset]);
        }
        if self.is_loop {
            let start = out[first..first + offset].to_vec();
            out[link..].copy_from_slice(&start);
        }
        out
    }
}

pub(crate) fn read(bytes: &[u8], page: usize) -> Decoded {
    let read = Reading::default().decode(bytes, "x.tif", page);
    read.unwrap_or_else(|error| panic!("{error}"))
}

pub(crate) fn error(bytes: &[u8]) -> String {
    let read = Reading::default().decode(bytes, "x.tif", 0);
    read.unwrap_err().to_string()
}

pub(crate) fn photometric(value: u64) -> Tag {
    (262, 3, vec![value])
}

pub(crate) fn bits(bits: u64, channels: usize) -> Tag {
    (258, 3, vec![bits; channels])
}

pub(crate) fn grey8(samples: &[u8]) -> Page {
    page(
        samples.len() as u64,
        1,
        vec![bits(8, 1), photometric(1)],
        vec![samples.to_vec()],
    )
}
