//! The footer of a parquet file: its columns and where their pages are.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
};

use super::{
    classes::{Classes, features},
    thrift::{Problem, Read, Thrift},
};

const MAGIC: &[u8; 4] = b"PAR1";
const ENCRYPTED: &[u8; 4] = b"PARE";

/// Most rows of a file: one for each 16 bytes, plus this many, because the index grows with the rows.
const ROWS: u64 = 4096;

/// Every row group takes more bytes of metadata than this, even with one column.
const GROUP_BYTES: u64 = 32;

/// Most columns of a table. Image sets have about ten, and a column takes more memory than bytes in the file.
const COLUMNS: usize = 10_000;

/// The part of the metadata that is needed to read images.
#[derive(Debug)]
pub(super) struct Footer {
    pub(super) image: Leaf,
    pub(super) path: Option<Leaf>,
    pub(super) label: Option<Leaf>,
    /// The names of the labels, if the table has them.
    pub(super) names: Vec<String>,
    /// Why there are no labels, if there are columns of labels.
    pub(super) note: Option<String>,
    pub(super) groups: Vec<Group>,
    /// The table's own row count, which should equal the sum over its groups.
    pub(super) rows: u64,
}

/// What the values of a column are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Physical {
    /// Bytes and strings.
    Bytes,
    /// Integers of 4 bytes.
    Int32,
    /// Integers of 8 bytes.
    Int64,
    #[default]
    Other,
}

impl Physical {
    fn new(number: i64) -> Self {
        match number {
            1 => Self::Int32,
            2 => Self::Int64,
            6 => Self::Bytes,
            _ => Self::Other,
        }
    }

    /// Bytes of a value; `None` if they vary.
    pub(super) fn width(self) -> Option<usize> {
        match self {
            Self::Int32 => Some(4),
            Self::Int64 => Some(8),
            _ => None,
        }
    }
}

/// A column.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leaf {
    /// Its index.
    index: usize,
    pub(super) physical: Physical,
    /// The definition level of a present value; 0 if the column is required.
    pub(super) defined: u32,
}

/// A row group.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) rows: u64,
    pub(super) image: Chunk,
    pub(super) path: Option<Chunk>,
    pub(super) label: Option<Chunk>,
}

impl Group {
    fn chunks(&self) -> impl Iterator<Item = Chunk> + use<> {
        [Some(self.image), self.path, self.label]
            .into_iter()
            .flatten()
    }
}

/// The pages of a column in a row group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Chunk {
    pub(super) codec: i64,
    /// Number of values, nulls included.
    pub(super) values: u64,
    /// Offset of the first page.
    pub(super) start: u64,
    /// Length of all pages in bytes.
    pub(super) length: u64,
}

/// Why a footer cannot be used.
#[derive(Debug)]
pub(super) enum Failure {
    Io(io::Error),
    Broken(String),
    /// There is no image column, or several; these are the columns.
    Columns(String),
}

impl Footer {
    /// Reads the footer of a file. `described` are the columns of classes if the file itself does not describe them.
    pub(super) fn read(mut file: &File, described: Classes) -> Result<Self, Failure> {
        let broken = |text: &str| Failure::Broken(text.to_owned());
        let length = file.metadata().map_err(Failure::Io)?.len();
        if length < 12 {
            return Err(broken("it is too short for a parquet file"));
        }
        let mut end = [0; 8];
        file.seek(SeekFrom::Start(length - 8))
            .and_then(|_| file.read_exact(&mut end))
            .map_err(Failure::Io)?;
        let (size, magic) = end.split_at(4);
        if magic == ENCRYPTED {
            return Err(broken("it is encrypted"));
        }
        if magic != MAGIC {
            return Err(broken(
                "it does not end like a parquet file; it may be truncated",
            ));
        }
        let size = u64::from(u32::from_le_bytes([size[0], size[1], size[2], size[3]]));
        let start = (length - 8)
            .checked_sub(size)
            .ok_or_else(|| broken("its metadata is longer than the file"))?;
        let mut bytes = vec![0; size as usize];
        file.seek(SeekFrom::Start(start))
            .and_then(|_| file.read_exact(&mut bytes))
            .map_err(Failure::Io)?;
        Self::parse(&bytes, start, length, described)
    }

