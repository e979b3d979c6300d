//! The directories of a TIFF file, and of EXIF, which has the same form.

/// A file or block of tags in either byte order, with 32-bit offsets or BigTIFF's 64-bit ones.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Container<'a> {
    bytes: &'a [u8],
    is_big_endian: bool,
    /// Whether it is a BigTIFF.
    is_big: bool,
}

/// A directory of tags.
#[derive(Debug, Clone)]
pub(crate) struct Directory {
    entries: Vec<Entry>,
    /// The offset of the next directory, or 0.
    pub(crate) next: u64,
    /// Bytes that it takes, without values that are stored elsewhere.
    pub(crate) len: usize,
}

/// A tag with its values.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    tag: u16,
    kind: u16,
    count: usize,
    /// Where the entry is.
    pub(crate) start: usize,
    /// Where the values are, in the entry itself or elsewhere.
    pub(crate) at: usize,
}

impl<'a> Container<'a> {
    /// Reads the header; also returns where the offset of the first directory is.
    pub(crate) fn open(bytes: &'a [u8]) -> Option<(Self, usize)> {
        let (is_big_endian, is_big) = match bytes.get(..4)? {
            b"II*\0" => (false, false),
            b"MM\0*" => (true, false),
            b"II+\0" => (false, true),
            b"MM\0+" => (true, true),
            _ => return None,
        };
        let container = Self {
            bytes,
            is_big_endian,
            is_big,
        };
        Some((container, if is_big { 8 } else { 4 }))
    }

    /// Bytes of an offset.
    pub(crate) fn offset_len(self) -> usize {
        if self.is_big { 8 } else { 4 }
    }

    /// An unsigned number of up to 8 bytes.
    pub(crate) fn number(self, at: usize, len: usize) -> Option<u64> {
        let bytes = self.bytes.get(at..at.checked_add(len)?)?;
        let add = |sum: u64, byte: &u8| sum << 8 | u64::from(*byte);
        Some(match self.is_big_endian {
            true => bytes.iter().fold(0, add),
            false => bytes.iter().rev().fold(0, add),
        })
    }

    /// The bytes of a number in this file's order.
    pub(crate) fn to_bytes(self, number: u64, len: usize) -> Vec<u8> {
        let mut bytes = number.to_le_bytes()[..len].to_vec();
        if self.is_big_endian {
            bytes.reverse();
        }
        bytes
    }

    /// The bytes of an entry with values `part` of `entry`, which are stored where they are.
    pub(crate) fn part(self, entry: Entry, part: std::ops::Range<usize>) -> Option<Vec<u8>> {
        let len = size_of(entry.kind)?;
        let at = entry.at + len * part.start;
        let value = match len * part.len() <= self.offset_len() {
            true => self.bytes.get(at..at + len * part.len())?.to_vec(),
            false => self.to_bytes(at as u64, self.offset_len()),
        };
        Some(self.entry_of(entry.tag, entry.kind, part.len(), value))
    }

    /// The bytes of an entry with the tag of `entry` and one value, which is an offset or a number of 16 bits.
    pub(crate) fn single(self, entry: Entry, value: u64, is_offset: bool) -> Vec<u8> {
        let (kind, len) = match (is_offset, self.is_big) {
            (false, _) => (3, 2),
            (true, false) => (4, 4),
            (true, true) => (16, 8),
        };
        self.entry_of(entry.tag, kind, 1, self.to_bytes(value, len))
    }

    /// The bytes of an entry with the tag of `entry` and these values, and the bytes of the values, which must be at `at` in the file.
    pub(crate) fn array(self, entry: Entry, values: &[u64], at: u64) -> (Vec<u8>, Vec<u8>) {
        let (kind, len) = if self.is_big { (16, 8) } else { (4, 4) };
        let bytes: Vec<u8> = values.iter().flat_map(|&v| self.to_bytes(v, len)).collect();
        let field = match values.len() {
            1 => bytes.clone(),
            _ => self.to_bytes(at, self.offset_len()),
        };
        (self.entry_of(entry.tag, kind, values.len(), field), bytes)
    }

