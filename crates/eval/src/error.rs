//! The error type of this crate.

use std::path::PathBuf;

/// Why images could not be measured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvalError {
    /// A folder, or an image in it, cannot be read.
    #[error(transparent)]
    Data(#[from] sdft_data::DataError),
    /// A picture cannot be read.
    #[error(transparent)]
    Image(#[from] sdft_imaging::ImagingError),
    /// A metric cannot be computed.
    #[error("{what}: {source}")]
    Metric {
        /// What it was computed for.
        what: String,
        /// Why it failed.
        source: sdft_metrics::MetricsError,
    },
    /// A network failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
    /// Another process that shares the images failed.
    #[error(transparent)]
    Parallel(#[from] sdft_parallel::Error),
    /// An archive of statistics or images cannot be read.
    #[error(transparent)]
    Npz(#[from] sdft_npz::Error),
    /// Weights do not match their network.
    #[error("{0}")]
    Weights(String),
    /// An archive or folder lacks something, or has other content.
    #[error("{}: {problem}", path.display())]
    Content {
        /// The file or folder.
        path: PathBuf,
        /// What was expected and found.
        problem: String,
    },
    /// A network cannot see an image.
    #[error(
        "{origin}: networks such as Inception take RGB, found {found} channels; PSNR and SSIM can be measured, with --pairs and --without lpips,identity"
    )]
    NotRgb {
        /// The file, or the image in an archive.
        origin: String,
        /// Number of channels.
        found: usize,
    },
    /// Intra-LPIPS has a cluster for each training image.
    #[error("Intra-LPIPS is for a few training images: expected 1 to {most}, found {found}")]
    FewShot {
        /// The largest number.
        most: usize,
        /// Number of training images.
        found: usize,
    },
    /// An image has values that are NaN or infinite.
    #[error("{origin}: {found} of {values} values are NaN or infinite")]
    NotFinite {
        /// The file, or the image in an archive.
        origin: String,
        /// Number of these values.
        found: usize,
        /// Number of all values.
        values: usize,
    },
    /// Values are outside the range of an image.
    #[error(
        "{origin}: expected values from {} to {} (the file states no other range), found {} to {}; give --range LOW,HIGH", range[0], range[1], found[0], found[1]
    )]
    Range {
        /// The file, or the image in an archive.
        origin: String,
        /// The lowest and the highest possible value.
        range: [f64; 2],
        /// The smallest and the largest value.
        found: [f64; 2],
    },
    /// A file or folder cannot be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// A text cannot be embedded by CLIP.
    #[error("{0}")]
    Text(String),
}

/// A result with this crate's error.
pub type Result<T> = std::result::Result<T, EvalError>;

/// Adds to an error what a metric was computed for.
pub(crate) fn of<T>(what: &str, result: sdft_metrics::Result<T>) -> Result<T> {
    result.map_err(|source| EvalError::Metric {
        what: what.to_owned(),
        source,
    })
}
