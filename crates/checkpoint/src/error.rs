//! The error type.

use crate::finite::NonFinite;
use sdft_files::plural;
use std::path::PathBuf;

/// Why a weights file cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file system failed.
    #[error("{}: {action}: {source}", path.display())]
    Io {
        /// The action that failed.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The file is missing.
    #[error("{}: no such file{hint}", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// Files of a similar name in the same folder, if there are any.
        hint: String,
    },
    /// Not a container of weights, or a damaged one.
    #[error("{}: {problem}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What was expected and what was found.
        problem: String,
    },
    /// The requested part of the file is missing.
    #[error("{}: no weights under {key:?}; the file has {available}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// The requested part.
        key: String,
        /// The parts of the file.
        available: String,
    },
    /// Weights with values that are NaN or infinite.
    #[error("{}: {} with values that are not finite\n{lines}\nthe file is damaged, or the training that made it diverged; {advice}, or export the weights again", path.display(), plural(.tensors.len(), "tensor", "tensors"))]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// The tensors.
        tensors: Vec<NonFinite>,
        /// The first tensors, one line each.
        lines: String,
        /// What to do instead.
        advice: String,
    },
    /// A tensor operation.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

/// The result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;

/// What is wrong with a part of a file, without its place, which the caller knows.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Problem(pub(crate) String);

impl From<&str> for Problem {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}
