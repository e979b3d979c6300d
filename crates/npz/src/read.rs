//! Reading archives.

use crate::array::{Array, Values, count, to_c_order};
use crate::dtype::{Dtype, Order};
use crate::error::{Error, Problem, Result};
use crate::header::{Header, MAGIC, read_header};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Cursor, Read, Seek};
use std::path::Path;
use zip::{CompressionMethod, ZipArchive};

/// The most bytes of a decompressed array.
const MAX_INFLATED: u64 = 1 << 32;

/// The most memory of all arrays of a file: this many bytes, and this many times the file.
const MEMORY: u64 = 62 << 20;
const MEMORY_RATIO: u64 = 16;

/// The most bytes that Deflate makes of one.
const MAX_RATIO: u64 = 1032;

/// Reads all arrays of a `.npz` file, by name without `.npy`.
///
/// Supports unsigned integers of 8, 16 and 32 bits, signed ones of 8, 16, 32 and 64 bits, and floating-point numbers of 16, 32 and 64 bits; [`Values`] has the
/// type that each is read as. Arrays in Fortran order are reordered to C order.
///
/// # Errors
/// The file cannot be opened, is not a zip archive, or is damaged; an entry is not an array, occurs twice, is of another type, is shorter
/// or longer than in its header, or has more than 4 GiB when decompressed; the arrays take more memory than 16 times the file and 64 MB.
pub fn read_npz(path: &Path) -> Result<BTreeMap<String, Array>> {
    read_npz_where(path, |_| true)
}

/// Like [`read_npz`], for the arrays whose names `wanted` accepts; the others are not read.
///
/// Reference files of images hold statistics and gigabytes of pixels, of which usually one is needed.
///
/// # Errors
/// Those of [`read_npz`] about the wanted arrays.
pub fn read_npz_where(
    path: &Path,
    wanted: impl FnMut(&str) -> bool,
) -> Result<BTreeMap<String, Array>> {
    let open = |source| Error::Open {
        path: path.to_owned(),
        source,
    };
    // Checked before opening, because opening a pipe waits for its writer.
    if !std::fs::metadata(path).map_err(open)?.is_file() {
        return Err(Error::Archive {
            file: path.display().to_string(),
            problem: "expected a regular file, found a folder, pipe or device".to_owned(),
        });
    }
    let file = File::open(path).map_err(open)?;
    let len = file.metadata().map_err(open)?.len();
    let name = path.display().to_string();
    let mut wanted = wanted;
    read_archive(BufReader::new(file), len, &name, |array| {
        match wanted(array) {
            true => Part::All,
            false => Part::Nothing,
        }
    })
}

/// Like [`read_npz`], from memory; errors call it `file`.
///
/// # Errors
/// Those of [`read_npz`].
pub fn read_npz_bytes(bytes: &[u8], file: &str) -> Result<BTreeMap<String, Array>> {
    from_memory(bytes, file, |_| Part::All)
}

/// The shapes of all arrays of a `.npz` in memory; no values are read.
///
/// # Errors
/// Those of [`read_npz`] about headers.
pub fn npz_shapes(bytes: &[u8], file: &str) -> Result<BTreeMap<String, Vec<usize>>> {
    let arrays = from_memory(bytes, file, |_| Part::Shape)?;
    Ok(arrays
        .into_iter()
        .map(|(name, array)| (name, array.shape))
        .collect())
}

/// One array of a `.npz` in memory, or item `item` of its first axis.
///
/// # Errors
/// Those of [`read_npz`] about this array, or that there is no such array or item.
pub fn read_npz_array(bytes: &[u8], file: &str, name: &str, item: Option<usize>) -> Result<Array> {
    let mut arrays = from_memory(bytes, file, |array| match item {
        _ if array != name => Part::Nothing,
        None => Part::All,
        Some(item) => Part::Item(item),
    })?;
    arrays.remove(name).ok_or_else(|| Error::Archive {
        file: file.to_owned(),
        problem: format!("it has no array {name:?}"),
    })
}

/// The shape of a `.npy` in memory.
///
/// # Errors
/// The header is damaged, or the file is shorter or longer than in it.
pub fn npy_shape(bytes: &[u8], file: &str) -> Result<Vec<usize>> {
    Ok(read_npy(bytes, file, Part::Shape)?.shape)
}

/// The array of a `.npy` in memory, or item `item` of its first axis.
///
/// # Errors
/// The file is damaged, shorter or longer than in its header, or has no such item; its values are of a type that is not read.
pub fn read_npy_bytes(bytes: &[u8], file: &str, item: Option<usize>) -> Result<Array> {
    read_npy(bytes, file, item.map_or(Part::All, Part::Item))
}

