//! What a program sets up before it computes: memory and threads.
//!
//! Training allocates the same large tensors in every step. The allocator of this crate keeps their pages instead of giving them
//! back to the system and asking for them again, which would cost more than half as much as the arithmetic. A program that depends
//! on this crate has that allocator; libraries should not.
//!
//! # Example: the start of a program
//! ```
//! // SAFETY: this is the first statement of `main`, no other thread exists.
//! unsafe { sdft_runtime::prepare() };
//! let sum = sdft_runtime::with_threads(Some(1), || (1..=4).sum::<u32>())?;
//! assert_eq!(sum, 10);
//! # Ok::<(), sdft_runtime::PoolError>(())
//! ```
//!
//! **Invariant:** changes how fast and with how much memory a program runs, never what it computes.

/// A pool of threads that could not be started.
pub use rayon::ThreadPoolBuildError as PoolError;

use libmimalloc_sys::{mi_option_set_default, mi_option_t};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// mimalloc's `purge_delay`: milliseconds after which unused pages go back to the system, -1 for never.
const PURGE_DELAY: mi_option_t = 15;

/// The graph of gradients is walked recursively, and deep networks have deep graphs.
const STACK_BYTES: usize = 256 << 20;

/// Settles what must be settled before anything else runs. What the user has set in the environment
/// (`MIMALLOC_PURGE_DELAY`, `CANDLE_NUM_THREADS`) stays.
///
/// # Safety
/// No other thread may exist yet: the environment is changed.
pub unsafe fn prepare() {
    // candle's elementwise kernels have a spinning thread pool of their own, which would fight with ours for the cores.
    if std::env::var_os("CANDLE_NUM_THREADS").is_none() {
        // SAFETY: no other thread exists.
        unsafe { std::env::set_var("CANDLE_NUM_THREADS", "1") };
    }
    // SAFETY: an option of the allocator, and a value it knows.
    unsafe { mi_option_set_default(PURGE_DELAY, -1) };
}

/// The most threads that help: a few per core.
#[must_use]
pub fn most_threads() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    (4 * cores).max(16)
}

/// Bytes of memory that this process can have at most, where the system tells: the machine's memory with swap, or less where a limit is
/// set (a container's, or that of `ulimit -v`).
#[must_use]
pub fn available_memory() -> Option<u64> {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let number = |text: &str| text.split_whitespace().next()?.parse::<u64>().ok();
    let field = |text: &str, name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name))?;
        number(value)
    };
    let machine = read("/proc/meminfo").and_then(|text| {
        let swap = field(&text, "SwapTotal:").unwrap_or(0);
        Some(1024 * (field(&text, "MemTotal:")? + swap))
    });
    let container = read("/sys/fs/cgroup/memory.max").and_then(|text| number(&text));
    let limit = read("/proc/self/limits").and_then(|text| field(&text, "Max address space"));
    [machine, container, limit].into_iter().flatten().min()
}

/// Runs `f` inside a pool of this many threads (none: as many as there are cores), so that entering it once serves all operations.
///
/// # Errors
/// When the system starts no more threads, or a pool for everybody exists already.
pub fn with_threads<R: Send>(
    threads: Option<usize>,
    f: impl FnOnce() -> R + Send,
) -> Result<R, PoolError> {
    let builder = || rayon::ThreadPoolBuilder::new().num_threads(threads.unwrap_or(0));
    // The pool of everybody else, such as the thread that prepares batches: that one must not wait for a pool whose threads may
    // be waiting for it.
    builder().build_global()?;
    let pool = builder().stack_size(STACK_BYTES).build()?;
    Ok(pool.install(f))
}

/// The memory that this process uses now, in bytes, where the system reports it.
pub fn resident_memory() -> Option<u64> {
    process_status("VmRSS:")
}

/// The most memory that this process has used, in bytes, where the system reports it.
pub fn peak_memory() -> Option<u64> {
    process_status("VmHWM:")
}

fn process_status(field: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with(field))?;
    let kib = line.split_whitespace().nth(1)?.parse::<u64>().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_option_is_the_one_that_is_meant() {
        // Its documented default tells this option from its neighbours, and ours must arrive.
        // SAFETY: reading and setting an option of the allocator.
        unsafe {
            if std::env::var_os("MIMALLOC_PURGE_DELAY").is_none() {
                assert_eq!(libmimalloc_sys::mi_option_get(PURGE_DELAY), 1000);
                mi_option_set_default(PURGE_DELAY, -1);
                assert_eq!(libmimalloc_sys::mi_option_get(PURGE_DELAY), -1);
            }
        }
    }

    #[test]
    fn the_memory_is_that_of_the_machine_or_less() {
        if cfg!(target_os = "linux") {
            let bytes = available_memory().unwrap();
            assert!((64 << 20..1 << 50).contains(&bytes), "{bytes}");
            let (now, peak) = (resident_memory().unwrap(), peak_memory().unwrap());
            assert!((1 << 16..=peak).contains(&now), "{now} {peak}");
        }
        assert!(most_threads() >= 16);
    }

    #[test]
    fn work_runs_on_as_many_threads_as_asked_for() {
        assert_eq!(
            with_threads(Some(3), rayon::current_num_threads).unwrap(),
            3
        );
    }
}