    /// Parses the metadata; `data` is where it begins, and all pages must end before.
    fn parse(bytes: &[u8], data: u64, length: u64, described: Classes) -> Result<Self, Failure> {
        let damaged =
            |p: Problem| Failure::Broken(format!("its metadata is damaged: {}", p.into_reason()));
        let schema = Schema::read(bytes).map_err(damaged)?;
        let (image, path) = schema.columns()?;
        let own = features(bytes).map_err(damaged)?;
        let classes = if own.is_empty() { described } else { own };
        let (label, names, note) = schema.label(&classes);
        let mut footer = Self {
            image,
            path,
            label,
            names,
            note,
            groups: Vec::new(),
            rows: 0,
        };
        let leaves = schema.leaves.len();
        let most_groups = length / GROUP_BYTES + ROWS;
        Thrift::new(bytes)
            .fields(|at, id, _| {
                match id {
                    3 => footer.rows = at.size()?,
                    4 => at.structs(|at, _| {
                        let group = read_group(at, leaves, [Some(image), path, label])?;
                        for chunk in group.chunks() {
                            let end = chunk.start.checked_add(chunk.length);
                            let outside = chunk.start < 4 || end.is_none_or(|end| end > data);
                            if outside && group.rows > 0 {
                                return Err(Problem::wrong("pages are outside the file"));
                            }
                            if chunk.values != group.rows {
                                return Err(Problem::wrong(format!(
                                    "a group of {} rows has a column of {} values",
                                    group.rows, chunk.values
                                )));
                            }
                        }
                        if footer.groups.len() as u64 >= most_groups {
                            return Err(Problem::wrong(format!(
                                "it claims more than {most_groups} row groups in {length} bytes"
                            )));
                        }
                        footer.groups.push(group);
                        Ok(())
                    })?,
                    _ => return Ok(false),
                }
                Ok(true)
            })
            .map_err(damaged)?;
        footer.check_apart().map_err(damaged)?;
        let rows = footer.counted();
        if rows > length / 16 + ROWS {
            return Err(Failure::Broken(format!(
                "it claims {rows} rows of images in {length} bytes"
            )));
        }
        Ok(footer)
    }

    /// Fails if pages overlap: otherwise a short file could have any number of rows to unpack.
    fn check_apart(&self) -> Read<()> {
        let chunks = self.groups.iter().flat_map(Group::chunks);
        let mut places: Vec<(u64, u64)> = chunks
            .filter(|chunk| chunk.length > 0)
            .map(|chunk| (chunk.start, chunk.start.saturating_add(chunk.length)))
            .collect();
        places.sort_unstable();
        match places.windows(2).find(|pair| pair[0].1 > pair[1].0) {
            None => Ok(()),
            Some(pair) => Err(Problem::wrong(format!(
                "the pages at bytes {} to {} and at {} to {} overlap",
                pair[0].0, pair[0].1, pair[1].0, pair[1].1
            ))),
        }
    }

    /// Parses the row groups.
    pub(super) fn counted(&self) -> u64 {
        let rows = self.groups.iter().map(|group| group.rows);
        rows.fold(0, u64::saturating_add)
    }
}

