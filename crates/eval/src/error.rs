use std::path::PathBuf;

/// Why images could not be measured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvalError {
    /// A folder or an image in it.
    #[error(transparent)]
    Data(#[from] sdft_data::DataError),
    /// A picture.
    #[error(transparent)]
    Image(#[from] sdft_imaging::ImagingError),
    /// A measure that cannot be computed from what is there.
    #[error("{what}: {source}")]
    Metric {
        /// Of what.
        what: String,
        /// Why.
        source: sdft_metrics::MetricsError,
    },
    /// A network failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
    /// An archive of statistics or images.
    #[error(transparent)]
    Npz(#[from] sdft_npz::Error),
    /// Weights that do not fit their network.
    #[error("{0}")]
    Weights(String),
    /// Something that the archive or folder should hold and does not.
    #[error("{}: {problem}", path.display())]
    Content {
        /// The file or folder.
        path: PathBuf,
        /// Expected and found.
        problem: String,
    },
    /// The file system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Text for CLIP.
    #[error("{0}")]
    Text(String),
}

/// A result with this crate's error.
pub type Result<T> = std::result::Result<T, EvalError>;

/// Says what a metric was computed of.
pub(crate) fn of<T>(what: &str, result: sdft_metrics::Result<T>) -> Result<T> {
    result.map_err(|source| EvalError::Metric {
        what: what.to_owned(),
        source,
    })
}
