//! Memory and time that hostile tables, archives and lists take, counted.

mod common;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    fs,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::{Duration, Instant},
};

use common::{Row, packed, png, table_with, zip_file};
use parquet::{
    basic::{Compression, Encoding},
    file::properties::{WriterProperties, WriterVersion},
};
use sdft_prepare::{Options, prepare};

struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator; only numbers are kept besides.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK.fetch_max(now, Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Numbers that look random and are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n.max(1) as u64) as usize
    }
}

/// Tables packed in different ways, and an archive.
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
        for version in [WriterVersion::PARQUET_1_0, WriterVersion::PARQUET_2_0] {
            let mut builder = WriterProperties::builder()
                .set_compression(Compression::SNAPPY)
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

/// One test, because the count is that of the whole process.
#[test]
fn no_file_takes_more_than_sixteen_times_its_length_or_five_seconds() {
    let root = tempfile::tempdir().unwrap();
    let mut numbers = Numbers(11);
    let (mut read, mut refused) = (0, 0);
    for (name, seed) in seeds(root.path()) {
        let path = root.path().join(&name);
        // Half of the changes go where lengths are: the footer, or an archive's directory.
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
            let options = Options {
                threads: Some(1),
                ..Options::new(8)
            };
            let (before, started) = (NOW.load(Relaxed), Instant::now());
            PEAK.store(before, Relaxed);
            match prepare(std::slice::from_ref(&path), &out, &options, &|_, _| {}) {
                Ok(_) => read += 1,
                Err(_) => refused += 1,
            }
            let peak = PEAK.load(Relaxed) - before;
            let most = 16 * bytes.len() + (64 << 20);
            assert!(peak <= most, "{name}: {peak} bytes");
            assert!(started.elapsed() < Duration::from_secs(5), "{name}");
            let _ = fs::remove_dir_all(&out);
        }
    }
    assert!(
        read > 100 && refused > 100,
        "{read} read, {refused} refused"
    );
}
