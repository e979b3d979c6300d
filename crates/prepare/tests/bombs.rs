//! Memory and time that hostile tables, archives and lists take.

mod common;

use std::{
    fs,
    io::Write as _,
    path::Path,
    time::{Duration, Instant},
};

use common::{Row, packed, png, table_with, zip_file};
use parquet::{
    basic::{Compression, Encoding},
    file::properties::{WriterProperties, WriterVersion},
};
use sdft_counting_alloc::{CountingAllocator, Measurement};
use sdft_prepare::{Options, PrepareError, prepare};

#[global_allocator]
static MEMORY: CountingAllocator = CountingAllocator::new();

/// Reproducible pseudo-random numbers.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n.max(1) as u64) as usize
    }
}

/// Tables with different encodings, and an archive.
fn seeds(root: &Path) -> Vec<(String, Vec<u8>)> {
    let rows: Vec<Row<'_>> = (0..9)
        .map(|n| {
            (
                (n != 4).then(|| png(n % 5)),
                (n % 2 == 0).then_some("a.png"),
            )
        })
        .collect();
    let path = root.join("seed");
    let mut seeds = Vec::new();
    for (name, encoding) in [
        ("words", None),
        ("plain", Some(Encoding::PLAIN)),
        ("lengths", Some(Encoding::DELTA_LENGTH_BYTE_ARRAY)),
        ("differences", Some(Encoding::DELTA_BYTE_ARRAY)),
    ] {
        for (version, codec) in [
            (WriterVersion::PARQUET_1_0, Compression::SNAPPY),
            (
                WriterVersion::PARQUET_2_0,
                Compression::ZSTD(Default::default()),
            ),
        ] {
            let mut builder = WriterProperties::builder()
                .set_compression(codec)
                .set_writer_version(version);
            if let Some(encoding) = encoding {
                builder = packed(builder, encoding);
            }
            table_with(&path, &rows, 5, builder.build());
            seeds.push((format!("{name}.parquet"), fs::read(&path).unwrap()));
        }
    }
    let entries: Vec<(String, Vec<u8>)> = (0..5).map(|n| (format!("{n}.png"), png(n))).collect();
    let entries: Vec<(&str, Vec<u8>)> = entries
        .iter()
        .map(|(name, bytes)| (name.as_str(), bytes.clone()))
        .collect();
    zip_file(&path, &entries);
    seeds.push(("archive.zip".to_owned(), fs::read(&path).unwrap()));
    seeds
}

/// A variable-length number of the compact protocol.
fn length(mut n: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while n > 127 {
        out.push(n as u8 | 128);
        n >>= 7;
    }
    out.push(n as u8);
    out
}

/// A field header with the distance to the previous field's number; `kind` is 5 for 32 bits and 6 for 64.
fn number(by: u8, kind: u8, n: usize) -> Vec<u8> {
    [vec![by << 4 | kind], length(2 * n as u64)].concat()
}

/// A table with these pages and this footer.
fn ended(pages: &[u8], footer: &[u8]) -> Vec<u8> {
    let length = (footer.len() as u32).to_le_bytes();
    [b"PAR1", pages, footer, &length, b"PAR1"].concat()
}

/// A gzip page of zeros, and row groups that all share it or have a copy each.
fn groups_of_zeros(groups: usize, page_bytes: usize, is_shared: bool) -> Vec<u8> {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    packer.write_all(&vec![0; page_bytes]).unwrap();
    let packed = packer.finish().unwrap();
    let page = [
        number(1, 5, 0),
        number(1, 5, page_bytes),
        number(1, 5, packed.len()),
        vec![0x2C],
        [number(1, 5, 1), number(1, 5, 0)].concat(),
        [number(1, 5, 3), number(1, 5, 3)].concat(),
        vec![0, 0],
        packed,
    ]
    .concat();
    let schema = [
        vec![0x29, 0x2C, 0x48, 1, b'r'],
        number(1, 5, 1),
        vec![0],
        number(1, 5, 6),
        number(2, 5, 0),
        b"\x18\x05image\0".to_vec(),
    ]
    .concat();
    let group = |i: usize| {
        let start = if is_shared { 4 } else { 4 + i * page.len() };
        [
            vec![0x19, 0x1C, 0x3C],
            number(4, 5, 2),
            number(1, 6, 1),
            number(2, 6, page.len()),
            number(2, 6, start),
            vec![0, 0],
            number(2, 6, 1),
            vec![0],
        ]
        .concat()
    };
    let all: Vec<u8> = (0..groups).flat_map(group).collect();
    let footer = [
        schema,
        number(1, 6, groups),
        vec![0x19, 0xFC],
        length(groups as u64),
        all,
        vec![0],
    ]
    .concat();
    let copies = if is_shared { 1 } else { groups };
    ended(&page.repeat(copies), &footer)
}

