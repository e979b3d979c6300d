//! Folders, zip and tar files and parquet tables as one list of entries.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use sdft_data::{Listing, list_all, scan_images};
use sdft_imaging::Rgb8;

use crate::{
    PrepareError, Result, archive,
    archive::Archive,
    labels::{self, Label, Labels},
    shard,
    shared::Shared,
    table,
};

/// Files that contain images.
const CONTAINERS: [&str; 3] = ["zip", "tar", "parquet"];

/// One entry of an input.
pub(crate) struct Item {
    /// Its source, for the index.
    pub(crate) source: String,
    /// For a row of a table, `table#17` and the name in the row.
    pub(crate) row: Option<(String, Option<String>)>,
    /// Its class, if the input states it.
    pub(crate) label: Option<Label>,
    pub(crate) content: Content,
}

impl Item {
    /// An entry for a file.
    pub(crate) fn new(source: impl Into<String>, content: Content) -> Self {
        Self {
            source: source.into(),
            row: None,
            label: None,
            content,
        }
    }

    /// An entry for a row of a table.
    pub(crate) fn row(table: &str, row: u64, name: Option<&str>, content: Content) -> Self {
        let place = format!("{table}#{row}");
        let name = name.filter(|name| !name.is_empty());
        Self {
            source: match name {
                Some(name) => format!("{place} {name}"),
                None => place.clone(),
            },
            row: Some((place, name.map(str::to_owned))),
            label: None,
            content,
        }
    }
}

/// The content of an entry, or where it is.
pub(crate) enum Content {
    File(PathBuf),
    Zip(Archive, usize),
    /// From this byte of a file, as many bytes.
    Part(Shared, u64, u64),
    Bytes(Vec<u8>),
    Picture(Rgb8),
    /// The entry cannot be read, for this reason.
    Refused(String),
    /// The entry is not an image.
    Passed(Passed),
}

/// Why an entry is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Passed {
    /// Neither its content nor its name is that of an image.
    Other,
    /// Its name, or that of a folder in its path, begins with a dot.
    Hidden,
    /// It states the classes of images.
    Label,
}

impl Passed {
    /// The reason as in the index.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Other => "no image",
            Self::Hidden => "hidden",
            Self::Label => "labels",
        }
    }
}

/// The entries of one or several inputs.
#[derive(Default)]
pub(crate) struct Input {
    parts: Vec<Box<dyn Iterator<Item = Item> + Send>>,
    /// Expected number of entries.
    pub(crate) total: usize,
    /// The names of classes, in the order in which the inputs number them.
    pub(crate) classes: Vec<Arc<str>>,
    /// Labels that are not used, and why.
    pub(crate) notes: Vec<String>,
}

impl Input {
    /// Adds about `total` entries.
    pub(crate) fn push(
        &mut self,
        total: usize,
        items: impl Iterator<Item = Item> + Send + 'static,
    ) {
        self.total = self.total.saturating_add(total);
        self.parts.push(Box::new(items));
    }

    /// Adds an entry that cannot be read.
    pub(crate) fn refuse(&mut self, source: String, reason: &str) {
        let content = Content::Refused(reason.to_owned());
        self.push(1, std::iter::once(Item::new(source, content)));
    }

    /// Adds an entry that is not an image.
    pub(crate) fn pass(&mut self, source: String, why: Passed) {
        self.push(1, std::iter::once(Item::new(source, Content::Passed(why))));
    }

    /// Changes every entry.
    fn map(&mut self, change: impl Fn(Item) -> Item + Send + Sync + 'static) {
        let change = Arc::new(change);
        let parts = std::mem::take(&mut self.parts).into_iter();
        let changed = parts.map(|part| {
            let change = Arc::clone(&change);
            Box::new(part.map(move |item| change(item))) as Box<dyn Iterator<Item = Item> + Send>
        });
        self.parts = changed.collect();
    }

    /// Prefixes the source of every entry.
    fn begin_with(&mut self, name: &str) {
        let name = name.to_owned();
        self.map(move |item| Item {
            source: format!("{name}/{}", item.source),
            ..item
        });
    }

    /// Takes the first folder in an entry's path as its class.
    fn folders_are_classes(&mut self) {
        self.map(|item| Item {
            label: match item.source.split_once('/') {
                Some((folder, _)) if item.row.is_none() => Some(Label::Name(folder.into())),
                _ => None,
            },
            ..item
        });
    }

