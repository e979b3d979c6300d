//! Errors of the library as Python exceptions with the same text.

use pyo3::PyErr;
use pyo3::exceptions::{PyFileNotFoundError, PyRuntimeError, PyValueError};
use sdft_metrics::MetricsError;
use std::fmt::Display;
use std::io;

/// A value that cannot be used.
pub(crate) fn value(error: impl Display) -> PyErr {
    PyValueError::new_err(error.to_string())
}

/// A failure that no other argument avoids.
pub(crate) fn runtime(error: impl Display) -> PyErr {
    PyRuntimeError::new_err(error.to_string())
}

/// The error of a metric.
pub(crate) fn metric(error: MetricsError) -> PyErr {
    match error {
        MetricsError::NoConvergence => runtime(error),
        error => value(error),
    }
}

/// The error of a file of weights.
pub(crate) fn checkpoint(error: &sdft_checkpoint::Error) -> PyErr {
    use sdft_checkpoint::Error;
    match error {
        Error::Missing { .. } => PyFileNotFoundError::new_err(error.to_string()),
        // Python has an exception for each kind.
        Error::Io { source, .. } => io::Error::new(source.kind(), error.to_string()).into(),
        Error::Tensor(_) => runtime(error),
        _ => value(error),
    }
}

/// The error of a job.
pub(crate) fn job(error: &sdft_jobs::Error) -> PyErr {
    use sdft_jobs::Error;
    match error {
        error if error.is_usage() => value(error),
        Error::Checkpoint(error) => checkpoint(error),
        Error::Model(error) => model(error),
        Error::Io(source) => io::Error::new(source.kind(), error.to_string()).into(),
        _ => runtime(error),
    }
}

fn model(error: &sdft_models::ModelError) -> PyErr {
    use sdft_models::ModelError;
    match error {
        ModelError::File(error) => checkpoint(error),
        ModelError::Tensor(_) => runtime(error),
        _ => value(error),
    }
}
