//! Errors between processes.

use std::io;

/// What can go wrong between processes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A variable of the environment that makes no sense.
    #[error("{name}: expected {expected}, found {found:?}")]
    Variable {
        /// Its name.
        name: &'static str,
        /// What it has to be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// Rank 0 cannot be reached, or not all others came to it.
    #[error("{what}: {source}")]
    Meeting {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// A process that was there has gone.
    #[error("rank {rank} has gone: {source}")]
    Gone {
        /// Which.
        rank: usize,
        /// How that was noticed.
        source: io::Error,
    },
    /// A process that says that it cannot go on; its own error says why.
    #[error("rank {rank} cannot go on; its own message says why")]
    Failed {
        /// Which.
        rank: usize,
    },
    /// Something else came than was asked for: the processes do not do the same.
    #[error("rank {rank}: expected {expected}, found {found}")]
    Unlike {
        /// Which.
        rank: usize,
        /// What was to come.
        expected: String,
        /// What came.
        found: String,
    },
    /// A tensor operation or a device failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

/// The result of something that several processes do.
pub type Result<T> = std::result::Result<T, Error>;
