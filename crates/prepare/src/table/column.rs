//! Reads the values of a column page by page.

use crate::error::{EntryResult, Reason};
use std::{
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
    ops::Range,
    sync::Arc,
};

use super::{
    footer::{Chunk, Leaf, Physical},
    numbers::{Differences, Runs},
    thrift::{Problem, Read, Thrift},
};

/// Limits of a page's unpacked size: this many bytes, plus a multiple of its stored size, because images hardly compress.
const PAGE: u64 = 16 << 20;
const PAGE_RATIO: u64 = 8;

/// Limits of all unpacked pages of a table: this many bytes, plus a multiple of the file's size.
const ALL: u64 = 64 << 20;
const ALL_RATIO: u64 = 16;

/// How many bytes may still be unpacked from a table.
pub(super) struct Budget(u64);

impl Budget {
    /// The budget for a file of this length.
    pub(super) fn new(length: u64) -> Self {
        Self(ALL.saturating_add(length.saturating_mul(ALL_RATIO)))
    }

    fn charge(&mut self, bytes: u64) -> EntryResult<()> {
        match self.0.checked_sub(bytes) {
            Some(left) => {
                self.0 = left;
                Ok(())
            }
            None => Err(
                format!("the table unpacks to more than {ALL_RATIO} times its file size").into(),
            ),
        }
    }
}

/// The values of a column in a row group.
pub(super) struct Column {
    file: Arc<File>,
    codec: i64,
    physical: Physical,
    /// Offset of the next page, and the end of the pages.
    pages: Range<u64>,
    /// The definition level of a present value.
    defined: u32,
    /// Values that the remaining pages may have, nulls included.
    left: u64,
    dictionary: Option<Dictionary>,
    /// The remaining values of the current page, the next one last.
    ready: Vec<Option<Value>>,
    page: Arc<Vec<u8>>,
}

/// A value: a range of its page or of the dictionary, or assembled bytes.
enum Value {
    Page(Range<usize>),
    Word(usize),
    Made(Vec<u8>),
}

/// The values that pages refer to by number.
struct Dictionary {
    bytes: Vec<u8>,
    words: Vec<Range<u32>>,
}

#[derive(Debug, Default)]
struct Header {
    kind: i64,
    uncompressed: u64,
    compressed: u64,
    crc: Option<u32>,
    values: u64,
    encoding: i64,
    level_encoding: i64,
    /// For a version 2 page: lengths of both kinds of levels, and whether the values are compressed.
    levels: Option<([u64; 2], bool)>,
}

mod encoding {
    pub(super) const PLAIN: i64 = 0;
    pub(super) const PLAIN_DICTIONARY: i64 = 2;
    pub(super) const RLE: i64 = 3;
    pub(super) const DELTA_INTEGER: i64 = 5;
    pub(super) const DELTA_LENGTH: i64 = 6;
    pub(super) const DELTA: i64 = 7;
    pub(super) const RLE_DICTIONARY: i64 = 8;
}

impl Column {
    pub(super) fn new(file: &Arc<File>, chunk: Chunk, leaf: Leaf) -> Self {
        Self {
            file: Arc::clone(file),
            codec: chunk.codec,
            physical: leaf.physical,
            pages: chunk.start..chunk.start.saturating_add(chunk.length),
            defined: leaf.defined,
            left: chunk.values,
            dictionary: None,
            ready: Vec::new(),
            page: Arc::default(),
        }
    }

    /// The value of the next row: `None` after the last one, `Some(None)` for a null.
    ///
    /// Pages and assembled values count against the budget when they are unpacked, dictionary values each time they are returned.
    pub(super) fn next(&mut self, budget: &mut Budget) -> EntryResult<Option<Option<Vec<u8>>>> {
        while self.ready.is_empty() {
            if self.pages.is_empty() {
                return Ok(None);
            }
            self.open_page(budget)?;
        }
        let value = match self.ready.pop().flatten() {
            None => None,
            Some(Value::Made(bytes)) => Some(bytes),
            Some(Value::Page(range)) => Some(self.page[range].to_vec()),
            Some(Value::Word(n)) => {
                let dictionary = self.dictionary.as_ref();
                let word = dictionary.and_then(|d| {
                    let range = d.words.get(n)?;
                    Some(&d.bytes[range.start as usize..range.end as usize])
                });
                let word = word.ok_or_else(|| format!("value {n} is not in the dictionary"))?;
                budget.charge(word.len() as u64)?;
                Some(word.to_vec())
            }
        };
        Ok(Some(value))
    }

