//! Writing archives.

use crate::array::{Array, Values};
use crate::error::{Error, Result};
use crate::header::MAGIC;
use std::collections::BTreeSet;
use std::io::{Cursor, Write};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, System, ZipWriter};

/// Values start at a multiple of this, so that a program that maps the file can use them in place.
const ALIGNMENT: usize = 64;

/// Entries from this size on have 64-bit sizes. Smaller ones stay below 4 GiB even if deflate enlarges them.
const LARGE: usize = 0xf000_0000;

/// Values that are turned into bytes at once.
const BLOCK: usize = 1 << 13;

/// The bytes of a `.npz` that `numpy.load` reads: the arrays in the order given, under their names, compressed or not.
///
/// Little-endian, C order, version 1.0 of the array format, dated 1 January 1980. So the same arrays give the same bytes anywhere if
/// they are not compressed; compressed ones also depend on the compressor.
///
/// # Errors
/// - a name is empty or occurs twice
/// - the shape of an array does not fit its values
/// - the archive refuses a name, because it is longer than 65 535 bytes
pub fn encode_npz(entries: &[(&str, &Array)], compress: bool) -> Result<Vec<u8>> {
    let mut names = BTreeSet::new();
    for (name, array) in entries {
        let problem = if name.is_empty() {
            "it has no name".to_owned()
        } else if !names.insert(*name) {
            "another array has this name".to_owned()
        } else if let Err(e) = array.check() {
            e.to_string()
        } else {
            continue;
        };
        let name = (*name).to_owned();
        return Err(Error::Write { name, problem });
    }
    let mut out = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, array) in entries {
        let failed = |problem: String| Error::Write {
            name: (*name).to_owned(),
            problem,
        };
        let header = header(array);
        let size = header.len().saturating_add(n_bytes(array));
        let method = if compress {
            CompressionMethod::Deflated
        } else {
            CompressionMethod::Stored
        };
        let options = SimpleFileOptions::default()
            .compression_method(method)
            .last_modified_time(DateTime::DEFAULT)
            .system(System::Unix)
            .unix_permissions(0o644)
            .large_file(size >= LARGE);
        out.start_file(format!("{name}.npy"), options)
            .map_err(|e| failed(e.to_string()))?;
        out.write_all(&header)
            .and_then(|()| write_values(&mut out, &array.values))
            .map_err(|e| failed(e.to_string()))?;
    }
    let written = out.finish().map_err(|e| Error::Archive {
        file: "a new archive".to_owned(),
        problem: e.to_string(),
    })?;
    Ok(written.into_inner())
}

/// The bytes of a `.npy` file that `numpy.load` reads: one array, little-endian, in C order.
///
/// # Errors
/// The shape of the array does not fit its values.
pub fn encode_npy(array: &Array) -> Result<Vec<u8>> {
    array.check()?;
    let mut out = header(array);
    out.reserve_exact(n_bytes(array));
    write_values(&mut out, &array.values).map_err(|e| Error::Write {
        name: String::new(),
        problem: e.to_string(),
    })?;
    Ok(out)
}

/// Bytes of an array's values.
fn n_bytes(array: &Array) -> usize {
    let size = match array.values {
        Values::U8(_) => 1,
        Values::U16(_) => 2,
        Values::F32(_) => 4,
        Values::I64(_) | Values::F64(_) => 8,
    };
    array.len().saturating_mul(size)
}

/// Everything before the values, padded by blanks. At most 64 axes take less than 64 KiB, the limit of version 1.0.
fn header(array: &Array) -> Vec<u8> {
    let descr = match array.values {
        Values::U8(_) => "|u1",
        Values::U16(_) => "<u2",
        Values::I64(_) => "<i8",
        Values::F32(_) => "<f4",
        Values::F64(_) => "<f8",
    };
    let mut shape = String::new();
    for (i, axis) in array.shape.iter().enumerate() {
        let separator = if i == 0 { "" } else { ", " };
        shape += &format!("{separator}{axis}");
    }
    if array.shape.len() == 1 {
        shape.push(',');
    }
    let mut text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({shape}), }}");
    let start = MAGIC.len() + 4;
    let unpadded = start + text.len() + 1;
    text += &" ".repeat(unpadded.next_multiple_of(ALIGNMENT) - unpadded);
    text.push('\n');
    let len = u16::try_from(text.len()).unwrap_or(u16::MAX);
    let mut out = MAGIC.to_vec();
    out.extend([1, 0]);
    out.extend(len.to_le_bytes());
    out.extend(text.as_bytes());
    out
}

fn write_values(out: &mut impl Write, values: &Values) -> std::io::Result<()> {
    match values {
        Values::U8(values) => out.write_all(values),
        Values::U16(values) => blocks(out, values, |value| value.to_le_bytes()),
        Values::I64(values) => blocks(out, values, |value| value.to_le_bytes()),
        Values::F32(values) => blocks(out, values, |value| value.to_le_bytes()),
        Values::F64(values) => blocks(out, values, |value| value.to_le_bytes()),
    }
}

