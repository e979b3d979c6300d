use std::{io, path::PathBuf};

use crate::report::Skipped;

/// The result of this crate's functions.
pub type Result<T> = std::result::Result<T, PrepareError>;

/// Why images could not be prepared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrepareError {
    /// An input is not there, or is none of the known kinds.
    #[error("{}: expected a folder of images, a .zip or a .parquet file, found {found}", path.display())]
    Input {
        /// The input.
        path: PathBuf,
        /// What is there.
        found: String,
    },
    /// An archive or a table cannot be opened.
    #[error("{}: broken {kind} file: {reason}", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// `zip` or `parquet`.
        kind: &'static str,
        /// What its reader said.
        reason: String,
    },
    /// A table has no column of images, or several.
    #[error("{}: expected one column of images (bytes, or a struct of bytes and path, best named image), found {found}", path.display())]
    Column {
        /// The file.
        path: PathBuf,
        /// Its columns.
        found: String,
    },
    /// A folder of images cannot be listed.
    #[error(transparent)]
    Folder(#[from] sdft_data::DataError),
    /// A setting is out of range.
    #[error("{option}: expected {expected}, found {found}")]
    Option {
        /// Its name.
        option: &'static str,
        /// What is allowed.
        expected: &'static str,
        /// What was given.
        found: String,
    },
    /// A list of exclusions cannot be read.
    #[error("cannot read the exclusions {}: {cause}", path.display())]
    Exclusions {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// The target folder holds something else.
    #[error("{}: expected an empty or a new folder, found {found} there; name another --out", path.display())]
    Foreign {
        /// The target.
        path: PathBuf,
        /// What is in it.
        found: String,
    },
    /// The target folder holds a set made of other inputs or of another size.
    #[error("{}: a set was prepared there {found}, asked for is one {expected}; name another --out, or remove the folder", path.display())]
    Other {
        /// The target.
        path: PathBuf,
        /// How it was made.
        found: String,
        /// How it should be made.
        expected: String,
    },
    /// The target lies in an input, or an input in the target.
    #[error("{}: the target must not lie inside an input ({}) or around it", path.display(), input.display())]
    Nested {
        /// The target.
        path: PathBuf,
        /// The input.
        input: PathBuf,
    },
    /// Another process prepares into the same folder.
    #[error("{}: another process is preparing images there; wait for it", path.display())]
    Busy {
        /// The target.
        path: PathBuf,
    },
    /// Something cannot be read or written.
    #[error("{}: {cause}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// No image is left.
    #[error("no usable image in {inputs}{}", reasons(skipped))]
    Nothing {
        /// The inputs.
        inputs: String,
        /// What was found instead.
        skipped: Vec<Skipped>,
    },
    /// Images cannot be used, and the caller wanted all of them.
    #[error("{} of the images cannot be used{}", skipped.len(), reasons(skipped))]
    Strict {
        /// Those.
        skipped: Vec<Skipped>,
    },
}

/// The first few reasons, a line each.
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