    fn read(&self, at: u64, n: usize) -> EntryResult<Vec<u8>> {
        let mut bytes = vec![0; n];
        let mut file = &*self.file;
        file.seek(SeekFrom::Start(at))
            .and_then(|_| file.read_exact(&mut bytes))
            .map_err(|e| e.to_string())?;
        Ok(bytes)
    }

    /// Reads the header of the next page and moves to its content.
    fn header(&mut self) -> EntryResult<Header> {
        // Statistics may make the header long, and its length is not known beforehand.
        let mut n = 1 << 12;
        loop {
            let left = self.pages.end - self.pages.start;
            let bytes = self.read(self.pages.start, left.min(n) as usize)?;
            let mut thrift = Thrift::new(&bytes);
            match read_header(&mut thrift) {
                Ok(header) => {
                    self.pages.start += thrift.position() as u64;
                    return Ok(header);
                }
                Err(Problem::Short) if n < left => n *= 16,
                Err(problem) => {
                    return Err(format!("a page is damaged: {}", problem.into_reason()).into());
                }
            }
        }
    }

    fn open_page(&mut self, budget: &mut Budget) -> EntryResult<()> {
        const DICTIONARY: i64 = 2;
        let header = self.header()?;
        if header.compressed > self.pages.end - self.pages.start {
            return Err("a page extends beyond its column".into());
        }
        let most = PAGE.saturating_add(header.compressed.saturating_mul(PAGE_RATIO));
        if header.uncompressed > most {
            return Err(format!(
                "a page of {} bytes claims to unpack to {}, expected at most {most}",
                header.compressed, header.uncompressed
            )
            .into());
        }
        budget.charge(header.uncompressed.max(header.compressed))?;
        let stored = self.read(self.pages.start, header.compressed as usize)?;
        self.pages.start += header.compressed;
        if header
            .crc
            .is_some_and(|crc| crc != crc32fast::hash(&stored))
        {
            return Err("a page does not match its checksum".into());
        }
        match header.kind {
            DICTIONARY => self.read_dictionary(&header, stored),
            0 | 3 => {
                self.read_values(&header, stored)?;
                let made = self.ready.iter().map(|value| match value {
                    Some(Value::Made(bytes)) => bytes.len() as u64,
                    _ => 0,
                });
                budget.charge(made.sum())
            }
            // Index pages and unknown page types contain no values.
            _ => Ok(()),
        }
    }

    fn read_dictionary(&mut self, header: &Header, stored: Vec<u8>) -> EntryResult<()> {
        let bytes = unpack(self.codec, stored, header.uncompressed)?;
        let mut words = Vec::new();
        let mut at = 0;
        for _ in 0..header.values {
            let range =
                plain(&bytes, &mut at, self.physical).ok_or("the dictionary is truncated")?;
            words.push(range.start as u32..range.end as u32);
        }
        self.dictionary = Some(Dictionary { bytes, words });
        Ok(())
    }

