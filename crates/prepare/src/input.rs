//! Folders, zip files and parquet tables as one list of images.

use std::{
    fs,
    path::{Path, PathBuf},
};

use sdft_data::{DataError, scan_images};
use sdft_imaging::Rgb8;

use crate::{PrepareError, Result, archive, archive::Archive, rows};

/// One entry of an input.
pub(crate) struct Item {
    /// Where it is.
    pub(crate) source: String,
    pub(crate) content: Content,
}

/// What an entry holds, or where that is.
pub(crate) enum Content {
    File(PathBuf),
    Zip(Archive, usize),
    Bytes(Vec<u8>),
    Picture(Rgb8),
    /// There is an entry, and it cannot be had.
    Refused(String),
}

/// The entries of one or several inputs.
#[derive(Default)]
pub(crate) struct Input {
    parts: Vec<Box<dyn Iterator<Item = Item> + Send>>,
    /// Entries there should be.
    pub(crate) total: usize,
    /// Files that are no images by their names.
    pub(crate) others: usize,
}

impl Input {
    /// Adds entries, about `total` of them.
    pub(crate) fn push(
        &mut self,
        total: usize,
        items: impl Iterator<Item = Item> + Send + 'static,
    ) {
        self.total += total;
        self.parts.push(Box::new(items));
    }

    /// Adds an entry that cannot be used.
    pub(crate) fn refuse(&mut self, source: String, reason: &str) {
        let content = Content::Refused(reason.to_owned());
        self.push(1, std::iter::once(Item { source, content }));
    }

    fn append(&mut self, mut other: Self) {
        self.parts.append(&mut other.parts);
        self.total += other.total;
        self.others += other.others;
    }

    /// All entries, in the order of the inputs.
    pub(crate) fn into_items(self) -> impl Iterator<Item = Item> + Send {
        self.parts.into_iter().flatten()
    }
}

/// Opens inputs. Where there are several, entries begin with the name of theirs.
pub(crate) fn open(paths: &[PathBuf]) -> Result<Input> {
    let mut all = Input::default();
    for path in paths {
        let mut one = open_one(path)?;
        let is_table = extension(path) == "parquet";
        // Rows have the name of their table already.
        if paths.len() > 1 && !is_table {
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            let parts = std::mem::take(&mut one.parts);
            one.parts = parts
                .into_iter()
                .map(|part| {
                    let name = name.clone();
                    let named = part.map(move |item| Item {
                        source: format!("{name}/{}", item.source),
                        ..item
                    });
                    Box::new(named) as Box<dyn Iterator<Item = Item> + Send>
                })
                .collect();
        }
        all.append(one);
    }
    Ok(all)
}

fn open_one(path: &Path) -> Result<Input> {
    let unknown = |found: String| PrepareError::Input {
        path: path.to_owned(),
        found,
    };
    let metadata = fs::metadata(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => unknown("nothing there".to_owned()),
        _ => unknown(error.to_string()),
    })?;
    if metadata.is_dir() {
        return folder(path);
    }
    if !metadata.is_file() {
        return Err(unknown("a pipe or a device".to_owned()));
    }
    match extension(path).as_str() {
        "zip" => archive::open(path),
        "parquet" => rows::open(path),
        "" => Err(unknown("a file without an extension".to_owned())),
        other => Err(unknown(format!("a .{other} file"))),
    }
}

/// The images of a folder and its subfolders, and of the zip files and tables that lie in it.
fn folder(path: &Path) -> Result<Input> {
    let io = |source| PrepareError::Io {
        path: path.to_owned(),
        source,
    };
    let mut containers: Vec<PathBuf> = fs::read_dir(path)
        .map_err(io)?
        .collect::<std::io::Result<Vec<_>>>()
        .map_err(io)?
        .iter()
        .map(fs::DirEntry::path)
        .filter(|path| ["zip", "parquet"].contains(&extension(path).as_str()) && path.is_file())
        .collect();
    containers.sort();
    let mut input = Input::default();
    match scan_images(path) {
        Ok((images, unreadable)) => {
            for entry in unreadable {
                input.refuse(entry.file, &entry.reason);
            }
            let items = images.into_iter().map(|(source, path)| Item {
                source,
                content: Content::File(path),
            });
            input.push(items.len(), items);
        }
        // A folder of nothing but containers is no error.
        Err(DataError::NoImages { .. }) if !containers.is_empty() => {}
        Err(error) => return Err(error.into()),
    }
    for container in containers {
        input.append(open(&[container])?);
    }
    Ok(input)
}

/// The extension in small letters, empty if there is none.
pub(crate) fn extension(path: &Path) -> String {
    let extension = path.extension().unwrap_or_default();
    extension.to_string_lossy().to_ascii_lowercase()
}