    fn entry_of(self, tag: u16, kind: u16, count: usize, mut value: Vec<u8>) -> Vec<u8> {
        value.resize(self.offset_len(), 0);
        [
            self.to_bytes(tag.into(), 2),
            self.to_bytes(kind.into(), 2),
            self.to_bytes(count as u64, self.offset_len()),
            value,
        ]
        .concat()
    }

    /// Reads the directory at an offset; `None` if it is not inside the file. Entries of unknown types are left out.
    pub(crate) fn directory(self, offset: u64) -> Option<Directory> {
        let at = usize::try_from(offset).ok()?;
        let (count_len, entry_len) = if self.is_big { (8, 20) } else { (2, 12) };
        let count = usize::try_from(self.number(at, count_len)?).ok()?;
        let start = at + count_len;
        let end = count.checked_mul(entry_len)?.checked_add(start)?;
        let next = self.number(end, self.offset_len())?;
        let entries = (0..count).filter_map(|i| self.entry(start + entry_len * i));
        Some(Directory {
            entries: entries.collect(),
            next,
            len: end - at + self.offset_len(),
        })
    }

    fn entry(self, start: usize) -> Option<Entry> {
        let at = start;
        let tag = self.number(at, 2)? as u16;
        let kind = self.number(at + 2, 2)? as u16;
        let count = usize::try_from(self.number(at + 4, self.offset_len())?).ok()?;
        let field = at + 4 + self.offset_len();
        let len = size_of(kind)?.checked_mul(count)?;
        let at = match len <= self.offset_len() {
            true => field,
            false => usize::try_from(self.number(field, self.offset_len())?).ok()?,
        };
        // The values must be inside the file.
        (at.checked_add(len)? <= self.bytes.len()).then_some(Entry {
            tag,
            kind,
            count,
            start,
            at,
        })
    }

    /// Unsigned values of a tag; of signed types only values from 0.
    pub(crate) fn numbers(self, entry: Entry) -> Option<Vec<u64>> {
        let len = match entry.kind {
            1 | 3 | 4 | 6 | 8 | 9 | 13 | 16 | 17 | 18 => size_of(entry.kind)?,
            _ => return None,
        };
        let sign = 1 << (8 * len - 1);
        (0..entry.count)
            .map(|i| {
                let number = self.number(entry.at + len * i, len)?;
                (!matches!(entry.kind, 6 | 8 | 9 | 17) || number < sign).then_some(number)
            })
            .collect()
    }

    /// Values of a tag of any numeric type.
    pub(crate) fn floats(self, entry: Entry) -> Option<Vec<f64>> {
        let len = size_of(entry.kind)?;
        let value = |i: usize| {
            let number = self.number(entry.at + len * i, len)?;
            match entry.kind {
                1 | 3 | 4 | 16 => Some(number as f64),
                6 => Some(f64::from(number as i8)),
                8 => Some(f64::from(number as i16)),
                9 => Some(f64::from(number as i32)),
                17 => Some(number as i64 as f64),
                11 => Some(f64::from(f32::from_bits(number as u32))),
                12 => Some(f64::from_bits(number)),
                _ => None,
            }
        };
        (0..entry.count).map(value).collect()
    }

    /// The bytes of a tag of bytes or text.
    pub(crate) fn bytes(self, entry: Entry) -> Option<&'a [u8]> {
        let has_bytes = matches!(entry.kind, 1 | 2 | 6 | 7);
        has_bytes.then(|| &self.bytes[entry.at..entry.at + entry.count])
    }
}

impl Directory {
    /// The first entry of a tag.
    pub(crate) fn entry(&self, tag: u16) -> Option<Entry> {
        self.entries.iter().copied().find(|entry| entry.tag == tag)
    }
}

/// Bytes of a value.
fn size_of(kind: u16) -> Option<usize> {
    Some(match kind {
        1 | 2 | 6 | 7 => 1,
        3 | 8 => 2,
        4 | 9 | 11 | 13 => 4,
        5 | 10 | 12 | 16 | 17 | 18 => 8,
        _ => return None,
    })
}