    /// Unpacks a page and locates its values.
    fn read_values(&mut self, header: &Header, mut stored: Vec<u8>) -> EntryResult<()> {
        let short = || Reason::from("a page is truncated");
        // Levels, then values. In version 2 the levels are never compressed.
        let (levels, page) = match header.levels {
            Some(([repeated, defined], packed)) => {
                let n = repeated.saturating_add(defined);
                let n = usize::try_from(n).ok().filter(|&n| n <= stored.len());
                let values = stored.split_off(n.ok_or_else(short)?);
                let left = header.uncompressed.checked_sub(stored.len() as u64);
                let left = left.ok_or_else(short)?;
                let page = match packed {
                    true if left > 0 => unpack(self.codec, values, left)?,
                    _ => values,
                };
                (stored.split_off(repeated as usize), page)
            }
            None => {
                let mut page = unpack(self.codec, stored, header.uncompressed)?;
                if self.defined == 0 {
                    (Vec::new(), page)
                } else {
                    if header.level_encoding != encoding::RLE {
                        return Err(format!(
                            "levels have encoding {}, expected {}",
                            header.level_encoding,
                            encoding::RLE
                        )
                        .into());
                    }
                    let n = page.first_chunk().ok_or_else(short)?;
                    let n = u32::from_le_bytes(*n) as usize;
                    let n = n.checked_add(4).filter(|&n| n <= page.len());
                    let rest = page.split_off(n.ok_or_else(short)?);
                    (page.split_off(4), rest)
                }
            }
        };
        // A few bits may encode any number of rows, but there are no more than the table has.
        let left = self.left.checked_sub(header.values);
        self.left = left.ok_or("a page has more values than its column")?;
        let values = usize::try_from(header.values).map_err(|_| short())?;
        let mut there = Vec::new();
        let mut n = values;
        if self.defined > 0 {
            let width = u32::BITS - self.defined.leading_zeros();
            let mut levels = Runs::new(&levels, width)?;
            for _ in 0..values {
                there.push(levels.next()? == self.defined);
            }
            n = there.iter().filter(|&&there| there).count();
        }
        let mut found = locate(&page, header.encoding, n, self.physical)?.into_iter();
        self.ready = match self.defined {
            0 => found.map(Some).collect(),
            _ => {
                let next = |there: bool| if there { found.next() } else { None };
                there.into_iter().map(next).collect()
            }
        };
        self.ready.reverse();
        self.page = Arc::new(page);
        Ok(())
    }
}

/// Locates the `n` values of a page.
fn locate(page: &[u8], way: i64, n: usize, physical: Physical) -> EntryResult<Vec<Value>> {
    let short = || Reason::from("a page is truncated");
    let mut found = Vec::new();
    match way {
        encoding::PLAIN => {
            let mut at = 0;
            for _ in 0..n {
                let value = plain(page, &mut at, physical).ok_or_else(short)?;
                found.push(Value::Page(value));
            }
        }
        encoding::PLAIN_DICTIONARY | encoding::RLE_DICTIONARY if n > 0 => {
            let (&width, rest) = page.split_first().ok_or_else(short)?;
            let mut words = Runs::new(rest, u32::from(width))?;
            for _ in 0..n {
                found.push(Value::Word(words.next()? as usize));
            }
        }
        encoding::DELTA_INTEGER if n > 0 && physical.width().is_some() => {
            let mut numbers = Differences::new(page)?;
            for _ in 0..n {
                let number = numbers.next()?.ok_or_else(short)?;
                found.push(Value::Made(number.to_le_bytes().to_vec()));
            }
        }
        encoding::DELTA_LENGTH if n > 0 => {
            for range in lengths(page, n)? {
                found.push(Value::Page(range));
            }
        }
        encoding::DELTA if n > 0 => {
            let mut prefixes = Differences::new(page)?;
            let rest = prefixes.clone().rest()?;
            // Each value begins with a prefix of the previous one. Together they may not exceed the size limit of a page.
            let (mut last, mut total) = (Vec::new(), 0);
            for range in lengths(rest, n)? {
                let shared = prefixes.next()?.and_then(|n| usize::try_from(n).ok());
                let shared = shared.and_then(|n| last.get(..n)).ok_or_else(short)?;
                let value = [shared, &rest[range]].concat();
                total += value.len();
                if total > PAGE as usize + PAGE_RATIO as usize * page.len() {
                    return Err(format!("a page of {} bytes unpacks to {total}", page.len()).into());
                }
                last.clone_from(&value);
                found.push(Value::Made(value));
            }
        }
        encoding::PLAIN_DICTIONARY | encoding::RLE_DICTIONARY => {}
        encoding::DELTA_INTEGER | encoding::DELTA_LENGTH | encoding::DELTA if n == 0 => {}
        other => {
            return Err(format!("values have encoding {other}, which is not supported").into());
        }
    }
    Ok(found)
}