fn blocks<T: Copy, const N: usize>(
    out: &mut impl Write,
    values: &[T],
    bytes: impl Fn(T) -> [u8; N],
) -> std::io::Result<()> {
    let mut block = Vec::with_capacity(BLOCK * N);
    for values in values.chunks(BLOCK) {
        block.clear();
        block.extend(values.iter().flat_map(|&value| bytes(value)));
        out.write_all(&block)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{npy_shape, npz_shapes, read_npy_bytes, read_npz_array, read_npz_bytes};

    fn samples() -> Vec<(&'static str, Array)> {
        vec![
            ("arr_0", Array::u8([2, 2, 2, 3], (0..24).collect()).unwrap()),
            ("labels", Array::i64([3], vec![-1, 0, i64::MAX]).unwrap()),
            ("mu", Array::f32([2, 1], vec![0.1, f32::MIN]).unwrap()),
            (
                "sigma",
                Array::f64([100, 200], (0..20_000).map(f64::from).collect()).unwrap(),
            ),
            ("scalar", Array::f64([], vec![2.5]).unwrap()),
            ("nothing", Array::f32([0, 5], vec![]).unwrap()),
            ("größe", Array::u8([1], vec![9]).unwrap()),
        ]
    }

    #[test]
    fn written_arrays_are_read_back() {
        let samples = samples();
        let entries: Vec<(&str, &Array)> =
            samples.iter().map(|(name, array)| (*name, array)).collect();
        for compress in [false, true] {
            let bytes = encode_npz(&entries, compress).unwrap();
            assert_eq!(bytes, encode_npz(&entries, compress).unwrap());
            let read = read_npz_bytes(&bytes, "x.npz").unwrap();
            assert_eq!(read.len(), samples.len());
            for (name, array) in &samples {
                assert_eq!(&read[*name], array, "{name}");
            }
        }
        assert!(
            read_npz_bytes(&encode_npz(&[], false).unwrap(), "x.npz")
                .unwrap()
                .is_empty()
        );
    }

    #[test]
    fn one_array_is_read_as_a_whole_or_by_its_first_axis() {
        let deep = Array::u16([2, 1, 3], vec![0, 1, 2, 300, 400, 65_535]).unwrap();
        let bytes = encode_npy(&deep).unwrap();
        assert_eq!(npy_shape(&bytes, "x").unwrap(), [2, 1, 3]);
        assert_eq!(read_npy_bytes(&bytes, "x", None).unwrap(), deep);
        let second = Array::u16([1, 3], vec![300, 400, 65_535]).unwrap();
        assert_eq!(read_npy_bytes(&bytes, "x", Some(1)).unwrap(), second);
        for compress in [false, true] {
            let archive = encode_npz(&[("a", &deep), ("b", &second)], compress).unwrap();
            let shapes = npz_shapes(&archive, "x").unwrap();
            assert_eq!(
                (&shapes["a"][..], &shapes["b"][..]),
                (&[2, 1, 3][..], &[1, 3][..])
            );
            let read = read_npz_array(&archive, "x", "a", Some(1)).unwrap();
            assert_eq!(read, second);
            assert_eq!(read_npz_array(&archive, "x", "a", None).unwrap(), deep);
        }
        for error in [
            read_npy_bytes(&bytes, "x", Some(2)).unwrap_err(),
            read_npy_bytes(&bytes[..bytes.len() - 1], "x", Some(0)).unwrap_err(),
            read_npy_bytes(&[&bytes[..], &[0]].concat(), "x", None).unwrap_err(),
            npy_shape(&bytes[..20], "x").unwrap_err(),
        ] {
            assert!(error.to_string().starts_with("x: "), "{error}");
        }
        // The first axis runs fastest in the file.
        let mut fortran = bytes.clone();
        let at = fortran.windows(5).position(|w| w == b"False").unwrap();
        fortran.splice(at..at + 5, *b"True ");
        let read = read_npy_bytes(&fortran, "x", Some(1)).unwrap();
        assert_eq!(read.values, Values::U16(vec![1, 300, 65_535]));
    }

    #[test]
    fn compression_makes_a_plain_picture_small() {
        let white = Array::u8([1, 64, 64, 3], vec![255; 64 * 64 * 3]).unwrap();
        let size = |compress| encode_npz(&[("arr_0", &white)], compress).unwrap().len();
        assert!(size(false) > 64 * 64 * 3);
        assert!(size(true) < 1000);
    }

    #[test]
    fn values_begin_where_numpy_wants_them() {
        for (name, array) in samples() {
            let header = header(&array);
            assert_eq!(header.len() % ALIGNMENT, 0, "{name}");
            assert_eq!(header.last(), Some(&b'\n'));
        }
        let wide = Array::u8(vec![1; 64], vec![0]).unwrap();
        let bytes = encode_npz(&[("a", &wide)], false).unwrap();
        assert_eq!(read_npz_bytes(&bytes, "x.npz").unwrap()["a"], wide);
    }

    #[test]
    fn the_bytes_of_an_archive_do_not_change() {
        let images = Array::u8([1, 2, 1, 3], (0..6).collect()).unwrap();
        let bytes = encode_npz(&[("arr_0", &images)], false).unwrap();
        assert_eq!(bytes[..4], *b"PK\x03\x04");
        // Midnight of 1 January 1980.
        assert_eq!(bytes[10..14], [0, 0, 0x21, 0]);
        assert_eq!(bytes[30..39], *b"arr_0.npy");
        assert_eq!(bytes[39..49], *b"\x93NUMPY\x01\x00v\x00");
        assert_eq!(bytes[39 + 128..39 + 134], [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn arrays_that_cannot_be_written_are_named() {
        let good = Array::u8([1], vec![0]).unwrap();
        let bad = Array {
            shape: vec![2],
            values: Values::U8(vec![0]),
        };
        let refused = |entries: &[(&str, &Array)], reason: &str| {
            let error = encode_npz(entries, false).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        };
        refused(
            &[("a", &good), ("a", &good)],
            "\"a\" cannot be written: another array",
        );
        refused(&[("", &good)], "it has no name");
        refused(
            &[("b", &bad)],
            "array \"b\" cannot be written: an array of shape [2] needs 2 values",
        );
        refused(&[(&"n".repeat(70_000), &good)], "cannot be written");
    }
}
