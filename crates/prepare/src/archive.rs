//! Reads images from zip files.

use std::{
    collections::HashMap,
    io::{self, Read as _},
    path::Path,
};

use sdft_imaging::{Kind, Limits, START, is_named_like_a_picture, kind_of_bytes};
use zip::ZipArchive;

use crate::{
    PrepareError, Result,
    error::EntryResult,
    input::{Content, Input, Item, Passed},
    labels::{DATASET, Labels, MOST},
    shared::Shared,
};

/// Limits of an entry's unpacked size: this many bytes, plus a multiple of its stored size, because images hardly compress.
const ENTRY: u64 = 16 << 20;
const ENTRY_RATIO: u64 = 16;

/// The content of an entry.
pub(crate) enum Entry {
    Bytes(Vec<u8>),
    /// The entry is not an image; it was not unpacked.
    Other,
}

/// A zip file that every thread reads independently.
#[derive(Clone)]
pub(crate) struct Archive(ZipArchive<Shared>);

/// Lists the images of a zip file.
pub(crate) fn open(path: &Path) -> Result<Input> {
    let broken = |reason: String| PrepareError::Broken {
        path: path.to_owned(),
        kind: "zip",
        reason,
    };
    let io = |source| PrepareError::Io {
        path: path.to_owned(),
        cause: source,
    };
    let shared = Shared::open(path).map_err(io)?;
    // The zip reader is third-party code and the input may be hostile.
    let opened = sdft_files::guarded(|| ZipArchive::new(io::BufReader::new(shared.clone())));
    let mut archive = match opened {
        Some(Ok(archive)) => archive,
        Some(Err(error)) => return Err(broken(error.to_string())),
        None => return Err(broken("its reader panicked".to_owned())),
    };
    // Entries that share bytes could turn a small file into many images. Damaged entries are reported when they are read.
    if archive.has_overlapping_entries().unwrap_or(false) {
        return Err(broken("its entries overlap".to_owned()));
    }
    let start = archive.central_directory_start();
    let doubled = match archive.has_duplicate_names() {
        true => names_of_entries(shared.clone(), start),
        false => HashMap::new(),
    };
    let names: Vec<(Option<String>, usize)> = (0..archive.len())
        .map(|i| {
            let name = archive.name_for_index(i).and_then(std::result::Result::ok);
            let raw = archive.by_index_data(i).ok();
            let raw = raw.map(|entry| entry.name_raw().to_vec());
            let n = raw.and_then(|raw| doubled.get(&raw).copied());
            (name.map(|name| name.into_owned()), n.unwrap_or(1))
        })
        .collect();
    drop(archive);
    let mut archive = Archive(ZipArchive::new(shared).map_err(|e| broken(e.to_string()))?);
    let dataset = names
        .iter()
        .rposition(|(name, _)| name.as_deref() == Some(DATASET));
    let labels = dataset.and_then(|i| Labels::read(&archive.read_text(i)?));

    let mut input = Input::default();
    for (i, (name, n)) in names.into_iter().enumerate() {
        let Some(name) = name else {
            input.refuse(format!("entry {i}"), "its name cannot be read");
            continue;
        };
        if name.ends_with('/') {
            continue;
        }
        let is_hidden = is_hidden(&name);
        let is_picture = is_named_like_a_picture(Path::new(&name));
        for _ in 1..n {
            let reason = "a later entry has the same name, and archives are read by name";
            match is_picture && !is_hidden {
                true => input.refuse(name.clone(), reason),
                false => input.pass(name.clone(), Passed::Other),
            }
        }
        let content = match is_hidden {
            true => Content::Passed(Passed::Hidden),
            false if labels.is_some() && Some(i) == dataset => Content::Passed(Passed::Label),
            false => Content::Zip(archive.clone(), i),
        };
        input.push(1, std::iter::once(Item::new(name, content)));
    }
    if let Some(labels) = labels {
        input.label(labels);
    }
    Ok(input)
}

