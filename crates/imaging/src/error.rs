//! The error type of this crate.

use std::{io, path::PathBuf};

use crate::kind;

/// A result with this crate's error.
pub type Result<T> = std::result::Result<T, ImagingError>;

/// Why a picture could not be read, made or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImagingError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// A path is not a regular file.
    #[error("cannot read {}: expected a regular file, found {found}", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
        /// What was found there.
        found: &'static str,
    },
    /// The format is unknown.
    #[error("{origin}: expected a PNG, JPEG, GIF, WebP, BMP, TIFF or NPY picture, found {found}")]
    UnknownFormat {
        /// The file, or a name for bytes in memory.
        origin: String,
        /// Its first bytes, or that it is empty.
        found: String,
    },
    /// The file is damaged, truncated or of an unsupported kind.
    #[error("{origin}: broken {format} file: {reason}")]
    Broken {
        /// The file, or a name for bytes in memory.
        origin: String,
        /// The format, recognised by content.
        format: &'static str,
        /// The decoder's message.
        reason: String,
    },
    /// The file does not have the channels that were asked for, nor channels that they are made of.
    #[error("{origin}: expected {expected} channels, found {found}")]
    Channels {
        /// The file, or a name for bytes in memory.
        origin: String,
        /// The channels that were asked for.
        expected: usize,
        /// The channels in the file.
        found: String,
    },
    /// The values of the file are not those that were expected.
    #[error("{origin}: {found}; expected {expected}")]
    Values {
        /// The file, or a name for bytes in memory.
        origin: String,
        /// The values.
        found: String,
        /// What was expected, and what to do.
        expected: String,
    },
    /// The file has no such page.
    #[error("{origin}: page {page} does not exist; it has {pages}, counted from 0")]
    Page {
        /// The file, or a name for bytes in memory.
        origin: String,
        /// The page that was asked for.
        page: usize,
        /// Number of pages.
        pages: usize,
    },
    /// The picture exceeds the limits; it was not decoded.
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
    /// An environment variable that sets a limit is invalid.
    #[error(
        "the environment variable {name}: expected a whole number from 1 to {most}, found {found:?}"
    )]
    Setting {
        /// Name of the variable.
        name: &'static str,
        /// Largest valid number.
        most: u64,
        /// Its value.
        found: String,
    },
    /// The length of a buffer does not match its width and height.
    #[error(
        "{what}: {width}x{height} pixels of {channels} channels need {expected} values, found {found}"
    )]
    Length {
        /// The function or type that was called.
        what: &'static str,
        /// Width in pixels.
        width: usize,
        /// Height in pixels.
        height: usize,
        /// Number of channels.
        channels: usize,
        /// `channels * width * height`.
        expected: usize,
        /// Length of the buffer.
        found: usize,
    },
    /// Some values are NaN or infinite.
    #[error("{found} of {values} values are NaN or infinite")]
    NotFinite {
        /// Number of NaN or infinite values.
        found: usize,
        /// Number of all values.
        values: usize,
    },
    /// A picture has no pixels.
    #[error(
        "{what}: expected at least one pixel in each direction and one channel, found {width}x{height} of {channels}"
    )]
    NoPixels {
        /// The function or type that was called.
        what: &'static str,
        /// Width in pixels.
        width: usize,
        /// Height in pixels.
        height: usize,
        /// Number of channels.
        channels: usize,
    },
    /// A depth is not known.
    #[error("expected a depth of 8, 16 or float, found {found}")]
    Depth {
        /// The text given.
        found: String,
    },
    /// A crop extends beyond the picture.
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
    /// A mask does not fit its image.
    #[error("mask: expected {expected}, found {found}")]
    Mask {
        /// What its image needs.
        expected: String,
        /// What the mask is.
        found: String,
    },
    /// A picture cannot be encoded.
    #[error("cannot encode a picture of {width}x{height}: {reason}")]
    Encode {
        /// Width in pixels.
        width: usize,
        /// Height in pixels.
        height: usize,
        /// The encoder's message.
        reason: String,
    },
    /// A file cannot be written, for example because the disk is full or the folder does not exist.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
}

impl ImagingError {
    /// The error for a file of an unknown format that begins with `start`.
    #[must_use]
    pub fn unknown(origin: &str, start: &[u8]) -> Self {
        Self::UnknownFormat {
            origin: origin.to_owned(),
            found: kind::describe(start),
        }
    }

    /// The error message without the name of the file, for lists that print the name before it.
    #[must_use]
    pub fn reason(&self) -> String {
        match self {
            Self::Read { source, .. } => format!("cannot be read: {source}"),
            Self::NotAFile { found, .. } => format!("expected a regular file, found {found}"),
            Self::UnknownFormat { origin, .. }
            | Self::Broken { origin, .. }
            | Self::Channels { origin, .. }
            | Self::Values { origin, .. }
            | Self::Page { origin, .. }
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
