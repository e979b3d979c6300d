//! The end of a parquet file: which columns there are, and where their pages lie.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
};

use super::thrift::{Problem, Read, Thrift};

const MAGIC: &[u8; 4] = b"PAR1";
const ENCRYPTED: &[u8; 4] = b"PARE";

/// A file has 16 bytes for each of its rows, and these more: rows are what an index grows with.
const ROWS: u64 = 4096;

/// Every group takes more bytes of the metadata than this, even of one column.
const GROUP_BYTES: u64 = 32;

/// Most columns of a table. Image sets have a dozen; what is kept of a column is many times the bytes that announce one.
const COLUMNS: usize = 10_000;

/// The physical type of bytes and text.
const BYTE_ARRAY: i64 = 6;

/// What is needed of a table to read its images.
#[derive(Debug)]
pub(super) struct Footer {
    pub(super) image: Leaf,
    pub(super) path: Option<Leaf>,
    pub(super) groups: Vec<Group>,
    /// Rows by the table's own count, which should be that of its groups.
    pub(super) rows: u64,
}

/// A column of bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leaf {
    /// Its number.
    index: usize,
    /// The level at which a value is there; 0 if it always is.
    pub(super) defined: u32,
}

/// Some rows of a table.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) rows: u64,
    pub(super) image: Chunk,
    pub(super) path: Option<Chunk>,
}

/// The pages of a column in a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Chunk {
    pub(super) codec: i64,
    /// Rows, those without a value included.
    pub(super) values: u64,
    /// The first byte of the first page.
    pub(super) start: u64,
    /// Bytes of all pages.
    pub(super) length: u64,
}

/// Why a footer is of no use.
#[derive(Debug)]
pub(super) enum Failure {
    Io(io::Error),
    Broken(String),
    /// There is no column of images, or several; these are there.
    Columns(String),
}

impl Footer {
    /// Reads the end of a file.
    pub(super) fn read(mut file: &File) -> Result<Self, Failure> {
        let broken = |text: &str| Failure::Broken(text.to_owned());
        let length = file.metadata().map_err(Failure::Io)?.len();
        if length < 12 {
            return Err(broken("it is too short for a table"));
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
            return Err(broken("it does not end as a table does; is it cut off?"));
        }
        let size = u64::from(u32::from_le_bytes([size[0], size[1], size[2], size[3]]));
        let start = (length - 8)
            .checked_sub(size)
            .ok_or_else(|| broken("its metadata are longer than the file"))?;
        let mut bytes = vec![0; size as usize];
        file.seek(SeekFrom::Start(start))
            .and_then(|_| file.read_exact(&mut bytes))
            .map_err(Failure::Io)?;
        Self::parse(&bytes, start, length)
    }

    /// `data` is where the metadata begin and all pages must have ended.
    fn parse(bytes: &[u8], data: u64, length: u64) -> Result<Self, Failure> {
        let damaged =
            |p: Problem| Failure::Broken(format!("its metadata are damaged: {}", p.into_reason()));
        let schema = Schema::read(bytes).map_err(damaged)?;
        let (image, path) = schema.columns().map_err(Failure::Columns)?;
        let mut footer = Self {
            image,
            path,
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
                        let group = read_group(at, leaves, image, path)?;
                        for chunk in [Some(group.image), group.path].into_iter().flatten() {
                            let end = chunk.start.checked_add(chunk.length);
                            let outside = chunk.start < 4 || end.is_none_or(|end| end > data);
                            if outside && group.rows > 0 {
                                return Err(Problem::wrong("pages lie outside the file"));
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
                                "it announces more than {most_groups} groups in {length} bytes"
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
                "it announces {rows} rows of images in {length} bytes"
            )));
        }
        Ok(footer)
    }

    /// Fails if pages belong to several columns or groups: a short file could otherwise have any number of rows to unpack.
    fn check_apart(&self) -> Read<()> {
        let chunks = self.groups.iter().flat_map(|g| [Some(g.image), g.path]);
        let mut places: Vec<(u64, u64)> = chunks
            .flatten()
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

    /// Rows of all groups.
    pub(super) fn counted(&self) -> u64 {
        let rows = self.groups.iter().map(|group| group.rows);
        rows.fold(0, u64::saturating_add)
    }
}

fn read_group(at: &mut Thrift<'_>, leaves: usize, image: Leaf, path: Option<Leaf>) -> Read<Group> {
    let (mut rows, mut found) = (0, [None; 2]);
    at.fields(|at, id, _| {
        match id {
            1 => {
                let mut n = 0;
                at.structs(|at, i| {
                    n = i + 1;
                    let chunk = read_chunk(at)?;
                    if i == image.index {
                        found[0] = Some(chunk);
                    }
                    if path.is_some_and(|path| i == path.index) {
                        found[1] = Some(chunk);
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
        return Err(Problem::wrong("a column lies in another file"));
    }
    if !there {
        return Err(Problem::wrong(
            "a column is encrypted, or says nothing of itself",
        ));
    }
    // Some writers say 0 where there is no dictionary.
    chunk.start = match dictionary {
        1.. if dictionary < data => dictionary,
        _ => data,
    };
    Ok(chunk)
}

/// The columns of a table. Names stay where they are: a long one must not be copied for every column under it.
struct Schema<'a> {
    leaves: Vec<Column<'a>>,
}

struct Column<'a> {
    /// Name of the outermost group, or of the column itself.
    first: &'a [u8],
    last: &'a [u8],
    /// Names on the way to it, its own included.
    depth: usize,
    is_bytes: bool,
    /// It says what its bytes are, text for example.
    is_labelled: bool,
    is_repeated: bool,
    defined: u32,
}

/// One element of the schema's list, which is a tree with the number of children in each node.
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
        // Open groups: children to come, the outermost name, repetition and level so far.
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
                    is_bytes: element.kind == BYTE_ARRAY,
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

    /// The column of images, `image.bytes` as the Hub's image feature is stored, else the only column of bytes; and that of names.
    fn columns(&self) -> Result<(Leaf, Option<Leaf>), String> {
        let leaf = |index: usize| Leaf {
            index,
            defined: self.leaves[index].defined,
        };
        let is_candidate = |i: &usize| {
            let column = &self.leaves[*i];
            let is_nested = column.depth == 2 && column.last == b"bytes";
            // Text is stored as bytes, too, but says so.
            let is_flat = column.depth == 1 && !column.is_labelled;
            column.is_bytes && !column.is_repeated && (is_nested || is_flat)
        };
        let candidates: Vec<usize> = (0..self.leaves.len()).filter(is_candidate).collect();
        let is_named = |i: &&usize| [&b"image"[..], b"img"].contains(&self.leaves[**i].first);
        let image = match (candidates.iter().find(is_named), candidates.as_slice()) {
            (Some(&i), _) | (None, &[i]) => i,
            _ => return Err(self.describe()),
        };
        let path = self.leaves.iter().position(|column| {
            column.is_bytes
                && !column.is_repeated
                && column.depth == 2
                && column.first == self.leaves[image].first
                && column.last == b"path"
        });
        Ok((leaf(image), path.map(leaf)))
    }

    /// The first few columns by their names.
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