/// Whether the name of an entry, or of a folder in it, is hidden.
pub(crate) fn is_hidden(name: &str) -> bool {
    name.split(['/', '\\'])
        .any(|part| part == "__MACOSX" || (part.starts_with('.') && part != "." && part != ".."))
}

/// Counts the entries of each name in the archive's directory. The zip reader keeps only one of each.
fn names_of_entries(mut file: Shared, start: u64) -> HashMap<Vec<u8>, usize> {
    const SIGNATURE: [u8; 4] = *b"PK\x01\x02";
    let mut counts: HashMap<Vec<u8>, usize> = HashMap::new();
    file.seek_to(start);
    let mut reader = io::BufReader::new(file);
    let mut header = [0; 46];
    while reader.read_exact(&mut header).is_ok() && header[..4] == SIGNATURE {
        let length = |at: usize| usize::from(u16::from_le_bytes([header[at], header[at + 1]]));
        let mut name = vec![0; length(28)];
        if reader.read_exact(&mut name).is_err() {
            break;
        }
        *counts.entry(name).or_default() += 1;
        let rest = (length(30) + length(32)) as u64;
        if io::copy(&mut (&mut reader).take(rest), &mut io::sink()).ok() != Some(rest) {
            break;
        }
    }
    counts
}

impl Archive {
    /// The bytes of an entry that may be an image, or the reason why it cannot be read.
    pub(crate) fn read(&mut self, i: usize, limits: &Limits) -> EntryResult<Entry> {
        sdft_files::guarded(|| self.read_entry(i, limits))
            .unwrap_or_else(|| Err("the reader of the archive panicked".into()))
    }

    /// The bytes of an entry that is not an image; `None` if it cannot be read or is too long.
    fn read_text(&mut self, i: usize) -> Option<Vec<u8>> {
        let read = || {
            let entry = self.0.by_index(i).ok()?;
            let mut bytes = Vec::new();
            entry.take(MOST + 1).read_to_end(&mut bytes).ok()?;
            (bytes.len() as u64 <= MOST).then_some(bytes)
        };
        sdft_files::guarded(read).flatten()
    }

    fn read_entry(&mut self, i: usize, limits: &Limits) -> EntryResult<Entry> {
        let raw = self.0.by_index_raw(i).map_err(|e| e.to_string())?;
        if raw.encrypted() {
            return Err("the entry is encrypted".into());
        }
        if raw.is_symlink() {
            return Err("the entry is a link, not an image".into());
        }
        drop(raw);
        let mut entry = self.0.by_index(i).map_err(|e| e.to_string())?;
        let failed = |e: io::Error| format!("cannot be unpacked: {e}");
        let mut bytes = Vec::new();
        let name = entry.name().map(|name| name.into_owned());
        let name = name.unwrap_or_default();
        entry
            .by_ref()
            .take(START as u64)
            .read_to_end(&mut bytes)
            .map_err(failed)?;
        if kind_of_bytes(&bytes) == Kind::Other && !is_named_like_a_picture(Path::new(&name)) {
            return Ok(Entry::Other);
        }
        let (size, stored) = (entry.size(), entry.compressed_size());
        let ratio = ENTRY.saturating_add(stored.saturating_mul(ENTRY_RATIO));
        if size > limits.max_bytes {
            let limit = limits.max_bytes;
            return Err(format!("{size} bytes exceed the limit of {limit} bytes").into());
        }
        if size > ratio {
            return Err(format!(
                "its {stored} bytes unpack to {size}, which is not an image: expected at most {ratio}"
            ).into());
        }
        // The size in the archive's directory may be wrong.
        let left = size.saturating_add(1).saturating_sub(bytes.len() as u64);
        entry.take(left).read_to_end(&mut bytes).map_err(failed)?;
        match bytes.len() as u64 {
            found if found == size => Ok(Entry::Bytes(bytes)),
            found => Err(format!("unpacks to {found} bytes instead of {size}").into()),
        }
    }
}
