//! The error type.

use std::path::PathBuf;

/// The result of a function of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why an adapter cannot be trained, read or applied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting that does not fit the others, or the network.
    #[error("adapter.{key}: {problem}")]
    Config {
        /// The key in the section `adapter`.
        key: &'static str,
        /// What was expected and what was found.
        problem: String,
    },
    /// A file that is not an adapter, or does not fit the network.
    #[error("{}: {problem}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What was expected and what was found.
        problem: String,
    },
    /// The weights of a file.
    #[error(transparent)]
    Weights(#[from] sdft_checkpoint::Error),
    /// A tensor operation.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

impl Error {
    pub(crate) fn config(key: &'static str, problem: impl Into<String>) -> Self {
        Self::Config {
            key,
            problem: problem.into(),
        }
    }

    pub(crate) fn file(path: impl Into<PathBuf>, problem: impl Into<String>) -> Self {
        Self::File {
            path: path.into(),
            problem: problem.into(),
        }
    }
}
