//! What can go wrong with a picture.

use std::{io, path::PathBuf};

use crate::kind;

/// The result of this crate's functions.
pub type Result<T> = std::result::Result<T, ImagingError>;

/// Why a picture could not be read, made or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImagingError {
    /// The operating system refused to read a file.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A path names a folder, a pipe or a device.
    #[error("cannot read {}: expected a regular file, found {found}", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
        /// What is there instead.
        found: &'static str,
    },
    /// The content is none of the known picture formats.
    #[error("{origin}: expected a PNG, JPEG, GIF, WebP or BMP picture, found {found}")]
    UnknownFormat {
        /// The file, or a name for bytes in memory.
        origin: String,
        /// The first bytes, or that there are none.
        found: String,
    },
    /// The format is known, and the content is damaged, truncated or of a kind that the decoder lacks.
    #[error("{origin}: broken {format} file: {reason}")]
    Broken {
        /// The file, or a name for bytes in memory.
        origin: String,
        /// The format told by the content.
        format: &'static str,
        /// What the decoder said.
        reason: String,
    },
    /// The picture is larger than the limits allow; it was not decoded.
    #[error(
        "{origin}: {found} exceeds the limit of {limit}; shrink the picture, or raise the limit with the environment variable {setting}"
    )]
    TooLarge {
        /// The file, or a name for bytes in memory.
        origin: String,
        /// The size found.
        found: String,
        /// The largest size allowed.
        limit: String,
        /// The environment variable that raises it.
        setting: &'static str,
    },
    /// An environment variable that sets a limit holds something else than a number.
    #[error(
        "the environment variable {name}: expected a whole number from 1 to {most}, found {found:?}"
    )]
    Setting {
        /// Its name.
        name: &'static str,
        /// The largest number allowed.
        most: u64,
        /// What it holds.
        found: String,
    },
    /// A buffer has not the length that its width and height ask for.
    #[error("{what}: {width}x{height} RGB needs {expected} values, found {found}")]
    Length {
        /// The function or type that was asked.
        what: &'static str,
        /// Width in pixels.
        width: usize,
        /// Height in pixels.
        height: usize,
        /// `3 * width * height`.
        expected: usize,
        /// The length of the buffer.
        found: usize,
    },
    /// A picture without any pixel.
    #[error("{what}: expected at least one pixel in each direction, found {width}x{height}")]
    NoPixels {
        /// The function or type that was asked.
        what: &'static str,
        /// Width in pixels.
        width: usize,
        /// Height in pixels.
        height: usize,
    },
    /// A crop that reaches beyond the picture.
    #[error(
        "crop {width}x{height} at ({x}, {y}) does not fit into a picture of {image_width}x{image_height}"
    )]
    CropOutside {
        /// Left edge of the crop.
        x: usize,
        /// Top edge of the crop.
        y: usize,
        /// Width of the crop.
        width: usize,
        /// Height of the crop.
        height: usize,
        /// Width of the picture.
        image_width: usize,
        /// Height of the picture.
        image_height: usize,
    },
    /// A picture could not be turned into PNG bytes.
    #[error("cannot encode a picture of {width}x{height} as PNG: {reason}")]
    Encode {
        /// Width in pixels.
        width: usize,
        /// Height in pixels.
        height: usize,
        /// What the encoder said.
        reason: String,
    },
    /// The operating system refused to write a file (full disk, missing or read-only folder).
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file that was to be written.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

impl ImagingError {
    /// The error for a file that begins with these bytes and is no picture that is read here.
    #[must_use]
    pub fn unknown(origin: &str, start: &[u8]) -> Self {
        Self::UnknownFormat {
            origin: origin.to_owned(),
            found: kind::describe(start),
        }
    }

    /// What is wrong with a picture, without the name of the file: for lists that print the name before it.
    #[must_use]
    pub fn reason(&self) -> String {
        match self {
            Self::Read { source, .. } => format!("cannot be read: {source}"),
            Self::NotAFile { found, .. } => format!("expected a regular file, found {found}"),
            Self::UnknownFormat { origin, .. }
            | Self::Broken { origin, .. }
            | Self::TooLarge { origin, .. } => {
                let text = self.to_string();
                let rest = text.strip_prefix(origin.as_str());
                let rest = rest.and_then(|rest| rest.strip_prefix(": "));
                rest.unwrap_or(&text).to_owned()
            }
            other => other.to_string(),
        }
    }
}