/// Locates `n` values whose lengths come first, delta-encoded.
fn lengths(bytes: &[u8], n: usize) -> EntryResult<Vec<Range<usize>>> {
    let mut lengths = Differences::new(bytes)?;
    if lengths.left() != n as u64 {
        return Err(format!("{} lengths for {n} values", lengths.left()).into());
    }
    let mut at = bytes.len() - lengths.clone().rest()?.len();
    let mut found = Vec::new();
    while let Some(length) = lengths.next()? {
        let end = usize::try_from(length).ok().and_then(|n| at.checked_add(n));
        let end = end.filter(|&end| end <= bytes.len());
        let end = end.ok_or("a value extends beyond its page")?;
        found.push(at..end);
        at = end;
    }
    Ok(found)
}

/// Locates a value, with a length prefix if its length varies, and advances `at` past it.
fn plain(bytes: &[u8], at: &mut usize, physical: Physical) -> Option<Range<usize>> {
    let (start, length) = match physical.width() {
        Some(width) => (*at, width),
        None => {
            let length = bytes.get(*at..)?.first_chunk()?;
            (*at + 4, u32::from_le_bytes(*length) as usize)
        }
    };
    let end = start.checked_add(length)?;
    if end > bytes.len() {
        return None;
    }
    *at = end;
    Some(start..end)
}

/// Decompresses `size` bytes.
fn unpack(codec: i64, stored: Vec<u8>, size: u64) -> EntryResult<Vec<u8>> {
    let size = usize::try_from(size).map_err(|_| "a page is too long".to_owned())?;
    let failed =
        |e: &dyn std::fmt::Display| Reason::from(format!("a page cannot be unpacked: {e}"));
    let out = match codec {
        0 => stored,
        1 => {
            // Check the length that snappy states before allocating it.
            let stated = snap::raw::decompress_len(&stored).map_err(|e| failed(&e))?;
            if stated != size {
                return Err(failed(&format!("{stated} bytes, expected {size}")));
            }
            let mut decoder = snap::raw::Decoder::new();
            decoder.decompress_vec(&stored).map_err(|e| failed(&e))?
        }
        2 => {
            let mut out = Vec::new();
            let decoder = flate2::read::MultiGzDecoder::new(stored.as_slice());
            io::Read::take(decoder, size as u64 + 1)
                .read_to_end(&mut out)
                .map_err(|e| failed(&e))?;
            out
        }
        6 => zstd::bulk::decompress(&stored, size).map_err(|e| failed(&e))?,
        other => {
            let name = match other {
                3 => "LZO",
                4 => "Brotli",
                5 | 7 => "LZ4",
                _ => "an unknown codec",
            };
            return Err(format!(
                "its pages are compressed with {name}, expected none, Snappy, gzip or zstd"
            )
            .into());
        }
    };
    match out.len() {
        found if found == size => Ok(out),
        found => Err(failed(&format!("{found} bytes, expected {size}"))),
    }
}

fn read_header(at: &mut Thrift<'_>) -> Read<Header> {
    let mut header = Header::default();
    at.fields(|at, id, _| {
        match id {
            1 => header.kind = at.int()?,
            2 => header.uncompressed = at.size()?,
            3 => header.compressed = at.size()?,
            4 => header.crc = Some(at.int()? as u32),
            5 => at.fields(|at, id, _| {
                match id {
                    1 => header.values = at.size()?,
                    2 => header.encoding = at.int()?,
                    3 => header.level_encoding = at.int()?,
                    _ => return Ok(false),
                }
                Ok(true)
            })?,
            7 => at.fields(|at, id, _| {
                match id {
                    1 => header.values = at.size()?,
                    _ => return Ok(false),
                }
                Ok(true)
            })?,
            8 => {
                // The default is compressed.
                let (mut levels, mut packed) = ([0; 2], true);
                at.fields(|at, id, kind| {
                    match id {
                        1 => header.values = at.size()?,
                        4 => header.encoding = at.int()?,
                        5 => levels[1] = at.size()?,
                        6 => levels[0] = at.size()?,
                        7 => {
                            packed = kind == super::thrift::kind::TRUE;
                            return Ok(false);
                        }
                        _ => return Ok(false),
                    }
                    Ok(true)
                })?;
                header.levels = Some((levels, packed));
            }
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(header)
}
