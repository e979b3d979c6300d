//! Why a job cannot start or fails.

use std::fmt::Display;

/// The result of a job.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a job cannot start or fails.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An option whose value cannot be used.
    #[error("{name} {problem}")]
    Option {
        /// The option's field, as in `lambda_s`.
        name: &'static str,
        /// The value, and what is wrong with it, as in `-1: expected a number, 0 or more`.
        problem: String,
    },
    /// A failure with the value of an option.
    #[error("{name} {value}: {source}")]
    InOption {
        /// The option's field.
        name: &'static str,
        /// Its value.
        value: String,
        /// The failure.
        source: Box<Error>,
    },
    /// Anything else that the caller has to change.
    #[error("{0}")]
    Usage(String),
    /// Settings of a plan.
    #[error(transparent)]
    Settings(#[from] sdft_settings::Error),
    /// A refused path of results.
    #[error("{source}")]
    Output {
        /// The option that names the path.
        option: &'static str,
        /// The reason.
        source: sdft_gallery::Error,
    },
    /// The stop flag was set before there was a run or a folder to continue.
    #[error("interrupted")]
    Interrupted,
    /// A failure that no other variant describes.
    #[error("{0}")]
    Failed(String),
    /// A failure, and what was attempted.
    #[error("{context}: {source}")]
    Context {
        /// What was attempted, or on which file.
        context: String,
        /// The failure.
        source: Box<Error>,
    },
    /// A file system error.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// A tensor operation.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
    /// A model file.
    #[error(transparent)]
    Model(Box<sdft_models::ModelError>),
    /// Images.
    #[error(transparent)]
    Data(#[from] sdft_data::DataError),
    /// A picture.
    #[error(transparent)]
    Picture(#[from] sdft_imaging::ImagingError),
    /// A measurement.
    #[error(transparent)]
    Eval(#[from] sdft_eval::EvalError),
    /// Training.
    #[error(transparent)]
    Train(Box<sdft_train::TrainError>),
    /// Weights on disk.
    #[error(transparent)]
    Checkpoint(#[from] sdft_checkpoint::Error),
    /// Weights of a known network.
    #[error(transparent)]
    Assets(#[from] sdft_assets::Error),
    /// A schedule.
    #[error(transparent)]
    Schedule(#[from] sdft_schedule::ScheduleError),
    /// A metric.
    #[error(transparent)]
    Metric(#[from] sdft_metrics::MetricsError),
    /// An archive of arrays.
    #[error(transparent)]
    Npz(#[from] sdft_npz::Error),
    /// Several processes.
    #[error(transparent)]
    Parallel(#[from] sdft_parallel::Error),
    /// JSON.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// A plan that cannot be written as TOML.
    #[error("the plan cannot be written: {0}")]
    Plan(#[from] toml::ser::Error),
}

impl Error {
    /// Whether the caller can correct the error by other options.
    pub fn is_usage(&self) -> bool {
        match self {
            Self::Option { .. } | Self::Usage(_) => true,
            Self::Settings(error) => error.is_usage(),
            Self::Output { source, .. } => source.is_refusal(),
            Self::Context { source, .. } | Self::InOption { source, .. } => source.is_usage(),
            _ => false,
        }
    }
}

impl Error {
    /// The error of the trainer behind this one, if there is one.
    pub fn train_error(&self) -> Option<&sdft_train::TrainError> {
        match self {
            Self::Train(error) => Some(error),
            Self::Context { source, .. } => source.train_error(),
            _ => None,
        }
    }
}

// The largest errors are boxed, because every result of a job has room for one.
impl From<sdft_models::ModelError> for Error {
    fn from(error: sdft_models::ModelError) -> Self {
        Self::Model(Box::new(error))
    }
}

impl From<sdft_train::PlanError> for Error {
    fn from(error: sdft_train::PlanError) -> Self {
        Self::Usage(error.to_string())
    }
}

impl From<sdft_train::TrainError> for Error {
    fn from(error: sdft_train::TrainError) -> Self {
        Self::Train(Box::new(error))
    }
}

impl From<sdft_gallery::Error> for Error {
    fn from(source: sdft_gallery::Error) -> Self {
        let option = "out";
        Self::Output { option, source }
    }
}

/// An error that the caller has to correct.
pub(crate) fn usage(text: impl Into<String>) -> Error {
    Error::Usage(text.into())
}

/// An option whose value cannot be used.
pub(crate) fn option(name: &'static str, problem: impl Into<String>) -> Error {
    Error::Option {
        name,
        problem: problem.into(),
    }
}

/// A failure that no other variant describes.
pub(crate) fn failed(text: impl Into<String>) -> Error {
    Error::Failed(text.into())
}

/// Adds context to an error.
pub trait ResultExt<T> {
    /// Adds a text.
    ///
    /// # Errors
    /// The error, with the text before it.
    fn context(self, text: impl Display) -> Result<T>;

    /// Adds a text that is made only when it is needed.
    ///
    /// # Errors
    /// The error, with the text before it.
    fn with_context<D: Display>(self, text: impl FnOnce() -> D) -> Result<T>;

    /// Adds the option whose value the error is about.
    ///
    /// # Errors
    /// The error, with the option before it.
    fn in_option(self, name: &'static str, value: impl Display) -> Result<T>;
}

impl<T, E: Into<Error>> ResultExt<T> for std::result::Result<T, E> {
    fn context(self, text: impl Display) -> Result<T> {
        self.with_context(|| text)
    }

    fn with_context<D: Display>(self, text: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|error| Error::Context {
            context: text().to_string(),
            source: Box::new(error.into()),
        })
    }

    fn in_option(self, name: &'static str, value: impl Display) -> Result<T> {
        self.map_err(|error| Error::InOption {
            name,
            value: value.to_string(),
            source: Box::new(error.into()),
        })
    }
}
