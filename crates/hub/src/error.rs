//! The error type of this crate.

use std::{io, path::PathBuf};

/// A result with this crate's error.
pub type Result<T> = std::result::Result<T, HubError>;

/// Why a file could not be fetched or published. No message contains a token or a signed address.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// The file is not in the cache and the network is disabled.
    #[error("{what} is not in the cache (expected {}), and the network is disabled (--offline or HF_HUB_OFFLINE)", expected_path.display())]
    Offline {
        /// The file.
        what: String,
        /// The path in the cache at which it was expected.
        expected_path: PathBuf,
    },
    /// The server did not respond.
    #[error("{what}: {server} cannot be reached: {reason}")]
    Unreachable {
        /// The file.
        what: String,
        /// The server.
        server: String,
        /// The network error.
        reason: String,
    },
    /// The server rejected the request.
    #[error("{what}: {server} answered {status}: {meaning}")]
    Refused {
        /// The file.
        what: String,
        /// The server.
        server: String,
        /// HTTP status code.
        status: u16,
        /// Explanation of the status.
        meaning: String,
    },
    /// The response does not follow the Hub's protocol.
    #[error("{what}: {server} does not follow the Hub's protocol: {problem}")]
    Protocol {
        /// The file.
        what: String,
        /// The server.
        server: String,
        /// What is missing or invalid.
        problem: String,
    },
    /// A response of a server other than the Hub cannot be used.
    #[error("{what}: {server}: {problem}")]
    Server {
        /// The file.
        what: String,
        /// The server.
        server: String,
        /// What is missing or invalid.
        problem: String,
    },
    /// The file on the server was replaced during its download.
    #[error("{what}: the file changed on the server while it was downloaded; try again")]
    Changed {
        /// The file.
        what: String,
    },
    /// The server has another file than the manifest lists.
    #[error(
        "{what}: the server has another file: expected {expected}, found {found}; nothing was downloaded"
    )]
    UnexpectedFile {
        /// The file.
        what: String,
        /// The file on the server.
        found: String,
        /// The file in the manifest.
        expected: String,
    },
    /// The downloaded bytes do not have the expected hash.
    #[error(
        "{what}: two downloads had the wrong hash ({found}, expected {expected}) and were deleted"
    )]
    HashMismatch {
        /// The file.
        what: String,
        /// Hash of the downloaded bytes.
        found: String,
        /// Expected hash.
        expected: String,
    },
    /// The download was interrupted too often.
    #[error(
        "{what}: gave up after {attempts} attempts without progress: {reason}; {have} bytes are kept, and the next call resumes from there"
    )]
    GaveUp {
        /// The file.
        what: String,
        /// Number of consecutive attempts.
        attempts: u32,
        /// The last failure.
        reason: String,
        /// Bytes downloaded so far.
        have: u64,
    },
    /// A file in the cache is damaged and the network is disabled.
    #[error("{what}: {} is damaged ({found}, expected {expected}), and the network is disabled", path.display())]
    Damaged {
        /// The file.
        what: String,
        /// Its path.
        path: PathBuf,
        /// Its hash or length.
        found: String,
        /// The expected hash or length.
        expected: String,
    },
    /// A file or folder of the cache cannot be read or written.
    #[error("{}: {cause}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The error of the operating system.
        cause: io::Error,
    },
    /// The environment has an invalid setting.
    #[error("{0}")]
    Environment(String),
    /// The cache cannot be located, or a name is invalid.
    #[error(transparent)]
    Assets(#[from] sdft_assets::Error),
    /// A repository to publish in has no valid name.
    #[error("{text}: {problem}")]
    Target {
        /// The name.
        text: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A folder or a file in it cannot be published.
    #[error("{}: {problem}", path.display())]
    Folder {
        /// The folder or the file.
        path: PathBuf,
        /// Why, and what to do.
        problem: String,
    },
    /// Files could not be published.
    #[error("{repository}: {server}: {reason}; {state}")]
    NotPublished {
        /// The repository.
        repository: String,
        /// The server.
        server: String,
        /// What failed.
        reason: String,
        /// What the repository has now.
        state: &'static str,
    },
    /// A fetched data set cannot be read.
    #[error("{what}: {problem}")]
    Data {
        /// The data set.
        what: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// Adds the path to an I/O error.
pub(crate) fn io(path: &std::path::Path) -> impl FnOnce(io::Error) -> HubError {
    let path = path.to_owned();
    move |cause| HubError::Io { path, cause }
}
