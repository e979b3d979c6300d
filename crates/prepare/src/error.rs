//! The error type of this crate.

use std::{io, path::PathBuf};

use crate::report::Skipped;

/// A result with this crate's error.
pub type Result<T> = std::result::Result<T, PrepareError>;

/// Why images could not be prepared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrepareError {
    /// An input does not exist, or is of an unknown kind.
    #[error("{}: expected a folder of images, a .zip, .tar or .parquet file, found {found}", path.display())]
    Input {
        /// The input.
        path: PathBuf,
        /// What was found there.
        found: String,
    },
    /// An archive or a table cannot be read.
    #[error("{}: damaged {kind} file: {reason}", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// `zip`, `tar` or `parquet`.
        kind: &'static str,
        /// The reader's message.
        reason: String,
    },
    /// A table has no image column, or several.
    #[error("{}: expected one column of images (bytes, or a struct of bytes and path, best named image), found {found}", path.display())]
    Column {
        /// The file.
        path: PathBuf,
        /// Its columns.
        found: String,
    },
    /// The images have no form in common.
    #[error(
        "{one} and {other} have no common form; give one by --channels and --depth, or prepare them separately"
    )]
    Forms {
        /// An image and its form.
        one: String,
        /// Another image and its form.
        other: String,
    },
    /// The classes of the images do not fit together.
    #[error("the classes of the inputs do not match: {problem}; prepare such inputs separately")]
    Labels {
        /// Two of them.
        problem: String,
    },
    /// A folder of images cannot be read.
    #[error(transparent)]
    Folder(#[from] sdft_data::DataError),
    /// An option is out of range.
    #[error("{option}: expected {expected}, found {found}")]
    Option {
        /// Name of the option.
        option: &'static str,
        /// Allowed values.
        expected: &'static str,
        /// The value given.
        found: String,
    },
    /// A list of exclusions cannot be read.
    #[error("cannot read the list of exclusions {}: {cause}", path.display())]
    Exclusions {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        cause: io::Error,
    },
    /// The target folder contains other files.
    #[error("{}: expected an empty or a new folder, found {found}; choose another --out", path.display())]
    Foreign {
        /// The target.
        path: PathBuf,
        /// What was found in it.
        found: String,
    },
    /// The target folder contains a set with other inputs or another size.
    #[error("{}: the folder contains a set {found}, expected one {expected}; choose another --out, or delete the folder", path.display())]
    Other {
        /// The target.
        path: PathBuf,
        /// How the existing set was made.
        found: String,
        /// How the requested set would be made.
        expected: String,
    },
    /// The target is inside an input, or an input is inside the target.
    #[error("{}: the target and the input {} must not contain each other", path.display(), input.display())]
    Nested {
        /// The target.
        path: PathBuf,
        /// The input.
        input: PathBuf,
    },
    /// Another process is preparing images in the same folder.
    #[error("{}: another process is preparing images in this folder; wait until it exits", path.display())]
    Busy {
        /// The target.
        path: PathBuf,
    },
    /// A file or folder cannot be read or written.
    #[error("{}: {cause}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The error of the operating system.
        cause: io::Error,
    },
    /// The inputs contain no usable image.
    #[error("no usable image in {inputs}{}", reasons(skipped))]
    Nothing {
        /// The inputs.
        inputs: String,
        /// What was found instead.
        skipped: Vec<Skipped>,
    },
    /// Some images cannot be used, and the caller asked to be strict.
    #[error("{} of the images cannot be used{}", skipped.len(), reasons(skipped))]
    Strict {
        /// The unusable images.
        skipped: Vec<Skipped>,
    },
}

/// Why an entry cannot be used, as text for the index and the report.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Reason(String);

impl From<String> for Reason {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<&str> for Reason {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

/// The result of reading an entry.
pub(crate) type EntryResult<T> = std::result::Result<T, Reason>;

/// Why an image could not be made.
pub(crate) enum Failure {
    /// A property of the image.
    Entry(Reason),
    /// A property of the whole set.
    Set(Box<PrepareError>),
}

impl From<Reason> for Failure {
    fn from(reason: Reason) -> Self {
        Self::Entry(reason)
    }
}

impl From<PrepareError> for Failure {
    fn from(error: PrepareError) -> Self {
        Self::Set(Box::new(error))
    }
}

/// The first few reasons, one for each line.
fn reasons(skipped: &[Skipped]) -> String {
    const SHOWN: usize = 5;
    let mut text = String::new();
    for Skipped { source, reason } in skipped.iter().take(SHOWN) {
        text.push_str(&format!("\n  {source}: {reason}"));
    }
    if skipped.len() > SHOWN {
        text.push_str(&format!("\n  and {} more", skipped.len() - SHOWN));
    }
    text
}
