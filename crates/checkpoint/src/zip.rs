//! The directory of a zip archive whose entries are not compressed, as PyTorch writes them.

use crate::error::{Error, Result};
use crate::input::Input;
use crate::short::short;
use std::collections::BTreeMap;
use zip::{CompressionMethod, ZipArchive};

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

/// All entries by name, and the name of a compressed one if there is any. Nothing is unpacked, so the sizes are those in the file.
pub(crate) fn entries(input: &mut Input<'_>) -> Result<(BTreeMap<String, Entry>, Option<String>)> {
    let (path, len) = (input.path.clone(), input.len);
    let bad = |problem: String| Error::Format {
        path: path.clone(),
        problem,
    };
    let damaged = |e| bad(format!("the archive is damaged or cut off ({e})"));
    let mut archive = ZipArchive::new(input.reader()).map_err(damaged)?;
    if archive.has_duplicate_names() {
        return Err(bad("damaged archive: a name occurs twice".to_owned()));
    }
    let mut out = BTreeMap::new();
    let mut compressed = None;
    for index in 0..archive.len() {
        let entry = archive.by_index_raw(index).map_err(damaged)?;
        let name = String::from_utf8_lossy(entry.name_raw()).into_owned();
        if name.ends_with('/') {
            continue;
        }
        if entry.encrypted() {
            return Err(bad(format!("{} is encrypted", short(&name))));
        }
        if entry.compression() != CompressionMethod::Stored
            || entry.compressed_size() != entry.size()
        {
            compressed = Some(name.clone());
        }
        let (start, size) = (entry.data_start(), entry.compressed_size());
        let end = start.and_then(|start| start.checked_add(size));
        let (Some(start), Some(0..)) = (start, end.and_then(|end| len.checked_sub(end))) else {
            return Err(bad(format!(
                "{} reaches beyond the end: the file is cut off",
                short(&name)
            )));
        };
        let crc = entry.crc32();
        out.insert(
            name,
            Entry {
                start,
                len: size,
                crc,
            },
        );
    }
    drop(archive);
    input.rewind()?;
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