fn read_npy(bytes: &[u8], file: &str, part: Part) -> Result<Array> {
    let header = read_header(&mut &*bytes).map_err(|problem| alone(problem, file))?;
    let dtype = Dtype::parse(&header.descr).map_err(|hint| Error::Dtype {
        file: file.to_owned(),
        entry: "the array".to_owned(),
        dtype: header.descr.clone(),
        hint,
    })?;
    let mut values = bytes.get(header.len as usize..).unwrap_or_default();
    read_part(
        &mut values,
        header,
        dtype,
        bytes.len() as u64,
        u64::MAX,
        part,
    )
    .map_err(|problem| alone(problem, file))
}

fn alone(Problem(problem): Problem, file: &str) -> Error {
    Error::Archive {
        file: file.to_owned(),
        problem,
    }
}

/// What is read of an array.
#[derive(Clone, Copy)]
enum Part {
    Nothing,
    /// Its shape, without values.
    Shape,
    /// One item of the first axis.
    Item(usize),
    All,
}

fn from_memory(
    bytes: &[u8],
    file: &str,
    wanted: impl FnMut(&str) -> Part,
) -> Result<BTreeMap<String, Array>> {
    read_archive(Cursor::new(bytes), bytes.len() as u64, file, wanted)
}

fn read_archive<R: Read + Seek>(
    mut input: R,
    len: u64,
    file: &str,
    mut wanted: impl FnMut(&str) -> Part,
) -> Result<BTreeMap<String, Array>> {
    let bad = |problem: String| Error::Archive {
        file: file.to_owned(),
        problem,
    };
    check_magic(&mut input).map_err(|Problem(problem)| bad(problem))?;
    let damaged = |e| {
        bad(format!(
            "the list of arrays cannot be read ({e}); is the file cut off?"
        ))
    };
    let mut archive = ZipArchive::new(input).map_err(damaged)?;
    if archive.has_duplicate_names() {
        return Err(bad("an array occurs twice".to_owned()));
    }
    // Entries that share bytes would make a small archive out of many large arrays.
    if archive.has_overlapping_entries().map_err(damaged)? {
        return Err(bad("arrays overlap".to_owned()));
    }
    let mut arrays = BTreeMap::new();
    let mut left = MEMORY.saturating_add(len.saturating_mul(MEMORY_RATIO));
    for index in 0..archive.len() {
        let mut entry = archive
            .by_index(index)
            .map_err(|e| bad(format!("entry {index} of the archive cannot be read: {e}")))?;
        let entry_name = String::from_utf8_lossy(entry.name_raw()).into_owned();
        let bad_entry = |Problem(problem): Problem| Error::Entry {
            file: file.to_owned(),
            entry: entry_name.clone(),
            problem,
        };
        let Some(name) = entry_name.strip_suffix(".npy") else {
            return Err(bad_entry(
                "not an array: expected a name that ends with .npy"
                    .to_owned()
                    .into(),
            ));
        };
        let part = wanted(name);
        if matches!(part, Part::Nothing) {
            continue;
        }
        let size = entry.size();
        check_size(size, entry.compressed_size(), entry.compression(), len).map_err(bad_entry)?;
        let header = read_header(&mut entry).map_err(bad_entry)?;
        let dtype = Dtype::parse(&header.descr).map_err(|hint| Error::Dtype {
            file: file.to_owned(),
            entry: entry_name.clone(),
            dtype: header.descr.clone(),
            hint,
        })?;
        let array = read_part(&mut entry, header, dtype, size, left, part).map_err(bad_entry)?;
        left = left.saturating_sub((array.len() * dtype.size_in_memory()) as u64);
        arrays.insert(name.to_owned(), array);
    }
    Ok(arrays)
}

/// Fails unless the input begins like a zip archive. Rewinds it.
fn check_magic<R: Read + Seek>(input: &mut R) -> std::result::Result<(), Problem> {
    let mut start = Vec::new();
    input
        .by_ref()
        .take(MAGIC.len() as u64)
        .read_to_end(&mut start)
        .and_then(|_| input.rewind())
        .map_err(|e| format!("cannot be read: {e}"))?;
    // The second is the start of an empty archive.
    if start.starts_with(b"PK\x03\x04") || start.starts_with(b"PK\x05\x06") {
        return Ok(());
    }
    let found = if start == MAGIC {
        "a single array (.npy)".to_owned()
    } else if start.is_empty() {
        "an empty file".to_owned()
    } else {
        format!("a file that begins with \"{}\"", start.escape_ascii())
    };
    Err(Problem(format!(
        "expected a zip archive of arrays (.npz), found {found}"
    )))
}

