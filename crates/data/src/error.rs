//! What can go wrong with data.

use std::{io, path::PathBuf};

use sdft_imaging::ImagingError;

use crate::Unreadable;

/// The result of this crate's functions.
pub type Result<T> = std::result::Result<T, DataError>;

/// Why there are no data, or not these.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// The folder does not exist.
    #[error("image folder {} does not exist", path.display())]
    Missing {
        /// The path given.
        path: PathBuf,
    },
    /// The path names something else than a folder.
    #[error("{} is not a folder; expected a folder of images, found {found}", path.display())]
    NotAFolder {
        /// The path given.
        path: PathBuf,
        /// What is there.
        found: &'static str,
    },
    /// The operating system refused to list the folder.
    #[error("cannot list the image folder {}: {source}", path.display())]
    Unlistable {
        /// The folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The folder holds nothing at all.
    #[error("image folder {} is empty", path.display())]
    Empty {
        /// The folder.
        path: PathBuf,
    },
    /// The folder holds files, but none of them is or could be an image.
    #[error(
        "no images in {} and its subfolders: looked for PNG, JPEG, GIF, WebP and BMP files, found {found}",
        path.display()
    )]
    NoImages {
        /// The folder.
        path: PathBuf,
        /// What is there instead.
        found: String,
    },
    /// Something that is or could be an image cannot be read, where all of a folder is needed.
    #[error(
        "{} files in {} cannot be read as images; convert them or move them away:{}",
        unreadable.len(), path.display(), listed(unreadable)
    )]
    Unread {
        /// The folder.
        path: PathBuf,
        /// Every such file with its reason.
        unreadable: Vec<Unreadable>,
    },
    /// Not a single image could be decoded.
    #[error("none of the {} images in {} can be read:{}", unreadable.len(), path.display(), listed(unreadable))]
    AllUnreadable {
        /// The folder.
        path: PathBuf,
        /// Every file with its reason.
        unreadable: Vec<Unreadable>,
    },
    /// Some images cannot be decoded, and the caller asked to be strict.
    #[error(
        "{} of the images in {} cannot be read (strict; without it they are left out):{}",
        unreadable.len(), path.display(), listed(unreadable)
    )]
    SomeUnreadable {
        /// The folder.
        path: PathBuf,
        /// Every such file with its reason.
        unreadable: Vec<Unreadable>,
    },
    /// A picture could not be read.
    #[error(transparent)]
    Picture(#[from] ImagingError),
    /// A picture that does not exist was asked for.
    #[error("image {index} was asked for, the data set has {len}")]
    Index {
        /// The index.
        index: usize,
        /// The number of pictures.
        len: usize,
    },
    /// A source returned a picture of another size than it promised.
    #[error("image {id}: expected {expected}x{expected} pixels, found {width}x{height}")]
    Size {
        /// The picture's name.
        id: String,
        /// The size of the data set.
        expected: usize,
        /// Its width.
        width: usize,
        /// Its height.
        height: usize,
    },
    /// An option has a value that makes no sense.
    #[error("{option}: expected {expected}, found {found}")]
    Option {
        /// The option.
        option: &'static str,
        /// What it may be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// The digits' files contradict each other or are not what they should be.
    #[error("digits {file}: {problem}")]
    Digits {
        /// The file.
        file: String,
        /// Expected and found.
        problem: String,
    },
    /// The prefetching thread could not be started or panicked.
    #[error("preparing the batch of step {step} failed: {problem}")]
    Prefetch {
        /// The step whose batch was being made.
        step: u64,
        /// The panic's message or the operating system's.
        problem: String,
    },
    /// A batch was asked for after an error had ended the prefetching.
    #[error("no batch of step {step}: prefetching ended with an earlier error")]
    Ended {
        /// The step whose batch was asked for.
        step: u64,
    },
}

/// Files and reasons, a line each, the first ten of them.
fn listed(unreadable: &[Unreadable]) -> String {
    const SHOWN: usize = 10;
    let mut out = String::new();
    for one in unreadable.iter().take(SHOWN) {
        out.push_str(&format!("\n  {one}"));
    }
    if unreadable.len() > SHOWN {
        out.push_str(&format!("\n  and {} more", unreadable.len() - SHOWN));
    }
    out
}
