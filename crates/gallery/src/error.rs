//! Why a folder cannot be filled.

use sdft_imaging::ImagingError;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// The result of an operation on a gallery.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a folder cannot be filled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A refused path. Nothing was changed.
    #[error("{}: {problem}", path.display())]
    Refused {
        /// The path, as the caller gave it.
        path: PathBuf,
        /// What is wrong, and what to do.
        problem: String,
        /// What overwriting would do, if it would help.
        overwriting: Option<&'static str>,
    },
    /// The folder holds the files of another plan.
    #[error("{}: the files in this folder were made with other settings ({difference}); name another folder", path.display())]
    OtherPlan {
        /// The folder.
        path: PathBuf,
        /// The first setting that differs.
        difference: String,
    },
    /// Another process writes into the folder.
    #[error("{}: another process is writing into this folder", path.display())]
    Locked {
        /// The folder.
        path: PathBuf,
    },
    /// A file that this folder's plan did not make.
    #[error("{}: this file exists already and was not made by this command; move it away", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// A subfolder that is a link.
    #[error("{}: this is a link, which is not followed", path.display())]
    Link {
        /// The link.
        path: PathBuf,
    },
    /// A name that is too long for file systems.
    #[error(
        "its output would have a name of {length} bytes, and file systems allow {longest}; give it a shorter one"
    )]
    Name {
        /// Bytes of the name.
        length: usize,
        /// Bytes that file systems take.
        longest: usize,
    },
    /// An input that cannot be used.
    #[error("{0}")]
    Input(String),
    /// Items that failed while the others were made.
    #[error("{0}")]
    Failures(String),
    /// A file system error.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A picture.
    #[error(transparent)]
    Picture(#[from] ImagingError),
    /// A plan that cannot be written as TOML.
    #[error("the plan cannot be written: {0}")]
    Plan(#[from] toml::ser::Error),
    /// The caller's maker of images.
    #[error(transparent)]
    Maker(Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    /// Whether the caller has to name another path or setting; other errors are failures.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused { .. })
    }

    /// What overwriting would do, for a hint such as "or overwrite to ..", where it would help.
    pub fn overwriting(&self) -> Option<&'static str> {
        match self {
            Self::Refused { overwriting, .. } => *overwriting,
            Self::OtherPlan { .. } => Some("make it again"),
            _ => None,
        }
    }

    /// Whether every other file would fail for the same reason: a full disk, for example.
    pub fn ends_everything(&self) -> bool {
        let kinds = [
            ErrorKind::NotFound,
            ErrorKind::QuotaExceeded,
            ErrorKind::ReadOnlyFilesystem,
            ErrorKind::StorageFull,
        ];
        matches!(self, Self::Io { source, .. } if kinds.contains(&source.kind()))
    }

    pub(crate) fn refused(path: &Path, problem: impl Into<String>) -> Self {
        Self::Refused {
            path: path.to_owned(),
            problem: problem.into(),
            overwriting: None,
        }
    }
}

/// Adds the failed action to an error of the system.
pub(crate) trait OnPath<T> {
    fn on(self, action: &'static str, path: &Path) -> Result<T>;
}

impl<T> OnPath<T> for io::Result<T> {
    fn on(self, action: &'static str, path: &Path) -> Result<T> {
        self.map_err(|source| Error::Io {
            action,
            path: path.to_owned(),
            source,
        })
    }
}