/// Fails unless the stored bytes can expand to `size` bytes.
fn check_size(
    size: u64,
    compressed: u64,
    method: CompressionMethod,
    len: u64,
) -> std::result::Result<(), Problem> {
    if compressed > len {
        return Err(Problem(format!(
            "{compressed} bytes are listed for it, and the whole file has {len}"
        )));
    }
    match method {
        CompressionMethod::Stored if size == compressed => Ok(()),
        CompressionMethod::Stored => Err(Problem(format!(
            "{size} bytes are listed for it, and {compressed} are stored"
        ))),
        CompressionMethod::Deflated if size > MAX_INFLATED => Err(Problem(format!(
            "it comes to {size} bytes, expected at most {MAX_INFLATED} of a compressed array"
        ))),
        CompressionMethod::Deflated
            if size > compressed.saturating_add(1).saturating_mul(MAX_RATIO) =>
        {
            Err(Problem(format!(
                "{size} bytes are listed for it, more than the {compressed} stored can come to"
            )))
        }
        CompressionMethod::Deflated => Ok(()),
        other => Err(Problem(format!(
            "compressed by {other}, expected deflate or no compression"
        ))),
    }
}

/// Reads a part of an array after its header.
fn read_part(
    input: &mut impl Read,
    mut header: Header,
    dtype: Dtype,
    size: u64,
    memory: u64,
    part: Part,
) -> std::result::Result<Array, Problem> {
    let n = check_count(&header, dtype, size)?;
    let (item, items, rest) = match (part, header.shape.split_first()) {
        (Part::Nothing | Part::Shape, _) => {
            return Ok(Array {
                values: Values::U8(Vec::new()),
                shape: header.shape,
            });
        }
        (Part::All, _) => {
            let values = read_values(input, &header, dtype, size, memory)?;
            return Ok(Array {
                shape: header.shape,
                values,
            });
        }
        (Part::Item(item), Some((&items, rest))) if item < items => (item, items, rest.to_vec()),
        (Part::Item(item), _) => {
            return Err(Problem(format!(
                "it has no item {item}: its shape is {:?}",
                header.shape
            )));
        }
    };
    let n = n / items;
    let values = if header.is_fortran {
        read_values(input, &header, dtype, size, memory)?.part(item * n..(item + 1) * n)
    } else {
        let one = (n * dtype.size()) as u64;
        io::copy(&mut input.by_ref().take(one * item as u64), &mut io::sink())
            .map_err(|e| format!("reading its values: {e}"))?;
        header.shape.clone_from(&rest);
        let size = header.len + one;
        read_values(&mut input.by_ref().take(one), &header, dtype, size, memory)?
    };
    Ok(Array {
        shape: rest,
        values,
    })
}

/// Number of values, which must fill the `size` bytes of the array and its header.
fn check_count(header: &Header, dtype: Dtype, size: u64) -> std::result::Result<usize, Problem> {
    let shape = &header.shape;
    let needed = count(shape)
        .and_then(|count| Some((count, u64::try_from(count.checked_mul(dtype.size())?).ok()?)));
    let there = size.saturating_sub(header.len);
    match needed {
        Some((count, needed)) if needed == there => Ok(count),
        _ => {
            let needed = needed.map_or("more bytes than can be counted".to_owned(), |(_, n)| {
                format!("{n} bytes")
            });
            Err(Problem(format!(
                "values of type {} and shape {shape:?} need {needed}, found {there}",
                header.descr
            )))
        }
    }
}

/// Reads the values after the header, which must end the entry. `size` is the length of the whole entry, and `memory` the number of bytes
/// that may be allocated.
fn read_values(
    input: &mut impl Read,
    header: &Header,
    dtype: Dtype,
    size: u64,
    memory: u64,
) -> std::result::Result<Values, Problem> {
    let shape = &header.shape;
    let count = check_count(header, dtype, size)?;
    let there = size.saturating_sub(header.len);
    // Reordering needs a second copy of the values.
    let copies = if header.is_fortran && shape.len() > 1 {
        2
    } else {
        1
    };
    let bytes = (count as u64).saturating_mul(copies * dtype.size_in_memory() as u64);
    if bytes > memory {
        return Err(Problem(format!(
            "its {count} values take {bytes} bytes of memory, expected at most {MEMORY_RATIO} times the file and 64 MB; if it is sound, \
             save it without compression (numpy.savez)"
        )));
    }
    let failed = |e: io::Error| match e.kind() {
        io::ErrorKind::UnexpectedEof => {
            format!("it ends before its {there} bytes of values: the file is cut off")
        }
        _ => format!("reading its values: {e}"),
    };
    let order = AxisOrder(header);
    let values = dtype.read(input, count, order).map_err(failed)?;
    // The checksum is checked when the end is reached.
    match input.read(&mut [0]).map_err(failed)? {
        0 => Ok(values),
        _ => Err(Problem(format!(
            "it has more than its {there} bytes of values"
        ))),
    }
}

struct AxisOrder<'a>(&'a Header);

impl Order for AxisOrder<'_> {
    fn put<T: Copy>(&self, values: Vec<T>) -> Vec<T> {
        if self.0.is_fortran {
            to_c_order(values, &self.0.shape)
        } else {
            values
        }
    }
}

#[cfg(test)]
mod tests;
