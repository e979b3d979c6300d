//! The error type of communication between processes.

use std::io;

/// What can go wrong between processes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An environment variable has an invalid value.
    #[error("{name}: expected {expected}, found {found:?}")]
    Variable {
        /// Name of the variable.
        name: &'static str,
        /// What is valid.
        expected: String,
        /// Its value.
        found: String,
    },
    /// The processes could not connect to each other.
    #[error("{what}: {source}")]
    Rendezvous {
        /// What was attempted.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// A process disconnected or timed out.
    #[error("rank {rank} is disconnected: {source}")]
    Disconnected {
        /// Its rank.
        rank: usize,
        /// How the disconnection was noticed.
        source: io::Error,
    },
    /// A process reported that it failed.
    #[error("rank {rank} failed: {why}")]
    Failed {
        /// Its rank.
        rank: usize,
        /// The reason that it gave. It names a third process that is disconnected.
        why: String,
    },
    /// Rank 0 has finished with the other processes.
    #[error("rank 0 has ended the work")]
    Ended,
    /// A process sent something other than expected, so the processes do not run the same program with the same data.
    #[error("rank {rank}: expected {expected}, found {found}")]
    Mismatch {
        /// Its rank.
        rank: usize,
        /// What was expected.
        expected: String,
        /// What arrived.
        found: String,
    },
    /// A tensor operation or a device failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

/// A result with this crate's error.
pub type Result<T> = std::result::Result<T, Error>;

pub(crate) fn mismatch(
    rank: usize,
    expected: impl Into<String>,
    found: impl Into<String>,
) -> Error {
    Error::Mismatch {
        rank,
        expected: expected.into(),
        found: found.into(),
    }
}
