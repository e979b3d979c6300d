//! The error type of this crate.

use std::{fmt, io, path::PathBuf};

use sdft_files::plural;
use sdft_imaging::ImagingError;

use crate::Unreadable;

/// A result with this crate's error.
pub type Result<T> = std::result::Result<T, DataError>;

/// Why data cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// The folder does not exist.
    #[error("image folder {} does not exist", path.display())]
    Missing {
        /// The path given.
        path: PathBuf,
    },
    /// The path is not a folder.
    #[error("{} is not a folder; expected a folder of images, found {found}", path.display())]
    NotAFolder {
        /// The path given.
        path: PathBuf,
        /// What was found there.
        found: &'static str,
    },
    /// The folder cannot be listed.
    #[error("cannot list the image folder {}: {source}", path.display())]
    Unlistable {
        /// The folder.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The folder is empty.
    #[error("image folder {} is empty", path.display())]
    Empty {
        /// The folder.
        path: PathBuf,
    },
    /// The folder contains no images.
    #[error(
        "no images in {} and its subfolders: looked for PNG, JPEG, GIF, WebP, BMP, TIFF and NPY files, found {found}",
        path.display()
    )]
    NoImages {
        /// The folder.
        path: PathBuf,
        /// What was found instead.
        found: String,
    },
    /// An image cannot be read, where all images of a folder are required.
    #[error(
        "{} in {} cannot be read as images; convert or move them:{}",
        plural(unreadable.len(), "file", "files"), path.display(), listed(unreadable)
    )]
    Unread {
        /// The folder.
        path: PathBuf,
        /// Each of these files with its reason.
        unreadable: Vec<Unreadable>,
    },
    /// No image can be decoded.
    #[error("none of the {} images in {} can be read:{}", unreadable.len(), path.display(), listed(unreadable))]
    AllUnreadable {
        /// The folder.
        path: PathBuf,
        /// Each file with its reason.
        unreadable: Vec<Unreadable>,
    },
    /// Some images cannot be decoded, and the caller asked to be strict.
    #[error(
        "{} of the images in {} cannot be read (without --strict they are left out):{}",
        unreadable.len(), path.display(), listed(unreadable)
    )]
    SomeUnreadable {
        /// The folder.
        path: PathBuf,
        /// Each of these files with its reason.
        unreadable: Vec<Unreadable>,
    },
    /// The file with the labels of the images cannot be used.
    #[error("labels {}: {problem}", file.display())]
    Labels {
        /// The file.
        file: PathBuf,
        /// What was expected and found.
        problem: String,
    },
    /// The masks of the images cannot be used.
    #[error("masks {}: {problem}", folder.display())]
    Masks {
        /// Their folder.
        folder: PathBuf,
        /// What was expected and found.
        problem: String,
    },
    /// An image's mask cannot be used.
    #[error("{id}: {problem}")]
    Mask {
        /// The image.
        id: String,
        /// What was expected and found.
        problem: String,
    },
    /// The images have several forms, and none was asked for.
    #[error("{}: {problem}", folder.display())]
    Mixed {
        /// The folder.
        folder: PathBuf,
        /// The forms and what to do.
        problem: String,
    },
    /// The latents of the images cannot be read or written.
    #[error("latents {}: {source}", path.display())]
    Latents {
        /// Their file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// Some images have no class or no mask.
    #[error("{what} {n} image{} ({hint}):{}", if *n == 1 { "" } else { "s" }, first_of(files, *n))]
    Incomplete {
        /// What is missing, as in `labels.csv has no label for`.
        what: String,
        /// Number of these images.
        n: usize,
        /// What to do.
        hint: String,
        /// The first of them.
        files: Vec<String>,
    },
    /// A picture could not be read.
    #[error(transparent)]
    Picture(#[from] ImagingError),
    /// An index is out of range.
    #[error("image {index} is out of range, the data set has {len} images")]
    Index {
        /// The index.
        index: usize,
        /// Number of pictures.
        len: usize,
    },
    /// A source returned a picture of another form.
    #[error("image {id}: expected {expected}, found {found}")]
    Size {
        /// The picture's name.
        id: String,
        /// The form of the data set.
        expected: String,
        /// Its form.
        found: String,
    },
    /// An option has an invalid value.
    #[error("{option}: expected {expected}, found {found}")]
    Option {
        /// Name of the option.
        option: &'static str,
        /// Valid values.
        expected: String,
        /// The value given.
        found: String,
    },
    /// A filter of emoji has an unknown column or value.
    #[error("only{}{}: expected {expected}, found {found}", if column.is_some() { "." } else { "" }, column.as_deref().unwrap_or_default())]
    Only {
        /// The column; `None` if the filter as a whole is wrong.
        column: Option<String>,
        /// Valid columns or values.
        expected: String,
        /// What was given.
        found: String,
    },
    /// The files of an embedded set are damaged or do not match.
    #[error("{file}: {problem}")]
    Embedded {
        /// The file.
        file: String,
        /// What was expected and found.
        problem: String,
    },
    /// The prefetching thread could not be started or panicked.
    #[error("preparing the batch of step {step} failed: {problem}")]
    Prefetch {
        /// The step of the batch.
        step: u64,
        /// The panic message or the error of the operating system.
        problem: String,
    },
    /// Prefetching stopped after an earlier error.
    #[error("no batch for step {step}: prefetching stopped after an earlier error")]
    Ended {
        /// The requested step.
        step: u64,
    },
}

/// The first ten files and reasons, one for each line.
fn listed(unreadable: &[Unreadable]) -> String {
    first_of(unreadable, unreadable.len())
}

/// The first ten of `n` entries, one for each line.
fn first_of<T: fmt::Display>(entries: &[T], n: usize) -> String {
    let shown = &entries[..entries.len().min(10)];
    let mut out: String = shown.iter().map(|one| format!("\n  {one}")).collect();
    if n > shown.len() {
        out.push_str(&format!("\n  and {} more", n - shown.len()));
    }
    out
}
