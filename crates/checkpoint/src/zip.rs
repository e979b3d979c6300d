//! The directory of a zip archive whose entries are not compressed, as PyTorch writes them.

use crate::error::Result;
use crate::input::Input;
use crate::short::short;
use std::collections::BTreeMap;

/// The location of an entry, and its checksum; 0 if the writer left it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) start: u64,
    pub(crate) len: u64,
    pub(crate) crc: u32,
}

impl Entry {
    /// Fails if the checksum differs.
    pub(crate) fn verify(self, input: &mut Input<'_>, name: &str) -> Result<()> {
        if self.crc == 0 {
            return Ok(());
        }
        let mut hasher = crc32fast::Hasher::new();
        input.pieces(self.start, self.len, |piece| hasher.update(piece))?;
        self.compare(hasher, input, name)
    }

    /// Like [`Self::verify`], with the checksum of bytes that were read already.
    pub(crate) fn compare(
        self,
        read: crc32fast::Hasher,
        input: &Input<'_>,
        name: &str,
    ) -> Result<()> {
        let found = read.finalize();
        if found == self.crc || self.crc == 0 {
            return Ok(());
        }
        Err(input.bad(format!(
            "{}: the file is damaged: its checksum is {found:08x}, the archive says {:08x}",
            short(name),
            self.crc
        )))
    }
}

const END: [u8; 4] = *b"PK\x05\x06";
const END64_LOCATOR: [u8; 4] = *b"PK\x06\x07";
const END64: [u8; 4] = *b"PK\x06\x06";
const DIRECTORY: [u8; 4] = *b"PK\x01\x02";
const LOCAL: [u8; 4] = *b"PK\x03\x04";

fn u16_at(b: &[u8], i: usize) -> u64 {
    u16::from_le_bytes([b[i], b[i + 1]]).into()
}

fn u32_at(b: &[u8], i: usize) -> u64 {
    u32::from_le_bytes([b[i], b[i + 1], b[i + 2], b[i + 3]]).into()
}

fn u64_at(b: &[u8], i: usize) -> u64 {
    u32_at(b, i) | u32_at(b, i + 4) << 32
}

/// All entries by name, and the name of a compressed one if there is any. Nothing is unpacked, so the sizes are those in the file.
pub(crate) fn entries(input: &mut Input<'_>) -> Result<(BTreeMap<String, Entry>, Option<String>)> {
    let (count, start, len) = end(input)?;
    // A directory entry takes at least 46 bytes.
    if count > len / 46 {
        return Err(input.bad(format!(
            "the archive claims {count} entries in a directory of {len} bytes"
        )));
    }
    let directory = input.range(start, len)?;
    let mut out = BTreeMap::new();
    let mut compressed = None;
    let mut at = 0usize;
    for _ in 0..count {
        let cut = || "the archive's directory is damaged";
        let head = directory
            .get(at..at + 46)
            .filter(|h| h[..4] == DIRECTORY)
            .ok_or_else(|| input.bad(cut()))?;
        let (flags, method) = (u16_at(head, 8), u16_at(head, 10));
        let (mut packed, mut size, mut offset) =
            (u32_at(head, 20), u32_at(head, 24), u32_at(head, 42));
        let [name_len, extra_len, comment_len] =
            [28, 30, 32].map(|i| usize::from(u16::from_le_bytes([head[i], head[i + 1]])));
        let name_end = at + 46 + name_len;
        let name = directory
            .get(at + 46..name_end)
            .ok_or_else(|| input.bad(cut()))?;
        let name = String::from_utf8_lossy(name).into_owned();
        let extra = directory
            .get(name_end..name_end + extra_len)
            .ok_or_else(|| input.bad(cut()))?;
        zip64(extra, &mut [&mut size, &mut packed, &mut offset]);
        at = name_end + extra_len + comment_len;
        if name.ends_with('/') {
            continue;
        }
        if flags & 1 != 0 {
            return Err(input.bad(format!("{} is encrypted", short(&name))));
        }
        if method != 0 || packed != size {
            compressed = Some(name.clone());
        }
        let local = input.range(offset, 30)?;
        if local[..4] != LOCAL {
            return Err(input.bad(format!(
                "{}: the archive's directory points to something else",
                short(&name)
            )));
        }
        let data = offset + 30 + u16_at(&local, 26) + u16_at(&local, 28);
        if data.checked_add(packed).is_none_or(|end| end > input.len) {
            return Err(input.bad(format!(
                "{} reaches beyond the end: the file is cut off",
                short(&name)
            )));
        }
        let crc = u32::from_le_bytes([head[16], head[17], head[18], head[19]]);
        let entry = Entry {
            start: data,
            len: packed,
            crc,
        };
        let shown = short(&name);
        if out.insert(name, entry).is_some() {
            return Err(input.bad(format!("{shown} occurs twice")));
        }
    }
    apart(input, &out)?;
    Ok((out, compressed))
}

/// Fails if entries share bytes, which would make a small archive many times as large.
fn apart(input: &Input<'_>, entries: &BTreeMap<String, Entry>) -> Result<()> {
    let mut all: Vec<(&String, &Entry)> = entries.iter().filter(|(_, e)| e.len > 0).collect();
    all.sort_by_key(|(_, entry)| entry.start);
    for pair in all.windows(2) {
        let ((a, first), (b, second)) = (pair[0], pair[1]);
        if first.start + first.len > second.start {
            return Err(input.bad(format!(
                "damaged archive: {} and {} overlap",
                short(a),
                short(b)
            )));
        }
    }
    Ok(())
}

/// Replaces the fields that were too large for 32 bits by those in the extra field, in their fixed order.
fn zip64(mut extra: &[u8], fields: &mut [&mut u64; 3]) {
    while extra.len() >= 4 {
        let (tag, len) = (
            u16_at(extra, 0),
            usize::from(u16::from_le_bytes([extra[2], extra[3]])),
        );
        let Some(body) = extra.get(4..4 + len) else {
            return;
        };
        if tag == 1 {
            let mut numbers = body.chunks_exact(8);
            for field in fields
                .iter_mut()
                .filter(|field| ***field == u64::from(u32::MAX))
            {
                if let Some(number) = numbers.next() {
                    **field = u64_at(number, 0);
                }
            }
            return;
        }
        extra = &extra[4 + len..];
    }
}

/// Number of entries, start and length of the directory.
fn end(input: &mut Input<'_>) -> Result<(u64, u64, u64)> {
    let tail_len = input.len.min(65_536 + 22);
    let tail_start = input.len - tail_len;
    let tail = input.range(tail_start, tail_len)?;
    let Some(at) = tail
        .windows(4)
        .rposition(|w| w == END)
        .filter(|at| tail.len() - at >= 22)
    else {
        return Err(input.bad("the archive has no end: the file is cut off"));
    };
    let (count, len, start) = (
        u16_at(&tail, at + 10),
        u32_at(&tail, at + 12),
        u32_at(&tail, at + 16),
    );
    let small = count < 0xffff && len < 0xffff_ffff && start < 0xffff_ffff;
    if small || at < 20 || tail[at - 20..at - 16] != END64_LOCATOR {
        return Ok((count, start, len));
    }
    let end64 = input.range(u64_at(&tail, at - 12), 56)?;
    if end64[..4] != END64 {
        return Err(input.bad("the archive's end is damaged"));
    }
    Ok((u64_at(&end64, 32), u64_at(&end64, 48), u64_at(&end64, 40)))
}