fn read_group(at: &mut Thrift<'_>, leaves: usize, wanted: [Option<Leaf>; 3]) -> Read<Group> {
    let (mut rows, mut found) = (0, [None; 3]);
    at.fields(|at, id, _| {
        match id {
            1 => {
                let mut n = 0;
                at.structs(|at, i| {
                    n = i + 1;
                    let chunk = read_chunk(at)?;
                    for (found, wanted) in found.iter_mut().zip(wanted) {
                        if wanted.is_some_and(|leaf| i == leaf.index) {
                            *found = Some(chunk);
                        }
                    }
                    Ok(())
                })?;
                if n != leaves {
                    return Err(Problem::wrong(format!(
                        "a group has {n} columns, expected {leaves}"
                    )));
                }
            }
            3 => rows = at.size()?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(Group {
        rows,
        image: found[0].ok_or(Problem::Short)?,
        path: found[1],
        label: found[2],
    })
}

fn read_chunk(at: &mut Thrift<'_>) -> Read<Chunk> {
    let mut chunk = Chunk::default();
    let (mut data, mut dictionary, mut elsewhere, mut there) = (0, 0, false, false);
    at.fields(|at, id, _| {
        match id {
            1 => elsewhere = !at.binary()?.is_empty(),
            3 => {
                there = true;
                at.fields(|at, id, _| {
                    match id {
                        4 => chunk.codec = at.int()?,
                        5 => chunk.values = at.size()?,
                        7 => chunk.length = at.size()?,
                        9 => data = at.size()?,
                        11 => dictionary = at.size()?,
                        _ => return Ok(false),
                    }
                    Ok(true)
                })?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    if elsewhere {
        return Err(Problem::wrong("a column is in another file"));
    }
    if !there {
        return Err(Problem::wrong("a column is encrypted, or has no metadata"));
    }
    // Some writers write 0 if there is no dictionary.
    chunk.start = match dictionary {
        1.. if dictionary < data => dictionary,
        _ => data,
    };
    Ok(chunk)
}

/// The columns of a table. Names are borrowed: a long one must not be copied for every column under it.
pub(super) struct Schema<'a> {
    pub(super) leaves: Vec<Column<'a>>,
}

pub(super) struct Column<'a> {
    /// Name of the outermost group, or of the column itself.
    first: &'a [u8],
    pub(super) last: &'a [u8],
    /// Names on its path, its own included.
    pub(super) depth: usize,
    pub(super) physical: Physical,
    /// Whether it has a logical type, such as a string.
    is_labelled: bool,
    pub(super) is_repeated: bool,
    defined: u32,
}

impl Column<'_> {
    fn is_bytes(&self) -> bool {
        self.physical == Physical::Bytes
    }
}

/// One element of the schema, which is a tree stored with the number of children of each node.
#[derive(Default)]
struct Element<'a> {
    name: Option<&'a [u8]>,
    kind: i64,
    repetition: i64,
    children: u64,
    is_labelled: bool,
}

impl<'a> Schema<'a> {
    fn read(bytes: &'a [u8]) -> Read<Self> {
        // Open groups: remaining children, the outermost name, repetition and level so far.
        let mut open: Vec<(u64, &'a [u8], bool, u32)> = Vec::new();
        let mut leaves = Vec::new();
        let mut is_root = true;
        Thrift::new(bytes).fields(|at, id, _| {
            if id != 2 {
                return Ok(false);
            }
            at.structs(|at, _| {
                let element = read_element(at)?;
                if is_root {
                    is_root = false;
                    open.push((element.children, b"", false, 0));
                    return Ok(());
                }
                while open.last().is_some_and(|(left, ..)| *left == 0) {
                    open.pop();
                }
                let depth = open.len();
                let Some((left, first, repeated, level)) = open.last_mut() else {
                    return Err(Problem::wrong("columns outside the table"));
                };
                *left -= 1;
                let name = element
                    .name
                    .ok_or_else(|| Problem::wrong("a column has no name"))?;
                let first = if depth == 1 { name } else { *first };
                let repeated = *repeated || element.repetition == 2;
                let level = *level + u32::from(element.repetition != 0);
                if depth > 64 {
                    return Err(Problem::wrong("groups are nested more than 64 deep"));
                }
                if element.children > 0 {
                    open.push((element.children, first, repeated, level));
                    return Ok(());
                }
                if leaves.len() == COLUMNS {
                    return Err(Problem::wrong(format!("more than {COLUMNS} columns")));
                }
                leaves.push(Column {
                    first,
                    last: name,
                    depth,
                    physical: Physical::new(element.kind),
                    is_labelled: element.is_labelled,
                    is_repeated: repeated,
                    defined: level,
                });
                Ok(())
            })?;
            Ok(true)
        })?;
        Ok(Self { leaves })
    }

    /// The image column (`image.bytes`, as the Hub stores images, or else the only column of bytes) and the name column.
    fn columns(&self) -> Result<(Leaf, Option<Leaf>), Failure> {
        let is_candidate = |i: &usize| {
            let column = &self.leaves[*i];
            let is_nested = column.depth == 2 && column.last == b"bytes";
            // Strings are stored as bytes, too, but have a logical type.
            let is_flat = column.depth == 1 && !column.is_labelled;
            column.is_bytes() && !column.is_repeated && (is_nested || is_flat)
        };
        let candidates: Vec<usize> = (0..self.leaves.len()).filter(is_candidate).collect();
        let is_named = |i: &&usize| [&b"image"[..], b"img"].contains(&self.leaves[**i].first);
        let image = match (candidates.iter().find(is_named), candidates.as_slice()) {
            (Some(&i), _) | (None, &[i]) => i,
            _ => return Err(Failure::Columns(self.describe())),
        };
        let path = self.leaves.iter().position(|column| {
            column.is_bytes()
                && !column.is_repeated
                && column.depth == 2
                && column.first == self.leaves[image].first
                && column.last == b"path"
        });
        Ok((self.leaf(image), path.map(|path| self.leaf(path))))
    }

    pub(super) fn leaf(&self, index: usize) -> Leaf {
        Leaf {
            index,
            physical: self.leaves[index].physical,
            defined: self.leaves[index].defined,
        }
    }

    /// The names of the first few columns.
    fn describe(&self) -> String {
        const SHOWN: usize = 12;
        const LONGEST: usize = 40;
        if self.leaves.is_empty() {
            return "no columns".to_owned();
        }
        let text = |name: &[u8]| match name {
            [] => "\"\"".to_owned(),
            name => String::from_utf8_lossy(&name[..name.len().min(LONGEST)]).into_owned(),
        };
        let names: Vec<String> = self
            .leaves
            .iter()
            .take(SHOWN)
            .map(|column| match column.depth {
                1 => text(column.last),
                2 => format!("{}.{}", text(column.first), text(column.last)),
                _ => format!("{}...{}", text(column.first), text(column.last)),
            })
            .collect();
        let more = match self.leaves.len().saturating_sub(SHOWN) {
            0 => String::new(),
            n => format!(" and {n} more"),
        };
        format!("the columns {}{more}", names.join(", "))
    }
}

fn read_element<'a>(at: &mut Thrift<'a>) -> Read<Element<'a>> {
    let mut element = Element::default();
    at.fields(|at, id, _| {
        match id {
            1 => element.kind = at.int()?,
            3 => element.repetition = at.int()?,
            4 => element.name = Some(at.binary()?),
            5 => element.children = at.size()?,
            6 | 10 => {
                element.is_labelled = true;
                return Ok(false);
            }
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(element)
}
