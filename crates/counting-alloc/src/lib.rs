//! A counting allocator for tests: the most memory that a piece of code held.
//!
//! ```
//! use sdft_counting_alloc::CountingAllocator;
//!
//! #[global_allocator]
//! static MEMORY: CountingAllocator = CountingAllocator::new();
//!
//! let memory = MEMORY.exclusive();
//! let (_, peak) = memory.peak_of(|| vec![0u8; 1 << 20]);
//! assert!(peak >= 1 << 20);
//! ```
//!
//! **Invariant:** every call goes to the system's allocator unchanged.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The system's allocator, which also counts the bytes in use. Install it with `#[global_allocator]`.
#[derive(Debug)]
pub struct CountingAllocator {
    in_use: AtomicUsize,
    peak: AtomicUsize,
    lock: Mutex<()>,
}

/// The right to measure, for one test at a time: the counters are those of the whole process.
#[derive(Debug)]
pub struct Measurement<'a> {
    allocator: &'a CountingAllocator,
    _lock: MutexGuard<'a, ()>,
}

impl CountingAllocator {
    /// An allocator with counters at zero.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            in_use: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
            lock: Mutex::new(()),
        }
    }

    /// Waits until no other test of this process measures. Hold the result for the whole test, so that tests that prepare their inputs
    /// do not count for this one.
    pub fn exclusive(&self) -> Measurement<'_> {
        Measurement {
            allocator: self,
            _lock: self.lock.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }
}

impl Default for CountingAllocator {
    fn default() -> Self {
        Self::new()
    }
}

impl Measurement<'_> {
    /// The result of `f`, and the most bytes that the process held while it ran beyond those that it held before.
    pub fn peak_of<R>(&self, f: impl FnOnce() -> R) -> (R, usize) {
        let before = self.allocator.in_use.load(Relaxed);
        self.allocator.peak.store(before, Relaxed);
        let result = f();
        let peak = self.allocator.peak.load(Relaxed);
        (result, peak.saturating_sub(before))
    }
}

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let in_use = self.in_use.fetch_add(layout.size(), Relaxed) + layout.size();
        self.peak.fetch_max(in_use, Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        self.in_use.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(ptr, layout) }
    }
}
