//! Tests of reading archives.

use super::*;
use crate::encode_npz;

/// `numpy.savez(.., a=numpy.array([0, 0.5, 1], "<f4"))`.
const BY_SAVEZ: &[u8] = b"PK\x03\x04-\x00\x00\x00\x00\x00\x00\x00!\x00\x88l\x0f\xb6\xff\xff\xff\xff\xff\xff\xff\xff\x05\x00\x14\x00\
a.npy\x01\x00\x10\x00\x8c\x00\x00\x00\x00\x00\x00\x00\x8c\x00\x00\x00\x00\x00\x00\x00\x93NUMPY\x01\x00v\x00{'descr': '<f4', \
'fortran_order': False, 'shape': (3,), }                                                            \n\
\x00\x00\x00\x00\x00\x00\x00?\x00\x00\x80?PK\x01\x02-\x03-\x00\x00\x00\x00\x00\x00\x00!\x00\x88l\x0f\xb6\x8c\x00\x00\x00\x8c\x00\x00\
\x00\x05\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x80\x01\x00\x00\x00\x00a.npyPK\x05\x06\x00\x00\x00\x00\x01\x00\x01\x003\x00\x00\
\x00\xc3\x00\x00\x00\x00\x00";

/// `numpy.savez_compressed(.., b=numpy.asfortranarray(numpy.arange(6, dtype=">i4").reshape(2, 3)))`.
const BY_SAVEZ_COMPRESSED: &[u8] = b"PK\x03\x04-\x00\x00\x00\x08\x00\x00\x00!\x00]C\xcb\x89\xff\xff\xff\xff\xff\xff\xff\xff\x05\x00\
\x14\x00b.npy\x01\x00\x10\x00\x98\x00\x00\x00\x00\x00\x00\x00S\x00\x00\x00\x00\x00\x00\x00\x9b\xec\x17\xea\x1b\x10\xc9\xc8P\xc6P\xad\
\x9e\x92Z\x9c\\\xa4n\xa5\xa0n\x97i\xa2\xae\xa3\xa0\x9e\x96_TR\x94\x98\x17\x9f_\x94\x92\n\x12\x0f)*M\x05\n\x17g$\x16\xa4\x02\xb9\x1aF\
:\n\xc6\x9a:\n\xb5\n\xe4\x03.\x06\x08`\x06bF f\x01b& f\x05\x00PK\x01\x02-\x03-\x00\x00\x00\x08\x00\x00\x00!\x00]C\xcb\x89S\x00\x00\
\x00\x98\x00\x00\x00\x05\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x80\x01\x00\x00\x00\x00b.npyPK\x05\x06\x00\x00\x00\x00\x01\x00\
\x01\x003\x00\x00\x00\x8a\x00\x00\x00\x00\x00";

/// What one entry of a hand-made archive claims to be.
struct Claim<'a> {
    name: &'a str,
    method: u16,
    size: u32,
    data: &'a [u8],
    crc: u32,
}

