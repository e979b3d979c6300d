use std::path::PathBuf;

/// Why an archive cannot be read or made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The system refused.
    #[error("{}: cannot be opened: {source}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
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
    /// An array holds something this crate does not read.
    #[error("{file}: {entry}: values of type {dtype} are not read{hint}; expected one of {known}", known = crate::dtype::KNOWN)]
    Dtype {
        /// The file.
        file: String,
        /// The entry of the archive.
        entry: String,
        /// The type as the file writes it.
        dtype: String,
        /// Why, where there is more to say.
        hint: &'static str,
    },
    /// A shape and the number of values do not belong together.
    #[error("an array of shape {shape:?} needs {expected}, found {found} values")]
    Shape {
        /// The shape that was given.
        shape: Vec<usize>,
        /// What it asks for.
        expected: String,
        /// Number of values that were given.
        found: usize,
    },
    /// Fractions were asked of whole numbers.
    #[error("expected an array of floating-point numbers, found {found}")]
    NotFloat {
        /// The type of the values.
        found: &'static str,
    },
    /// The archive cannot be made.
    #[error("array {name:?} cannot be written: {problem}")]
    Write {
        /// The name of the array.
        name: String,
        /// What was expected and what was found.
        problem: String,
    },
}

/// The result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;
