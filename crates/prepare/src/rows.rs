//! Parquet tables, as the Hub serves image data sets.

use std::{
    fs::File,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use parquet::{
    basic::Type,
    column::reader::{ColumnReader, ColumnReaderImpl},
    data_type::{ByteArray, ByteArrayType},
    file::reader::{FileReader as _, SerializedFileReader},
    schema::types::SchemaDescriptor,
};

use crate::{
    PrepareError, Result,
    input::{Content, Input, Item},
};

/// Rows read at once. Memory is what they hold.
const AT_ONCE: usize = 4;

/// The columns of images and of their names, by number.
struct Columns {
    bytes: usize,
    path: Option<usize>,
}

/// The images of a table, whose rows begin with what it is `called`.
pub(crate) fn open(path: &Path, called: &str) -> Result<Input> {
    let broken = |reason: String| PrepareError::Broken {
        path: path.to_owned(),
        kind: "parquet",
        reason,
    };
    let file = File::open(path).map_err(|source| PrepareError::Io {
        path: path.to_owned(),
        cause: source,
    })?;
    let opened = guarded(|| SerializedFileReader::new(file).map_err(|e| e.to_string()));
    let reader = opened.map_err(broken)?;
    let columns = columns(reader.metadata().file_metadata().schema_descr()).map_err(|found| {
        PrepareError::Column {
            path: path.to_owned(),
            found,
        }
    })?;
    let groups: Vec<usize> = (reader.metadata().row_groups().iter())
        .map(|group| usize::try_from(group.num_rows()).unwrap_or(0))
        .collect();
    let total = groups.iter().fold(0_usize, |sum, &n| sum.saturating_add(n));
    let table = Table {
        name: called.to_owned(),
        reader,
        columns,
        groups,
        group: 0,
        row: 0,
        open: None,
        ready: Vec::new(),
    };
    let mut input = Input::default();
    input.push(total, table);
    Ok(input)
}

/// Finds the column of images: `image.bytes` as the Hub's image feature is stored, else the only column of bytes.
fn columns(schema: &SchemaDescriptor) -> std::result::Result<Columns, String> {
    let all = schema.columns();
    let parts = |i: usize| all[i].path().parts().to_vec();
    let is_candidate = |i: &usize| {
        let column = &all[*i];
        let parts = column.path().parts();
        let is_nested = parts.len() == 2 && parts[1] == "bytes";
        // Text is stored as bytes, too, but says so.
        let is_flat = parts.len() == 1
            && column.converted_type() == parquet::basic::ConvertedType::NONE
            && column.logical_type_ref().is_none();
        column.physical_type() == Type::BYTE_ARRAY
            && column.max_rep_level() == 0
            && (is_nested || is_flat)
    };
    let candidates: Vec<usize> = (0..all.len()).filter(is_candidate).collect();
    let named = candidates
        .iter()
        .find(|&&i| ["image", "img"].contains(&parts(i)[0].as_str()));
    let bytes = match (named, candidates.as_slice()) {
        (Some(&i), _) | (None, &[i]) => i,
        _ => {
            let names: Vec<String> = all.iter().map(|column| column.path().string()).collect();
            return Err(match names.is_empty() {
                true => "no columns".to_owned(),
                false => format!("the columns {}", names.join(", ")),
            });
        }
    };
    let sibling = [parts(bytes)[0].clone(), "path".to_owned()];
    let path = (0..all.len()).find(|&i| {
        all[i].physical_type() == Type::BYTE_ARRAY
            && all[i].max_rep_level() == 0
            && parts(i) == sibling
    });
    Ok(Columns { bytes, path })
}

/// The rows of a table, a few at a time.
struct Table {
    name: String,
    reader: SerializedFileReader<File>,
    columns: Columns,
    /// Rows of each group.
    groups: Vec<usize>,
    /// The group that is being read.
    group: usize,
    /// Rows given so far, in all groups.
    row: usize,
    open: Option<Group>,
    /// Rows that were read, the next one last.
    ready: Vec<Item>,
}

/// A group of rows that is being read.
struct Group {
    bytes: Column,
    path: Option<Column>,
    left: usize,
}

struct Column {
    reader: ColumnReaderImpl<ByteArrayType>,
    /// The level at which a value is there.
    defined: i16,
}

impl Iterator for Table {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        while self.ready.is_empty() {
            let &rows = self.groups.get(self.group)?;
            let left = self.open.as_ref().map_or(rows, |group| group.left);
            if left == 0 {
                // A table that has more rows than it says would lose them silently.
                let more = guarded(|| self.has_more());
                self.open = None;
                self.group += 1;
                if more != Ok(false) {
                    let content =
                        Content::Refused("a group has more rows than the table says".to_owned());
                    self.ready = vec![Item::row(&self.name, self.row, None, content)];
                }
                continue;
            }
            match guarded(|| self.read()) {
                Ok(items) => {
                    self.row += items.len();
                    self.ready = items;
                    self.ready.reverse();
                }
                Err(reason) => {
                    let (first, last) = (self.row, self.row.saturating_add(left - 1));
                    self.row = self.row.saturating_add(left);
                    self.open = None;
                    self.group += 1;
                    let reason = match left {
                        1 => format!("the row cannot be read: {reason}"),
                        _ => format!("rows {first} to {last} cannot be read: {reason}"),
                    };
                    let content = Content::Refused(reason);
                    self.ready = vec![Item::row(&self.name, first, None, content)];
                }
            }
        }
        self.ready.pop()
    }
}

