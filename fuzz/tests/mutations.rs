//! Seeded mutations of every kind of file: each reader returns within the promised time and memory.

use sdft_counting_alloc::{CountingAllocator, Measurement};
use sdft_fuzz::{READERS, Reader, Rng, corpus, mutate};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// Mutations of each reader.
const ROUNDS: usize = 3500;
/// The longest time for a file under 1 MB.
const SLOWEST: Duration = Duration::from_secs(5);
/// Memory that a reader may use in addition to 16 times the file, in bytes.
const EXTRA_MEMORY: usize = 64 << 20;
/// The most pixels of any picture, and of each byte of a larger file: the default limits.
const PIXELS: usize = 16_000_000;
const PIXELS_PER_BYTE: usize = 100;
/// Bytes for each pixel while a picture is decoded. WebP takes most: planes, pixels with alpha, and those on white.
const PER_PIXEL: usize = 20;

#[global_allocator]
static MEMORY: CountingAllocator = CountingAllocator::new();

#[test]
fn every_reader_returns_within_time_and_memory() {
    let memory = MEMORY.exclusive();
    let broken: Vec<String> = READERS
        .into_iter()
        .filter_map(|reader| challenge(&memory, reader).err())
        .collect();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// Gives a reader its corpus and mutations of it, until one breaks the promise.
fn challenge(memory: &Measurement<'_>, reader: Reader) -> Result<(), String> {
    let seeds = corpus(reader.name).map_err(|error| format!("{}: {error}", reader.name))?;
    for seed in &seeds {
        check(memory, reader, seed)?;
    }
    if !seeds.iter().any(|seed| (reader.read)(seed)) {
        return Err(format!(
            "{}: no file of its corpus is accepted, so mutations test little",
            reader.name
        ));
    }
    let mut rng = Rng::new(1);
    for round in 0..ROUNDS {
        let mut bytes = mutate(&mut rng, &seeds);
        if let Some(repair) = reader.repair
            && round % 2 == 0
        {
            repair(&mut bytes);
        }
        check(memory, reader, &bytes)?;
    }
    Ok(())
}

/// Writes the bytes to a file if the promise is broken.
fn check(memory: &Measurement<'_>, reader: Reader, bytes: &[u8]) -> Result<(), String> {
    let start = Instant::now();
    let (ended, peak) = memory.peak_of(|| catch_unwind(AssertUnwindSafe(|| (reader.read)(bytes))));
    let took = start.elapsed();
    let most = 16 * bytes.len() + EXTRA_MEMORY + PER_PIXEL * pixels(reader.name, bytes);
    if ended.is_ok() && took <= SLOWEST && peak <= most {
        return Ok(());
    }
    let kept = std::env::temp_dir().join(format!("sdft-{}-{}", reader.name, std::process::id()));
    std::fs::write(&kept, bytes).map_err(|error| format!("{}: {error}", kept.display()))?;
    Err(format!(
        "{}: {} bytes, kept in {}: {} after {took:?} with {peak} bytes of memory, at most {most} allowed",
        reader.name,
        bytes.len(),
        kept.display(),
        if ended.is_ok() {
            "returned"
        } else {
            "panicked"
        },
    ))
}

/// The number of pixels in the header of a picture, within the limits; the limit for formats whose header is not read here, and 0 for
/// other kinds of files.
fn pixels(kind: &str, bytes: &[u8]) -> usize {
    let number = |at: usize, width: usize| {
        let bytes = bytes.get(at..at + width)?;
        Some(bytes.iter().fold(0, |n, &b| n << 8 | usize::from(b)))
    };
    let swapped = |at: usize, width: usize| {
        let bytes = bytes.get(at..at + width)?;
        Some(bytes.iter().rev().fold(0, |n, &b| n << 8 | usize::from(b)))
    };
    let sides = match kind {
        "png" => (number(16, 4), number(20, 4)),
        "bmp" => (swapped(18, 4), swapped(22, 4)),
        "gif" => (swapped(6, 2), swapped(8, 2)),
        "jpeg" | "tiff" | "webp" => (Some(PIXELS), Some(1)),
        _ => (None, None),
    };
    let (Some(width), Some(height)) = sides else {
        return 0;
    };
    width
        .saturating_mul(height)
        .min(PIXELS.max(PIXELS_PER_BYTE * bytes.len()))
}