/// An archive of these entries, told as they are claimed.
fn archive(claims: &[Claim<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut directory = Vec::new();
    for claim in claims {
        let mut common = vec![20, 0, 0, 0];
        common.extend(claim.method.to_le_bytes());
        common.extend([0, 0, 0x21, 0]);
        common.extend(claim.crc.to_le_bytes());
        common.extend(u32::try_from(claim.data.len()).unwrap().to_le_bytes());
        common.extend(claim.size.to_le_bytes());
        common.extend(u16::try_from(claim.name.len()).unwrap().to_le_bytes());
        common.extend([0, 0]);
        directory.extend(b"PK\x01\x02\x14\x00");
        directory.extend(&common);
        directory.extend([0; 10]);
        directory.extend(u32::try_from(out.len()).unwrap().to_le_bytes());
        directory.extend(claim.name.as_bytes());
        out.extend(b"PK\x03\x04");
        out.extend(&common);
        out.extend(claim.name.as_bytes());
        out.extend(claim.data);
    }
    let start = u32::try_from(out.len()).unwrap();
    let n = u16::try_from(claims.len()).unwrap();
    out.extend(&directory);
    out.extend(b"PK\x05\x06\x00\x00\x00\x00");
    out.extend(n.to_le_bytes());
    out.extend(n.to_le_bytes());
    out.extend(u32::try_from(directory.len()).unwrap().to_le_bytes());
    out.extend(start.to_le_bytes());
    out.extend([0, 0]);
    out
}

/// A stored entry that claims the truth.
fn stored<'a>(name: &'a str, data: &'a [u8]) -> Claim<'a> {
    Claim {
        name,
        method: 0,
        size: u32::try_from(data.len()).unwrap(),
        data,
        crc: crc32fast::hash(data),
    }
}

fn npy(descr: &str, shape: &str, values: &[u8]) -> Vec<u8> {
    let text = format!("{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}\n");
    let mut out = b"\x93NUMPY\x01\x00".to_vec();
    out.extend(u16::try_from(text.len()).unwrap().to_le_bytes());
    out.extend(text.as_bytes());
    out.extend(values);
    out
}

fn refused(bytes: &[u8], reason: &str) {
    let error = read_npz_bytes(bytes, "x.npz").unwrap_err().to_string();
    assert!(error.starts_with("x.npz: "), "{error}");
    assert!(error.contains(reason), "expected {reason:?} in: {error}");
}

#[test]
fn files_made_by_numpy_are_read() {
    let read = read_npz_bytes(BY_SAVEZ, "x.npz").unwrap();
    assert_eq!(read.len(), 1);
    assert_eq!(read["a"], Array::f32([3], vec![0.0, 0.5, 1.0]).unwrap());
    let read = read_npz_bytes(BY_SAVEZ_COMPRESSED, "x.npz").unwrap();
    assert_eq!(
        read["b"],
        Array::i64([2, 3], vec![0, 1, 2, 3, 4, 5]).unwrap()
    );
}

#[test]
fn arrays_that_are_not_wanted_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.npz");
    let (good, odd) = (
        npy("'<f8'", "()", &1.5f64.to_le_bytes()),
        npy("'|O'", "(1,)", b"x"),
    );
    std::fs::write(
        &path,
        archive(&[stored("odd.npy", &odd), stored("mu.npy", &good)]),
    )
    .unwrap();
    let read = read_npz_where(&path, |name| name == "mu").unwrap();
    assert_eq!(read["mu"], Array::f64([], vec![1.5]).unwrap());
    assert!(read_npz(&path).unwrap_err().to_string().contains("odd.npy"));
    let missing = read_npz(&dir.path().join("y.npz")).unwrap_err();
    assert!(missing.to_string().contains("y.npz: cannot be opened"));
}

#[test]
fn a_file_that_is_not_an_archive_is_described() {
    refused(b"", "found an empty file");
    refused(b"hello, world", "begins with \"hello,\"");
    refused(&npy("'|u1'", "(1,)", &[0]), "found a single array (.npy)");
    refused(b"PK\x03\x04 and then nothing", "is the file cut off?");
    assert!(read_npz_bytes(&archive(&[]), "x.npz").unwrap().is_empty());
}

#[test]
fn no_cut_of_a_file_is_taken_for_the_whole() {
    let a = Array::f64([20], vec![0.25; 20]).unwrap();
    let b = Array::u8([3, 3], (0..9).collect()).unwrap();
    for compress in [false, true] {
        let bytes = encode_npz(&[("a", &a), ("b", &b)], compress).unwrap();
        for len in 0..bytes.len() {
            assert!(read_npz_bytes(&bytes[..len], "x.npz").is_err(), "{len}");
        }
    }
}

#[test]
fn no_changed_byte_makes_the_reader_panic() {
    for original in [BY_SAVEZ, BY_SAVEZ_COMPRESSED] {
        for at in 0..original.len() {
            for flip in [1, 0x80, 0xff] {
                let mut bytes = original.to_vec();
                bytes[at] ^= flip;
                // Some fields mean nothing here; what is read all the same has the shape of its values.
                if let Ok(read) = read_npz_bytes(&bytes, "x.npz") {
                    read.values().for_each(|array| array.check().unwrap());
                }
            }
        }
    }
}

#[test]
fn objects_and_other_types_are_refused_by_name() {
    let cases = [
        ("'|O'", "type |O are not read (pickled Python objects"),
        ("'<U3'", "type <U3 are not read; expected one of u1"),
        ("[('a', '<f4')]", "type [('a', '<f4')] are not read"),
    ];
    for (descr, reason) in cases {
        refused(
            &archive(&[stored("a.npy", &npy(descr, "(1,)", &[0; 12]))]),
            reason,
        );
    }
}

#[test]
fn a_header_may_not_claim_more_or_less_than_there_is() {
    for (shape, reason) in [
        (
            "(1000000000000000,)",
            "need 8000000000000000 bytes, found 16",
        ),
        ("(4294967296, 4294967296)", "more bytes than can be counted"),
        ("(4611686018427387904,)", "more bytes than can be counted"),
        ("(3,)", "need 24 bytes, found 16"),
        ("(1,)", "need 8 bytes, found 16"),
        ("(0, 99999999999)", "need 0 bytes, found 16"),
    ] {
        refused(
            &archive(&[stored("a.npy", &npy("'<f8'", shape, &[0; 16]))]),
            reason,
        );
    }
    let empty = archive(&[stored("a.npy", &npy("'<f8'", "(0, 99999999999)", &[]))]);
    let read = read_npz_bytes(&empty, "x.npz").unwrap();
    assert_eq!(read["a"].shape, [0, 99_999_999_999]);
}

