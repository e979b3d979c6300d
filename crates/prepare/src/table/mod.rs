//! Parquet tables, as the Hub serves image data sets.
//!
//! Two columns of bytes are all that is read, so this is a reader of its own: no length in a file is believed before it was compared with
//! the bytes that are there, memory stays within a few times a page, and nothing in a file makes it panic.

mod column;
mod footer;
mod numbers;
mod thrift;

use std::{path::Path, sync::Arc};

use crate::{
    PrepareError, Result,
    input::{Content, Input, Item},
};
use column::{Budget, Column};
use footer::{Failure, Footer, Group, Leaf};

/// The images of a table, whose rows begin with what it is `called`.
pub(crate) fn open(path: &Path, called: &str) -> Result<Input> {
    let io = |cause| PrepareError::Io {
        path: path.to_owned(),
        cause,
    };
    let file = sdft_files::open_regular(path).map_err(io)?;
    let length = file.metadata().map_err(io)?.len();
    let footer = Footer::read(&file).map_err(|failure| match failure {
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
    let rows = footer.counted();
    if footer.rows != rows {
        let reason = format!(
            "it says that it has {} rows, its groups have {rows}",
            footer.rows
        );
        input.refuse(called.to_owned(), &reason);
    }
    let table = Table {
        name: called.to_owned(),
        file: Arc::new(file),
        leaves: (footer.image, footer.path),
        groups: footer.groups.into_iter(),
        row: 0,
        open: None,
        budget: Budget::new(length),
    };
    input.push(usize::try_from(rows).unwrap_or(usize::MAX), table);
    Ok(input)
}

/// The rows of a table, one after the other.
struct Table {
    name: String,
    file: Arc<std::fs::File>,
    leaves: (Leaf, Option<Leaf>),
    /// The groups that were not opened yet.
    groups: std::vec::IntoIter<Group>,
    /// Rows given so far, in all groups.
    row: u64,
    open: Option<Open>,
    budget: Budget,
}

/// A group of rows that is being read.
struct Open {
    image: Column,
    path: Option<Column>,
    left: u64,
}

/// A row's image and name, where it has them.
type Row = (Option<Vec<u8>>, Option<Vec<u8>>);

impl Iterator for Table {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        loop {
            if self.open.is_none() {
                self.open_group()?;
            }
            let open = self.open.as_mut()?;
            if open.left == 0 {
                // A table that has more rows than it says would lose them without a word.
                let more = open.image.next(&mut self.budget);
                self.open = None;
                if matches!(more, Ok(None)) {
                    continue;
                }
                let reason = "a group has more rows than the table says".to_owned();
                return Some(self.item(self.row, None, Content::Refused(reason)));
            }
            return Some(match open.read(&mut self.budget) {
                Ok((image, path)) => {
                    open.left -= 1;
                    let row = self.row;
                    self.row += 1;
                    let path = path.map(|path| String::from_utf8_lossy(&path).into_owned());
                    let content = match image {
                        Some(bytes) => Content::Bytes(bytes),
                        None => Content::Refused("the row has no bytes".to_owned()),
                    };
                    self.item(row, path.as_deref(), content)
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
    /// Opens the next group, if there is one.
    fn open_group(&mut self) -> Option<()> {
        let group = self.groups.next()?;
        let column = |chunk, leaf: Leaf| Column::new(&self.file, chunk, leaf.defined);
        self.open = Some(Open {
            image: column(group.image, self.leaves.0),
            path: group
                .path
                .zip(self.leaves.1)
                .map(|(chunk, leaf)| column(chunk, leaf)),
            left: group.rows,
        });
        Some(())
    }

    fn item(&self, row: u64, path: Option<&str>, content: Content) -> Item {
        Item::row(&self.name, row, path, content)
    }
}

impl Open {
    fn read(&mut self, budget: &mut Budget) -> std::result::Result<Row, String> {
        let early = || "the table ends before its last row".to_owned();
        let image = self.image.next(budget)?.ok_or_else(early)?;
        let path = match &mut self.path {
            Some(column) => column.next(budget)?.ok_or_else(early)?,
            None => None,
        };
        Ok((image, path))
    }
}