impl Table {
    /// Whether the group that is open has rows left.
    fn has_more(&mut self) -> std::result::Result<bool, String> {
        match &mut self.open {
            Some(group) => Ok(!group.bytes.read(1)?.is_empty()),
            None => Ok(false),
        }
    }

    /// The next rows of the group.
    fn read(&mut self) -> std::result::Result<Vec<Item>, String> {
        if self.open.is_none() {
            let group = self
                .reader
                .get_row_group(self.group)
                .map_err(|e| e.to_string())?;
            let column = |i: usize| {
                let reader = group.get_column_reader(i).map_err(|e| e.to_string())?;
                let ColumnReader::ByteArrayColumnReader(reader) = reader else {
                    return Err("the column holds no bytes".to_owned());
                };
                let schema = self.reader.metadata().file_metadata().schema_descr();
                Ok(Column {
                    reader,
                    defined: schema.column(i).max_def_level(),
                })
            };
            self.open = Some(Group {
                bytes: column(self.columns.bytes)?,
                path: self.columns.path.map(column).transpose()?,
                left: self.groups[self.group],
            });
        }
        let Some(group) = &mut self.open else {
            return Err("no group".to_owned());
        };
        let n = AT_ONCE.min(group.left);
        let images = group.bytes.read(n)?;
        let paths = match &mut group.path {
            Some(column) => column.read(images.len())?,
            None => vec![None; images.len()],
        };
        if images.is_empty() || images.len() != paths.len() {
            return Err("the table ends before its last row".to_owned());
        }
        group.left -= images.len();
        let rows = images.into_iter().zip(paths).enumerate();
        Ok(rows
            .map(|(i, (image, path))| {
                let path = path.map(|path| String::from_utf8_lossy(path.data()).into_owned());
                let content = match image {
                    Some(image) => Content::Bytes(image.data().to_vec()),
                    None => Content::Refused("the row has no bytes".to_owned()),
                };
                Item::row(&self.name, self.row + i, path.as_deref(), content)
            })
            .collect())
    }
}

impl Column {
    /// Up to `n` values, none where a row has no value.
    fn read(&mut self, n: usize) -> std::result::Result<Vec<Option<ByteArray>>, String> {
        let (mut all, mut levels) = (Vec::with_capacity(n), Vec::new());
        // Pages end between rows: what is left of `n` begins the next page.
        while all.len() < n {
            let mut values = Vec::new();
            levels.clear();
            let wanted = n - all.len();
            let (records, _, _) = self
                .reader
                .read_records(wanted, Some(&mut levels), None, &mut values)
                .map_err(|e| e.to_string())?;
            if records == 0 {
                break;
            }
            let mut values = values.into_iter();
            if self.defined == 0 {
                all.extend(values.map(Some));
            } else {
                all.extend(levels.iter().map(|&level| match level == self.defined {
                    true => values.next(),
                    false => None,
                }));
            }
        }
        Ok(all)
    }
}

/// The result, with a panic as an error: the reader is other people's code on hostile input.
pub(crate) fn guarded<T>(
    read: impl FnOnce() -> std::result::Result<T, String>,
) -> std::result::Result<T, String> {
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| Err("its reader panicked".to_owned()))
}
