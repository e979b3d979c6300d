//! The index of a prepared folder: one JSON object for each line, first the set, then every entry of the inputs in order.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    sync::{Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};

use sdft_imaging::{Depth, Fit};

use crate::{PrepareError, Result, form::Form, target::stem};

/// The images done so far. Its name is hidden from scans of images.
pub(crate) const JOURNAL: &str = ".index.partial.jsonl";

/// The first line of an index.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Header {
    /// Height and width of the images: a number for squares, `"192x256"` for others.
    #[serde(with = "size")]
    pub(crate) size: [usize; 2],
    /// Names of the inputs, in order.
    pub(crate) inputs: Vec<String>,
    /// The version of reading images, currently [`READING`]; images read by another version are made again.
    #[serde(default)]
    pub(crate) reading: u32,
    /// What was asked for; no field is written by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) channels: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) depth: Option<Depth>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) fit: Fit,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) background: Option<[u8; 3]>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

mod size {
    //! A size as a number or a text.

    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(size: &[usize; 2], to: S) -> Result<S::Ok, S::Error> {
        match size {
            [height, width] if height == width => to.serialize_u64(*height as u64),
            size => to.serialize_str(&crate::size_text(*size)),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<[usize; 2], D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Side(usize),
            Text(String),
        }
        match Written::deserialize(from)? {
            Written::Side(side) => Ok([side; 2]),
            Written::Text(text) => {
                crate::parse_size(&text).ok_or_else(|| D::Error::custom("not a size"))
            }
        }
    }
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
    /// Number of channels in the folder, if it is not 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channels: Option<usize>,
    /// The type of the samples in the folder, if it is not 8 bits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub depth: Option<Depth>,
    /// Number of pages of its source, if there are several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pages: Option<usize>,
    /// The number of its class, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<u32>,
    /// The reason why it was skipped, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped: Option<String>,
}

impl Record {
    /// The name of the image without its ending, if it has the kind of name that images of a set have.
    pub(crate) fn stem(&self) -> Option<&str> {
        stem(self.file.as_deref()?)
    }

    /// The form of the image in the folder.
    pub(crate) fn form(&self) -> Form {
        Form {
            channels: self.channels.unwrap_or(Form::RGB8.channels),
            depth: self.depth.unwrap_or(Form::RGB8.depth),
        }
    }

    /// The record with this form.
    pub(crate) fn with_form(self, form: Form) -> Self {
        Self {
            channels: Some(form.channels).filter(|n| *n != Form::RGB8.channels),
            depth: Some(form.depth).filter(|depth| *depth != Form::RGB8.depth),
            ..self
        }
    }
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
    fn the_first_line_has_only_what_was_asked_for() {
        let text = |header: &Header| serde_json::to_string(header).unwrap();
        let plain = Header {
            size: [32, 32],
            inputs: vec!["a".to_owned()],
            reading: READING,
            ..Header::default()
        };
        assert_eq!(text(&plain), r#"{"size":32,"inputs":["a"],"reading":1}"#);
        let other = Header {
            size: [24, 32],
            channels: Some(1),
            depth: Some(Depth::F32),
            fit: Fit::Resize,
            background: Some([0; 3]),
            ..plain
        };
        let end = r#""channels":1,"depth":"float","fit":"resize","background":[0,0,0]}"#;
        assert!(text(&other).starts_with(r#"{"size":"24x32","#) && text(&other).ends_with(end));
        let again: Header = serde_json::from_str(&text(&other)).unwrap();
        assert_eq!(again, other);
    }

    #[test]
    fn a_truncated_journal_gives_its_complete_records() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(JOURNAL);
        assert_eq!(read(&path).unwrap(), None);
        let header = Header {
            size: [32, 24],
            inputs: vec!["a".to_owned()],
            reading: READING,
            depth: Some(Depth::U16),
            fit: Fit::Pad,
            ..Header::default()
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
