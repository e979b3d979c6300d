use std::path::PathBuf;

/// Why images cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// A folder that cannot serve as a data set.
    #[error("{}: {problem}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What is wrong, and what was expected.
        problem: String,
    },
    /// The system refused to read something.
    #[error("{}: cannot be read: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// One image.
    #[error(transparent)]
    Image(#[from] sdft_imaging::ImagingError),
    /// Images that cannot be read, in a strict check.
    #[error("{}: {} of {n} images cannot be read, the first: {first}", path.display(), count)]
    Unreadable {
        /// The folder.
        path: PathBuf,
        /// How many.
        count: usize,
        /// Of how many.
        n: usize,
        /// The first one and its reason.
        first: String,
    },
    /// A request for digits that makes no sense.
    #[error("digits: {problem}")]
    Digits {
        /// What is wrong.
        problem: String,
    },
    /// The thread that prepares batches is gone.
    #[error("the thread that prepares batches stopped: {reason}")]
    Worker {
        /// Why, as far as it is known.
        reason: String,
    },
}

/// The result of this crate's functions.
pub type Result<T> = std::result::Result<T, DataError>;
