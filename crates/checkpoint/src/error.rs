use crate::finite::NonFinite;
use std::path::PathBuf;

/// Why a weights file cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The system refused.
    #[error("{}: {action}: {source}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// There is no such file.
    #[error("{}: no such file{hint}", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// A file of a similar name in the same folder, if there is one.
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
    /// The part of the file that was asked for is not there.
    #[error("{}: there are no weights under {key:?}; the file has {available}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What was asked for.
        key: String,
        /// What there is.
        available: String,
    },
    /// Weights with values that are NaN or infinite.
    #[error("{}: {} with values that are not finite\n{lines}\nthe file is damaged, or the training that made it diverged; {advice}, or export the weights again", path.display(), counted(.tensors.len()))]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// The tensors.
        tensors: Vec<NonFinite>,
        /// The first of them, a line each.
        lines: String,
        /// What to take instead.
        advice: String,
    },
    /// A tensor operation.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

/// The result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;

fn counted(n: usize) -> String {
    match n {
        1 => "1 tensor".to_owned(),
        n => format!("{n} tensors"),
    }
}
