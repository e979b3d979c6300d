use std::path::PathBuf;

/// Why a file of the list is not at hand.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The list has no such name.
    #[error("no asset is called {name:?}; the nearest name is {nearest:?}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// The known name most like it.
        nearest: String,
    },
    /// The Hub does not have it.
    #[error("{name} cannot be found by name: {how}")]
    NotOnHub {
        /// What was asked for.
        name: String,
        /// How to get it.
        how: String,
    },
    /// It was never downloaded, or to another place.
    #[error("{name}: expected {}, found nothing there; get it with: {command}", looked_at.display())]
    Missing {
        /// What was asked for.
        name: String,
        /// Where its first missing file, or the note of its revision, should be.
        looked_at: PathBuf,
        /// What downloads it.
        command: String,
    },
    /// A file is not as long as it should be.
    #[error("{name}: {}: expected {expected} bytes, found {found}; delete it and get it with: {command}", path.display())]
    Size {
        /// What was asked for.
        name: String,
        /// The file.
        path: PathBuf,
        /// Bytes according to the list.
        expected: u64,
        /// Bytes there are.
        found: u64,
        /// What downloads it.
        command: String,
    },
    /// A file is there but cannot be looked at.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The environment does not say where downloads are.
    #[error(
        "no place of downloads: expected HF_HUB_CACHE, HF_HOME or HOME to be set, found none of them"
    )]
    NoHome,
}

/// The result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;
