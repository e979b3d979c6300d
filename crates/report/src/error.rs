//! What can go wrong.

use std::path::{Path, PathBuf};

/// A page that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A folder without results.
    #[error(
        "{path}: expected the folder of a run, of images, of an evaluation or of a comparison (with a plan.toml, report.json or table.json), found none of these"
    )]
    Foreign {
        /// The folder.
        path: PathBuf,
    },
    /// No such folder.
    #[error("{path}: no such folder")]
    Missing {
        /// The path.
        path: PathBuf,
    },
    /// A file with content that was not expected.
    #[error("{path}: {problem}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The file system fails.
    #[error("cannot {action} {path}")]
    Io {
        /// As in `read`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// The page is not well-formed.
    #[error("the page cannot be written")]
    Page(#[from] minijinja::Error),
}

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Names the file of an error.
pub(crate) trait OnPath<T> {
    fn on(self, action: &'static str, path: &Path) -> Result<T>;
}

impl<T> OnPath<T> for std::io::Result<T> {
    fn on(self, action: &'static str, path: &Path) -> Result<T> {
        self.map_err(|source| Error::Io {
            action,
            path: path.to_owned(),
            source,
        })
    }
}
