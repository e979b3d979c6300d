//! Parallel loops, and threads that stay awake between two operations.

// A network is hundreds of operations, and one of a small network takes tens of microseconds. Rayon's threads fall asleep between them,
// and waking one can take longer than its share of the work.

use crate::shared_mut::SharedMut;
use rayon::Yield;
use rayon::prelude::*;
use std::cell::{Cell, OnceCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How long a thread looks for work before it sleeps.
const PATIENCE: Duration = Duration::from_micros(200);
/// Searches between two offers of the processor to other programs.
const SEARCHES: u32 = 64;

/// The threads that help one thread of a pool.
struct Helpers {
    /// The index of the helped thread.
    of: usize,
    start: Instant,
    /// When its last computation began, in nanoseconds from `start`.
    last: AtomicU64,
    awake: AtomicUsize,
}

thread_local! {
    static HELPERS: OnceCell<Arc<Helpers>> = const { OnceCell::new() };
    /// Whether this thread helps another one.
    static HELPS: Cell<bool> = const { Cell::new(false) };
}

/// Keeps the other threads of the calling thread's pool awake for a fraction of a millisecond. Call it at the start of each of many short
/// parallel computations. It does nothing outside a pool, and changes how long a computation takes, never its result.
pub fn keep_awake() {
    let Some(of) = rayon::current_thread_index() else {
        return;
    };
    let others = rayon::current_num_threads() - 1;
    if others == 0 || HELPS.get() {
        return;
    }
    HELPERS.with(|helpers| {
        let helpers = helpers.get_or_init(|| {
            Arc::new(Helpers {
                of,
                start: Instant::now(),
                last: AtomicU64::new(0),
                awake: AtomicUsize::new(0),
            })
        });
        helpers.last.store(helpers.now(), Ordering::Relaxed);
        let was = helpers
            .awake
            .compare_exchange(0, others, Ordering::Relaxed, Ordering::Relaxed);
        if was.is_ok() {
            let helpers = Arc::clone(helpers);
            rayon::spawn_broadcast(move |thread| {
                if thread.index() != helpers.of {
                    helpers.help();
                    helpers.awake.fetch_sub(1, Ordering::Relaxed);
                }
            });
        }
    });
}

impl Helpers {
    fn now(&self) -> u64 {
        nanoseconds(self.start.elapsed())
    }

    /// Executes what the pool has to do, until that has been nothing for a while.
    fn help(&self) {
        // A thread that computes for itself may be waiting for others here, and must notice when they are done.
        let is_busy = HELPERS.with(|own| {
            own.get().is_some_and(|own| {
                own.now() < own.last.load(Ordering::Relaxed) + nanoseconds(PATIENCE)
            })
        });
        if is_busy || HELPS.replace(true) {
            return;
        }
        let mut found = self.now();
        for search in 1u32.. {
            if rayon::yield_now() == Some(Yield::Executed) {
                found = self.now();
                continue;
            }
            let last = found.max(self.last.load(Ordering::Relaxed));
            if self.now() > last + nanoseconds(PATIENCE) {
                break;
            }
            if search.is_multiple_of(SEARCHES) {
                std::thread::yield_now();
            }
            std::hint::spin_loop();
        }
        HELPS.set(false);
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Calls `f` with every number below `n`, on the threads of the current pool.
pub(crate) fn each_job(n: usize, f: impl Fn(usize) + Sync) {
    run(n, 1, &f);
}

/// [`each_job`] for short jobs: a thread takes at least this many of them at a time.
pub(crate) fn each_short_job(n: usize, at_least: usize, f: impl Fn(usize) + Sync) {
    run(n, at_least.max(1), &f);
}

/// Calls `f` with the number and the elements of each chunk of `size` elements, or of one if `size` is 0; the last chunk may have fewer.
pub(crate) fn each_chunk_mut<T: Send>(
    y: &mut [T],
    size: usize,
    f: impl Fn(usize, &mut [T]) + Sync,
) {
    let size = size.max(1);
    let shared = SharedMut::new(y);
    each_job(shared.len().div_ceil(size), |i| {
        let first = i * size;
        // SAFETY: chunks do not overlap, and all elements are initialised.
        f(i, unsafe {
            shared.slice(first, size.min(shared.len() - first))
        });
    });
}

// Not generic: a parallel loop is some twenty functions of rayon's, which would be compiled again for each kernel and element type.
fn run(n: usize, at_least: usize, f: &(dyn Fn(usize) + Sync)) {
    (0..n).into_par_iter().with_min_len(at_least).for_each(f);
}

/// Runs both functions, at the same time if a thread of the calling thread's pool is free.
pub fn join<A: Send, B: Send>(
    a: impl FnOnce() -> A + Send,
    b: impl FnOnce() -> B + Send,
) -> (A, B) {
    if rayon::current_thread_index().is_some() {
        rayon::join(a, b)
    } else {
        (a(), b())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(threads: usize) -> rayon::ThreadPool {
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap()
    }

    /// A sum that is cut into jobs, as an operation.
    fn operation(n: u64) -> u64 {
        keep_awake();
        (0..n).into_par_iter().sum()
    }

    #[test]
    fn helpers_sleep_after_a_while_and_help_again() {
        pool(3).install(|| {
            for _ in 0..3 {
                assert_eq!(operation(1000), 499_500);
                let helpers = HELPERS.with(|helpers| Arc::clone(helpers.get().unwrap()));
                assert_eq!(
                    (helpers.of, HELPS.get()),
                    (rayon::current_thread_index().unwrap(), false)
                );
                let started = Instant::now();
                while helpers.awake.load(Ordering::Relaxed) > 0 {
                    assert!(
                        started.elapsed() < Duration::from_secs(20),
                        "a helper does not sleep"
                    );
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        });
    }

    #[test]
    fn several_threads_of_a_pool_that_compute_for_themselves_all_end() {
        let sums: Vec<u64> = pool(4).install(|| {
            (0..8u64)
                .into_par_iter()
                .map(|_| (0..200).map(operation).sum())
                .collect()
        });
        let expected: u64 = (0..200u64).map(|n| n * n.saturating_sub(1) / 2).sum();
        assert_eq!(sums, [expected; 8]);
    }

    #[test]
    fn outside_a_pool_and_with_one_thread_nothing_is_started() {
        let is_helped = || {
            assert_eq!(operation(10), 45);
            HELPERS.with(|helpers| helpers.get().is_some())
        };
        assert!(!std::thread::spawn(is_helped).join().unwrap());
        assert!(!pool(1).install(is_helped));
        assert!(pool(2).install(is_helped));
    }

    #[test]
    fn every_job_is_done_once() {
        let count = |n: usize, at_least: Option<usize>| {
            let done: Vec<AtomicUsize> = (0..n).map(|_| AtomicUsize::new(0)).collect();
            let job = |i: usize| {
                done[i].fetch_add(1, Ordering::Relaxed);
            };
            pool(3).install(|| match at_least {
                None => each_job(n, job),
                Some(at_least) => each_short_job(n, at_least, job),
            });
            assert!(done.iter().all(|n| n.load(Ordering::Relaxed) == 1));
        };
        for n in [0, 1, 100] {
            for at_least in [None, Some(0), Some(7), Some(1000)] {
                count(n, at_least);
            }
        }
    }

    #[test]
    fn chunks_are_numbered_and_the_last_one_may_be_short() {
        let mut y = [0; 11];
        pool(2).install(|| each_chunk_mut(&mut y, 4, |i, y| y.fill(10 * (i + 1) + y.len())));
        assert_eq!(y, [14, 14, 14, 14, 24, 24, 24, 24, 33, 33, 33]);
        each_chunk_mut(&mut y[..0], 0, |_, _| panic!("there is no chunk"));
    }

    #[test]
    fn both_results_come_back() {
        assert_eq!(join(|| 1, || "two"), (1, "two"));
        assert_eq!(pool(2).install(|| join(|| 1, || "two")), (1, "two"));
    }
}
