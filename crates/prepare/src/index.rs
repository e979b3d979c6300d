//! The index of a prepared folder: one JSON object for each line, first the set, then every entry of the inputs in order.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    sync::{Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};

use crate::{PrepareError, Result};

/// The images done so far. Its name is hidden from scans of images.
pub(crate) const JOURNAL: &str = ".index.partial.jsonl";

/// The first line of an index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Header {
    /// Side of the images.
    pub(crate) size: usize,
    /// Names of the inputs, in order.
    pub(crate) inputs: Vec<String>,
    /// The version of reading images, currently [`READING`]; images read by another version are made again.
    #[serde(default)]
    pub(crate) reading: u32,
}

/// 1: transparency is composed on white, GIF frames are placed on their screen, XMP orientation is applied. 0 dropped transparency.
pub(crate) const READING: u32 = 1;

/// One entry of an input.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its source: a path inside the input, or `table#row name`.
    pub source: String,
    /// SHA-256 of its bytes, if they could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// The image's file name in the folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// SHA-256 of that file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_sha256: Option<String>,
    /// Width before resizing, in pixels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub width: Option<usize>,
    /// Height before resizing, in pixels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub height: Option<usize>,
    /// Conversions besides cropping and resizing: `transparent`, `sixteen_bit`, `reoriented`, `animated`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conversions: Vec<String>,
    /// The reason why it was skipped, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped: Option<String>,
}

fn fail(path: &Path) -> impl FnOnce(std::io::Error) -> PrepareError {
    let path = path.to_owned();
    move |source| PrepareError::Io {
        path,
        cause: source,
    }
}

/// The set and records of an index or a journal; `None` if the file does not exist. A truncated last line is ignored.
pub(crate) fn read(path: &Path) -> Result<Option<(Header, Vec<Record>)>> {
    let file = match sdft_files::open_regular(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(fail(path)(error)),
    };
    let mut lines = BufReader::new(file).lines();
    let Some(first) = lines.next() else {
        return Ok(None);
    };
    let Ok(header) = serde_json::from_str(&first.map_err(fail(path))?) else {
        return Ok(None);
    };
    let records = lines
        .map_while(std::result::Result::ok)
        .filter_map(|line| serde_json::from_str(&line).ok());
    Ok(Some((header, records.collect())))
}

/// Writes an index atomically.
pub(crate) fn write(path: &Path, header: &Header, records: &[Record]) -> Result<()> {
    let mut text = line(header, path)?;
    for record in records {
        text.push_str(&line(record, path)?);
    }
    sdft_files::write_atomic(path, text.as_bytes()).map_err(fail(path))
}

fn line(value: &impl Serialize, path: &Path) -> Result<String> {
    let text = serde_json::to_string(value).map_err(|error| fail(path)(error.into()))?;
    Ok(text + "\n")
}

/// A file to which records are appended as images are done.
pub(crate) struct Journal {
    file: Mutex<File>,
    path: std::path::PathBuf,
}

impl Journal {
    /// Starts a journal that contains `records`.
    pub(crate) fn begin(path: &Path, header: &Header, records: &[&Record]) -> Result<Self> {
        let mut text = line(header, path)?;
        for record in records {
            text.push_str(&line(record, path)?);
        }
        // A crash between truncating and writing would lose the old journal, so it is replaced by a rename.
        sdft_files::write_atomic(path, text.as_bytes()).map_err(fail(path))?;
        let file = sdft_files::open_append(path).map_err(fail(path))?;
        Ok(Self {
            file: Mutex::new(file),
            path: path.to_owned(),
        })
    }

    pub(crate) fn add(&self, record: &Record) -> Result<()> {
        let line = line(record, &self.path)?;
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(line.as_bytes()).map_err(fail(&self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_truncated_journal_gives_its_complete_records() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(JOURNAL);
        assert_eq!(read(&path).unwrap(), None);
        let header = Header {
            size: 32,
            inputs: vec!["a".to_owned()],
            reading: READING,
        };
        let record = |source: &str| Record {
            source: source.to_owned(),
            ..Record::default()
        };
        let journal = Journal::begin(&path, &header, &[&record("one")]).unwrap();
        journal.add(&record("two")).unwrap();
        journal.add(&record("three")).unwrap();
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 4]).unwrap();
        let (found, records) = read(&path).unwrap().unwrap();
        assert_eq!(found, header);
        assert_eq!(records, [record("one"), record("two")]);
    }
}
