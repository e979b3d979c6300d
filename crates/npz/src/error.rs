//! The error type.

use std::path::PathBuf;

/// Why an archive cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file cannot be opened.
    #[error("{}: cannot be opened: {source}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// Not a zip archive, or a damaged one.
    #[error("{file}: {problem}")]
    Archive {
        /// The file.
        file: String,
        /// What was expected and what was found.
        problem: String,
    },
    /// One array of the archive cannot be read.
    #[error("{file}: {entry}: {problem}")]
    Entry {
        /// The file.
        file: String,
        /// The entry of the archive.
        entry: String,
        /// What was expected and what was found.
        problem: String,
    },
    /// This crate does not read arrays of this type.
    #[error("{file}: {entry}: values of type {dtype} are not read{hint}; expected one of {known}", known = crate::dtype::KNOWN)]
    Dtype {
        /// The file.
        file: String,
        /// The entry of the archive.
        entry: String,
        /// The type as the file writes it.
        dtype: String,
        /// An explanation, or nothing.
        hint: &'static str,
    },
    /// A shape does not have as many elements as there are values.
    #[error("an array of shape {shape:?} needs {expected}, found {found} values")]
    Shape {
        /// The shape that was given.
        shape: Vec<usize>,
        /// The number of elements that it has.
        expected: String,
        /// Number of values that were given.
        found: usize,
    },
    /// Floating-point numbers were expected, but the array has integers.
    #[error("expected an array of floating-point numbers, found {found}")]
    NotFloat {
        /// The type of the values.
        found: &'static str,
    },
    /// The archive cannot be written.
    #[error("array {name:?} cannot be written: {problem}")]
    Write {
        /// The name of the array.
        name: String,
        /// What was expected and what was found.
        problem: String,
    },
}

/// What is wrong with a part of an archive, without its place, which the caller knows.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Problem(pub(crate) String);

impl From<String> for Problem {
    fn from(text: String) -> Self {
        Self(text)
    }
}

/// The result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;
