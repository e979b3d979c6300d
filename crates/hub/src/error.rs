use std::{io, path::PathBuf};

/// The result of this crate's functions.
pub type Result<T> = std::result::Result<T, HubError>;

/// Why a file could not be fetched. No message holds a token or an address with a signature.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// The network may not be used and the file is not here.
    #[error("{what} is not here (expected {}), and the network may not be used (--offline or HF_HUB_OFFLINE)", looked_at.display())]
    Offline {
        /// The file.
        what: String,
        /// Where it was looked for.
        looked_at: PathBuf,
    },
    /// No answer could be had.
    #[error("{what}: {server} cannot be reached: {reason}")]
    Unreachable {
        /// The file.
        what: String,
        /// The server.
        server: String,
        /// What the network said.
        reason: String,
    },
    /// The server refuses.
    #[error("{what}: {server} answered {status}: {meaning}")]
    Refused {
        /// The file.
        what: String,
        /// The server.
        server: String,
        /// The status of its answer.
        status: u16,
        /// What that means.
        meaning: String,
    },
    /// The answer is not what the Hub's protocol asks for.
    #[error("{what}: {server} does not answer as the Hub does: {problem}")]
    Protocol {
        /// The file.
        what: String,
        /// The server.
        server: String,
        /// What is missing or wrong.
        problem: String,
    },
    /// The server has another file than the list knows.
    #[error(
        "{what}: another file than expected: the server has {found}, expected {expected}; nothing was downloaded"
    )]
    Other {
        /// The file.
        what: String,
        /// What the server has.
        found: String,
        /// What the list says.
        expected: String,
    },
    /// Bytes came and were not those that were announced.
    #[error(
        "{what}: the bytes that arrived are not those of the file ({found}, expected {expected}), twice; they were deleted"
    )]
    Wrong {
        /// The file.
        what: String,
        /// Their hash or length.
        found: String,
        /// The hash or length of the file.
        expected: String,
    },
    /// The transfer broke off too often.
    #[error(
        "{what}: gave up after {attempts} attempts without progress: {reason}; {have} bytes are kept and the next call goes on from there"
    )]
    GaveUp {
        /// The file.
        what: String,
        /// How often it was tried in a row.
        attempts: u32,
        /// What happened last.
        reason: String,
        /// Bytes that have arrived.
        have: u64,
    },
    /// A file of the cache is damaged and may not be fetched again.
    #[error("{what}: {} is damaged ({found}, expected {expected}), and the network may not be used", path.display())]
    Damaged {
        /// The file.
        what: String,
        /// Its path.
        path: PathBuf,
        /// Its hash or length.
        found: String,
        /// What it should be.
        expected: String,
    },
    /// Something in the cache cannot be read or written.
    #[error("{}: {cause}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// The environment is not usable.
    #[error("{0}")]
    Environment(String),
    /// The place of the cache is not known, or a name is wrong.
    #[error(transparent)]
    Assets(#[from] sdft_assets::Error),
    /// A data set that was fetched cannot be read.
    #[error("{what}: {problem}")]
    Data {
        /// The data set.
        what: String,
        /// Why.
        problem: String,
    },
}

/// Adds the path to an error of the system.
pub(crate) fn io(path: &std::path::Path) -> impl FnOnce(io::Error) -> HubError {
    let path = path.to_owned();
    move |cause| HubError::Io { path, cause }
}
