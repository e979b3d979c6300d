//! What every program needs: its allocator and threads before it computes, its messages and exit code afterwards.
//!
//! Training allocates the same large tensors in every step. The allocator of this crate keeps their pages instead of returning them to
//! the system and requesting them again, which would cost more than half as much as the arithmetic. Every program that uses this crate has
//! that allocator; a library should not use it.
//!
//! # Example: the start of a program
//! ```
//! // SAFETY: this is the first statement of `main`, so no other thread exists.
//! unsafe { sdft_runtime::prepare() };
//! let sum = sdft_runtime::with_threads(Some(1), || (1..=4).sum::<u32>())?;
//! assert_eq!(sum, 10);
//! # Ok::<(), sdft_runtime::PoolError>(())
//! ```
//!
//! **Invariant:** changes the speed and memory use of a program, and how it reports, but never what it computes.

mod memory;
mod program;
mod threads;

pub use memory::{available_memory, peak_memory, prepare, processor_name, resident_memory};
pub use program::{
    OutputClosed, UsageError, as_called, exit_code, exit_with, listed_options, note, print_line,
    usage,
};
pub use threads::{PoolError, most_threads, with_threads};
