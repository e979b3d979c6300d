//! The thread pools of a program.

pub use rayon::ThreadPoolBuildError as PoolError;

/// Gradients are computed by walking the graph recursively, and deep networks have deep graphs.
const STACK_BYTES: usize = 256 << 20;

/// The largest useful number of threads: a few for each core.
#[must_use]
pub fn most_threads() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    (4 * cores).max(16)
}

/// Runs `f` in a pool of `threads` threads (`None`: one for each core), which all operations in `f` share.
///
/// # Errors
/// Fails if the system cannot start the threads, or if rayon's global pool already exists.
pub fn with_threads<R: Send>(
    threads: Option<usize>,
    f: impl FnOnce() -> R + Send,
) -> Result<R, PoolError> {
    let builder = || rayon::ThreadPoolBuilder::new().num_threads(threads.unwrap_or(0));
    // Other threads, such as the one that prepares batches, use the global pool. They must not wait for a pool whose threads may be
    // waiting for them.
    builder().build_global()?;
    let pool = builder().stack_size(STACK_BYTES).build()?;
    Ok(pool.install(f))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_runs_on_the_requested_number_of_threads() {
        let n = with_threads(Some(3), rayon::current_num_threads).unwrap();
        assert_eq!(n, 3);
        assert!(most_threads() >= 16);
    }
}