#[test]
fn a_listed_size_must_be_possible() {
    let data = npy("'<f8'", "(500000000,)", &[]);
    let claim = |method, size| Claim {
        name: "a.npy",
        method,
        size,
        data: &data,
        crc: 0,
    };
    refused(&archive(&[claim(0, 4_000_000_000)]), "are stored");
    refused(&archive(&[claim(8, 4_000_000_000)]), "stored can come to");
    assert!(check_size(1 << 33, 1 << 30, CompressionMethod::Deflated, 1 << 31).is_err());
    assert!(check_size(1 << 33, 1 << 33, CompressionMethod::Stored, 1 << 34).is_ok());
    assert!(check_size(10, 20, CompressionMethod::Deflated, 15).is_err());
}

#[test]
fn more_bytes_than_the_directory_lists_are_noticed() {
    let data = npy("'|u1'", "(2048,)", &[0; 4096]);
    let mut out = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options =
        zip::write::SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
    out.start_file("a.npy", options).unwrap();
    std::io::Write::write_all(&mut out, &data).unwrap();
    let mut bytes = out.finish().unwrap().into_inner();
    refused(&bytes, "need 2048 bytes, found 4096");
    // Now the directory agrees with the header, and only the data continue.
    let listed = u32::try_from(data.len()).unwrap().to_le_bytes();
    let wanted = u32::try_from(data.len() - 2048).unwrap().to_le_bytes();
    let places: Vec<usize> = (0..bytes.len() - 4)
        .filter(|&at| bytes[at..at + 4] == listed)
        .collect();
    assert_eq!(places.len(), 2);
    for at in places {
        bytes[at..at + 4].copy_from_slice(&wanted);
    }
    refused(&bytes, "a.npy: ");
}

#[test]
fn entries_must_be_arrays_and_different() {
    let array = npy("'|u1'", "(1,)", &[7]);
    refused(
        &archive(&[stored("notes.txt", b"hi")]),
        "notes.txt: not an array",
    );
    refused(
        &archive(&[stored("a.npy", b"not an array")]),
        "a.npy: not a NumPy array",
    );
    refused(
        &archive(&[stored("a.npy", b"")]),
        "ends within the first 8 bytes",
    );
    let twice = archive(&[stored("a.npy", &array), stored("a.npy", &array)]);
    refused(&twice, "an array occurs twice");
}

#[test]
fn damaged_values_fail_their_checksum() {
    let array = npy("'|u1'", "(2,)", &[7, 8]);
    let mut claim = stored("a.npy", &array);
    claim.crc ^= 1;
    refused(&archive(&[claim]), "a.npy: reading its values");
}

#[test]
fn entries_may_not_share_bytes() {
    let array = npy("'|u1'", "(1,)", &[7]);
    let mut bytes = archive(&[stored("a.npy", &array), stored("b.npy", &array)]);
    // The second record of the directory is made to point at the first entry's bytes.
    let record = bytes.windows(4).rposition(|w| w == b"PK\x01\x02").unwrap();
    bytes[record + 42..record + 46].copy_from_slice(&[0; 4]);
    refused(&bytes, "arrays overlap");
}

#[test]
fn other_compressions_are_refused() {
    let array = npy("'|u1'", "(1,)", &[7]);
    let mut claim = stored("a.npy", &array);
    claim.method = 12;
    let error = read_npz_bytes(&archive(&[claim]), "x.npz").unwrap_err();
    assert!(
        error.to_string().to_lowercase().contains("compress"),
        "{error}"
    );
}

#[test]
fn a_directory_that_claims_to_be_huge_is_refused() {
    for claimed in [1u64 << 20, 1 << 32, 1 << 40, 1 << 52, u64::MAX] {
        for offset in [0, 4, 1 << 20, 1 << 42, 1 << 53, u64::MAX] {
            // The 64-bit end record, its locator, and the end record that defers to them.
            let mut bytes = b"PK\x03\x04".to_vec();
            bytes.extend(b"PK\x06\x06\x2c\x00\x00\x00\x00\x00\x00\x00\x2d\x00\x2d\x00");
            bytes.extend([0; 8]);
            bytes.extend(claimed.to_le_bytes());
            bytes.extend(claimed.to_le_bytes());
            bytes.extend(claimed.saturating_mul(46).to_le_bytes());
            bytes.extend(offset.to_le_bytes());
            bytes.extend(
                b"PK\x06\x07\x00\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00",
            );
            bytes.extend(b"PK\x05\x06\x00\x00\x00\x00");
            bytes.extend([0xff; 12]);
            bytes.extend([0, 0]);
            refused(&bytes, "cannot be read");
        }
    }
}