    /// Takes the classes of the files in `labels`, which are paths inside this input.
    pub(crate) fn label(&mut self, labels: Labels) {
        self.classes.extend(labels.names.iter().cloned());
        self.map(move |item| match labels.of(&item.source) {
            None => item,
            label => Item { label, ..item },
        });
    }

    fn append(&mut self, mut other: Self) {
        self.parts.append(&mut other.parts);
        self.total = self.total.saturating_add(other.total);
        self.classes.append(&mut other.classes);
        self.notes.append(&mut other.notes);
    }

    /// All entries, in the order of the inputs.
    pub(crate) fn into_items(self) -> impl Iterator<Item = Item> + Send {
        self.parts.into_iter().flatten()
    }
}

/// Opens the inputs. If there are several, sources begin with the input's name, or with its path if two have the same name.
///
/// With `by_folder` the subfolders of each input are the classes.
pub(crate) fn open(paths: &[PathBuf], by_folder: bool) -> Result<Input> {
    let name = |path: &Path| {
        path.file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    };
    let mut all = Input::default();
    for path in paths {
        let is_alone = paths
            .iter()
            .filter(|other| name(other) == name(path))
            .count()
            == 1;
        let called = match is_alone {
            true => name(path),
            false => path.display().to_string(),
        };
        let is_table = extension(path) == "parquet" && path.is_file();
        let mut one = open_one(path, &called)?;
        if by_folder {
            one.folders_are_classes();
        }
        // Rows already begin with the name of their table.
        if paths.len() > 1 && !is_table {
            one.begin_with(&called);
        }
        all.append(one);
    }
    Ok(all)
}

/// Opens one input; the sources of a table's rows begin with `called`.
fn open_one(path: &Path, called: &str) -> Result<Input> {
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
        return Err(unknown(
            sdft_files::kind_of(metadata.file_type()).to_owned(),
        ));
    }
    match extension(path).as_str() {
        "zip" => archive::open(path),
        "tar" => shard::open(path),
        "parquet" => table::open(path, called),
        "" => Err(unknown("a file without an extension".to_owned())),
        other => Err(unknown(format!("a .{other} file"))),
    }
}

/// The images of a folder and its subfolders, and of the zip files and tables among them.
fn folder(path: &Path) -> Result<Input> {
    let Listing {
        images,
        unreadable,
        others,
        hidden,
    } = list_all(path)?;
    let (containers, others): (Vec<_>, Vec<_>) = others
        .into_iter()
        .partition(|(_, path)| CONTAINERS.contains(&extension(path).as_str()));
    if images.is_empty() && unreadable.is_empty() && containers.is_empty() {
        // The same message as training gives for such a folder.
        scan_images(path)?;
    }
    let mut input = Input::default();
    let mut labels = None;
    for (source, path) in others {
        if source == labels::DATASET {
            let bytes = sdft_files::read_regular(&path, labels::MOST);
            labels = bytes.ok().and_then(|bytes| Labels::read(&bytes));
        }
        let why = match source == labels::DATASET && labels.is_some() {
            true => Passed::Label,
            false => Passed::Other,
        };
        input.pass(source, why);
    }
    for source in hidden {
        input.pass(source, Passed::Hidden);
    }
    for entry in unreadable {
        input.refuse(entry.file, &entry.reason);
    }
    let items = images
        .into_iter()
        .map(|(source, path)| Item::new(source, Content::File(path)));
    input.push(items.len(), items);
    if let Some(labels) = labels {
        input.label(labels);
    }
    for (called, path) in containers {
        // A damaged archive or table counts as one damaged entry.
        match open_one(&path, &called) {
            Ok(mut one) => {
                if extension(&path) != "parquet" {
                    one.begin_with(&called);
                }
                input.append(one);
            }
            Err(error) => {
                // The report puts the name before the reason.
                let text = error.to_string();
                let name = format!("{}: ", path.display());
                let reason = text.strip_prefix(&name).unwrap_or(&text);
                input.refuse(called, reason);
            }
        }
    }
    Ok(input)
}

/// The lower-case extension, or an empty string.
pub(crate) fn extension(path: &Path) -> String {
    let extension = path.extension().unwrap_or_default();
    extension.to_string_lossy().to_ascii_lowercase()
}
