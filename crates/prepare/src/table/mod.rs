//! Parquet tables, as the Hub serves image data sets.

// Only the columns of images, names and labels are read, so this is a separate reader. It compares every length in a file with the bytes that exist, uses
// memory of a few times a page, and does not panic on any input.

mod classes;
mod column;
mod footer;
mod numbers;
mod thrift;

use std::{path::Path, sync::Arc};

use crate::{
    PrepareError, Result,
    error::{EntryResult, Reason},
    input::{Content, Input, Item},
    labels::{self, Label},
};
use column::{Budget, Column};
use footer::{Failure, Footer, Group, Leaf, Physical};

/// Opens a table; the sources of its rows begin with `called`.
pub(crate) fn open(path: &Path, called: &str) -> Result<Input> {
    let io = |cause| PrepareError::Io {
        path: path.to_owned(),
        cause,
    };
    let file = sdft_files::open_regular(path).map_err(io)?;
    let length = file.metadata().map_err(io)?.len();
    let footer =
        Footer::read(&file, classes::described(path)).map_err(|failure| match failure {
            Failure::Io(cause) => io(cause),
            Failure::Broken(reason) => PrepareError::Broken {
                path: path.to_owned(),
                kind: "parquet",
                reason,
            },
            Failure::Columns(found) => PrepareError::Column {
                path: path.to_owned(),
                found,
            },
        })?;
    let mut input = Input::default();
    input
        .notes
        .extend(footer.note.as_ref().map(|note| format!("{called}: {note}")));
    let rows = footer.counted();
    if footer.rows != rows {
        let reason = format!(
            "it claims {} rows, but its row groups have {rows}",
            footer.rows
        );
        input.refuse(called.to_owned(), &reason);
    }
    let table = Table {
        name: called.to_owned(),
        file: Arc::new(file),
        leaves: [Some(footer.image), footer.path, footer.label],
        names: labels::names(footer.names),
        groups: footer.groups.into_iter(),
        row: 0,
        open: None,
        budget: Budget::new(length),
    };
    input.classes.extend(table.names.iter().cloned());
    input.push(usize::try_from(rows).unwrap_or(usize::MAX), table);
    Ok(input)
}

/// An iterator over the rows of a table.
struct Table {
    name: String,
    file: Arc<std::fs::File>,
    /// The columns of images, names and labels.
    leaves: [Option<Leaf>; 3],
    /// The names of the labels, if the table has them.
    names: Vec<Arc<str>>,
    /// The groups that are not open yet.
    groups: std::vec::IntoIter<Group>,
    /// Rows returned so far, over all groups.
    row: u64,
    open: Option<Open>,
    budget: Budget,
}

/// An open row group.
struct Open {
    image: Column,
    path: Option<Column>,
    /// The labels, unless they cannot be read.
    label: Option<Column>,
    left: u64,
}

/// The image, the name and the label of a row, if present.
type Row = [Option<Vec<u8>>; 3];

impl Iterator for Table {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        loop {
            if self.open.is_none() {
                self.open_group()?;
            }
            let open = self.open.as_mut()?;
            if open.left == 0 {
                // Extra rows would otherwise be lost silently.
                let more = open.image.next(&mut self.budget);
                self.open = None;
                if matches!(more, Ok(None)) {
                    continue;
                }
                let reason = "a row group has more rows than the table claims".to_owned();
                return Some(self.item(self.row, None, Content::Refused(reason)));
            }
            return Some(match open.read(&mut self.budget) {
                Ok([image, path, label]) => {
                    open.left -= 1;
                    let row = self.row;
                    self.row += 1;
                    let path = path.map(|path| String::from_utf8_lossy(&path).into_owned());
                    let content = match image {
                        Some(bytes) => Content::Bytes(bytes),
                        None => Content::Refused("the row has no image bytes".to_owned()),
                    };
                    Item {
                        label: label.and_then(|label| self.label(&label)),
                        ..self.item(row, path.as_deref(), content)
                    }
                }
                Err(reason) => {
                    let (first, left) = (self.row, open.left);
                    self.row = self.row.saturating_add(left);
                    self.open = None;
                    let reason = match left {
                        1 => format!("the row cannot be read: {reason}"),
                        _ => format!("rows {first} to {} cannot be read: {reason}", self.row - 1),
                    };
                    self.item(first, None, Content::Refused(reason))
                }
            });
        }
    }
}

impl Table {
    /// Opens the next row group, if there is one.
    fn open_group(&mut self) -> Option<()> {
        let group = self.groups.next()?;
        let chunks = [Some(group.image), group.path, group.label];
        let [image, path, label] = std::array::from_fn(|i| {
            let (chunk, leaf) = chunks[i].zip(self.leaves[i])?;
            Some(Column::new(&self.file, chunk, leaf))
        });
        self.open = Some(Open {
            image: image?,
            path,
            label,
            left: group.rows,
        });
        Some(())
    }

    /// The label with this value, by its name if the labels have names.
    fn label(&self, value: &[u8]) -> Option<Label> {
        let number = match self.leaves[2]?.physical {
            Physical::Bytes => return Label::text(&String::from_utf8_lossy(value)),
            Physical::Int32 => i64::from(i32::from_le_bytes(*value.first_chunk()?)),
            _ => i64::from_le_bytes(*value.first_chunk()?),
        };
        Label::number(number).map(|label| labels::named(label, &self.names))
    }

    fn item(&self, row: u64, path: Option<&str>, content: Content) -> Item {
        Item::row(&self.name, row, path, content)
    }
}

impl Open {
    fn read(&mut self, budget: &mut Budget) -> EntryResult<Row> {
        let early = || Reason::from("the table is truncated");
        let image = self.image.next(budget)?.ok_or_else(early)?;
        let path = match &mut self.path {
            Some(column) => column.next(budget)?.ok_or_else(early)?,
            None => None,
        };
        // An image counts without its label, which the report states.
        let label = self.label.as_mut().map(|column| column.next(budget));
        let label = match label {
            Some(Ok(Some(label))) => label,
            Some(_) => {
                self.label = None;
                None
            }
            None => None,
        };
        Ok([image, path, label])
    }
}