/// A schema of columns, each of these bytes.
fn columns(n: usize, element: &[u8]) -> Vec<u8> {
    let list = [vec![0x29, 0xFC], length(n as u64 + 1)].concat();
    let root = [number(5, 5, n), vec![0]].concat();
    ended(&[], &[list, root, element.repeat(n), vec![0]].concat())
}

/// Tables designed to be expensive, and part of the expected error message.
fn made() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let empty_group = [0x19, 0x1C, 0x3C, 0, 0, 0];
    let groups = 2_000_000;
    let many_groups = [
        &[
            0x29, 0x2C, 0x48, 1, b'r', 0x15, 2, 0, 0x15, 12, 0x38, 1, b'i', 0,
        ][..],
        &[0x29, 0xFC],
        &length(groups as u64),
        &empty_group.repeat(groups),
        &[0],
    ]
    .concat();
    vec![
        (
            "shared pages",
            groups_of_zeros(4000, 16 << 20, true),
            "overlap",
        ),
        (
            "copied pages",
            groups_of_zeros(200, 16 << 20, false),
            "times its file size",
        ),
        (
            "columns without a name",
            columns(4_000_000, &[0]),
            "a column has no name",
        ),
        (
            "columns with an empty name",
            columns(4_000_000, &[0x48, 0, 0]),
            "more than 10000 columns",
        ),
        (
            "few columns with an empty name",
            columns(9_000, &[0x48, 0, 0]),
            "and 8988 more",
        ),
        (
            "groups without rows",
            ended(&[], &many_groups),
            "row groups in",
        ),
    ]
}

/// Prepares a file, and fails if that takes too much.
fn measured(
    memory: &Measurement<'_>,
    path: &Path,
    out: &Path,
    name: &str,
) -> sdft_prepare::Result<sdft_prepare::Report> {
    let options = Options {
        threads: Some(1),
        ..Options::new(8)
    };
    let started = Instant::now();
    let (result, peak) = memory.peak_of(|| prepare(&[path.to_owned()], out, &options, &|_, _| {}));
    let took = started.elapsed();
    let most = 16 * fs::metadata(path).unwrap().len() as usize + (64 << 20);
    assert!(peak <= most, "{name}: {peak} bytes");
    assert!(took < Duration::from_secs(5), "{name}: {took:?}");
    let _ = fs::remove_dir_all(out);
    result
}

#[test]
fn no_file_takes_more_than_sixteen_times_its_length_or_five_seconds() {
    let memory = MEMORY.exclusive();
    let root = tempfile::tempdir().unwrap();
    let mut numbers = Numbers(11);
    let (mut read, mut refused) = (0, 0);
    for (name, seed) in seeds(root.path()) {
        let path = root.path().join(&name);
        // Half of the changes go where lengths are stored: the footer, or an archive's directory.
        let tail = seed.len() - seed.len().min(900);
        for i in 0..50 {
            let mut bytes = seed.clone();
            for _ in 0..1 + numbers.below(3) {
                let at = match numbers.below(2) {
                    0 => tail + numbers.below(bytes.len() - tail),
                    _ => numbers.below(bytes.len()),
                };
                bytes[at] = match numbers.below(4) {
                    0 => 0xFF,
                    1 => 0x7F,
                    2 => bytes[at] ^ (1 << numbers.below(8)),
                    _ => numbers.below(256) as u8,
                };
            }
            fs::write(&path, &bytes).unwrap();
            let out = root.path().join(format!("{name}-{i}"));
            match measured(&memory, &path, &out, &name) {
                Ok(_) => read += 1,
                Err(_) => refused += 1,
            }
        }
    }
    assert!(
        read > 100 && refused > 100,
        "{read} read, {refused} refused"
    );
    for (name, bytes, said) in made() {
        let path = root.path().join("made.parquet");
        fs::write(&path, bytes).unwrap();
        let error = measured(&memory, &path, &root.path().join("made"), name).unwrap_err();
        let text = error.to_string();
        let is_said = match &error {
            PrepareError::Nothing { skipped, .. } => {
                skipped.iter().any(|row| row.reason.contains(said))
            }
            _ => text.contains(said),
        };
        assert!(is_said && text.len() < 4000, "{name}: {text}");
    }
}
