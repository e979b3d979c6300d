//! Seeded mutations of every kind of file: each reader answers or refuses, within the promised time and memory.

use sdft_fuzz::{READERS, Reader, Rng, corpus, mutate};
use std::alloc::{GlobalAlloc, Layout, System};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Mutations of each reader.
const ROUNDS: usize = 3500;
/// For a file under 1 MB.
const SLOWEST: Duration = Duration::from_secs(5);
/// What a reader may take, beyond 16 times the file. Images may take what their header announces, which is bounded too.
const MEMORY: usize = 64 << 20;
/// Pictures of the default limit, decoded: what the header of a picture may announce.
const PICTURE: usize = 1 << 30;

struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK.fetch_max(now, Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn every_reader_answers_or_refuses_within_time_and_memory() {
    let broken: Vec<String> = READERS
        .into_iter()
        .filter_map(|reader| challenge(reader).err())
        .collect();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// Feeds a reader its corpus and mutations of it, up to the first that breaks the promise.
fn challenge(reader: Reader) -> Result<(), String> {
    let seeds = corpus(reader.name).map_err(|error| format!("{}: {error}", reader.name))?;
    for seed in &seeds {
        check(reader, seed)?;
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
        check(reader, &bytes)?;
    }
    Ok(())
}

/// Keeps the bytes where the promise is broken.
fn check(reader: Reader, bytes: &[u8]) -> Result<(), String> {
    let before = NOW.load(Relaxed);
    PEAK.store(before, Relaxed);
    let start = Instant::now();
    let ended = catch_unwind(AssertUnwindSafe(|| (reader.read)(bytes)));
    let took = start.elapsed();
    let memory = PEAK.load(Relaxed).saturating_sub(before);
    let is_picture = ["bmp", "gif", "jpeg", "png", "webp"].contains(&reader.name);
    let most = 16 * bytes.len() + if is_picture { PICTURE } else { MEMORY };
    if ended.is_ok() && took <= SLOWEST && memory <= most {
        return Ok(());
    }
    let kept = std::env::temp_dir().join(format!("sdft-{}-{}", reader.name, std::process::id()));
    std::fs::write(&kept, bytes).map_err(|error| format!("{}: {error}", kept.display()))?;
    Err(format!(
        "{}: {} bytes, kept in {}: {} after {took:?} with {memory} bytes of memory, at most {most} allowed",
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
