//! The error type.

use std::path::PathBuf;

/// Why a file of the list cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The list has no such name.
    #[error("no asset is called {name:?}{hint} (`cargo xtask fetch --list` shows all names)")]
    Unknown {
        /// The name.
        name: String,
        /// `"; did you mean a or b?"`, or nothing where no name is similar.
        hint: String,
    },
    /// No program can download it.
    #[error("{name} is not on the Hugging Face Hub: {how}, and put it at {}, or give its path", file.display())]
    NotOnHub {
        /// The name.
        name: String,
        /// How to get it.
        how: String,
        /// Its expected path.
        file: PathBuf,
    },
    /// It was not downloaded, or it is in another cache.
    #[error("{name} is missing: expected {}, found nothing there\n  get it with    {}\n  or with        {command}\n  or give the path of a file or folder that you have", expected_path.display(), xtask(name))]
    Missing {
        /// The name.
        name: String,
        /// The first missing path.
        expected_path: PathBuf,
        /// The command of the official client.
        command: String,
    },
    /// A file has another size than in the list.
    #[error("{name}: {}: expected {expected} bytes, found {found}; get it again with {}", path.display(), xtask(name))]
    Size {
        /// The name.
        name: String,
        /// The file.
        path: PathBuf,
        /// Bytes according to the list.
        expected: u64,
        /// Bytes there are.
        found: u64,
    },
    /// A file is damaged, or another one.
    #[error("{}: damaged or another file: SHA-256 {found}, expected {expected}; get it again with {}", path.display(), xtask(name))]
    Hash {
        /// The name.
        name: String,
        /// The file.
        path: PathBuf,
        /// Its hash according to the list, or the one it was downloaded under.
        expected: String,
        /// The hash of what is there.
        found: String,
    },
    /// A text that starts with `hf:` is not a valid reference.
    #[error(
        "{text}: expected hf:OWNER/NAME[@REVISION]/PATH or hf:datasets/OWNER/NAME[@REVISION]/PATH, {problem}"
    )]
    Location {
        /// The text.
        text: String,
        /// The problem.
        problem: String,
    },
    /// The address of a file is not a plain one.
    #[error("{url}: expected https://HOST/PATH without user, query and ..")]
    Address {
        /// The address.
        url: String,
    },
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The environment has no folder for downloads.
    #[error(
        "no folder for downloads: expected HF_HUB_CACHE, HF_HOME or HOME to be set, found none of them"
    )]
    NoHome,
}

/// The project's own command that fetches or prepares a name.
fn xtask(name: &str) -> String {
    format!("cargo xtask fetch {name}")
}

/// The result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;
