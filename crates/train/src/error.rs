//! Why a run cannot start or continue.

use crate::PlanError;
use std::path::{Path, PathBuf};

/// Why a run cannot start or continue.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// A key of the plan.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A file or folder of the run.
    #[error("{}: {action}: {source}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// The error of the system.
        source: std::io::Error,
    },
    /// A run folder that cannot be used as asked.
    #[error("{}: {problem}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// A source model that the method does not use, or no source model for a method that needs one.
    #[error("the source model does not fit the method: scratch has none, naive and sdft need one")]
    Source,
    /// Processes that cannot share a run.
    #[error("{0}")]
    ProcessGroup(String),
    /// The connection to the other processes.
    #[error(transparent)]
    Parallel(#[from] sdft_parallel::Error),
    /// A damaged checkpoint.
    #[error("{}: {problem}", path.display())]
    Checkpoint {
        /// The checkpoint's folder.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Weights, reading or writing.
    #[error(transparent)]
    Weights(#[from] sdft_checkpoint::Error),
    /// Images.
    #[error(transparent)]
    Data(#[from] sdft_data::DataError),
    /// A generated image that cannot be shown.
    #[error("image {number} of {n}: {source}")]
    Image {
        /// Which, counted from 1.
        number: usize,
        /// Of how many.
        n: usize,
        /// Why.
        source: sdft_imaging::ImagingError,
    },
    /// A picture.
    #[error(transparent)]
    Picture(#[from] sdft_imaging::ImagingError),
    /// The optimiser.
    #[error(transparent)]
    Optim(#[from] sdft_optim::OptimError),
    /// The schedule.
    #[error(transparent)]
    Schedule(#[from] sdft_schedule::ScheduleError),
    /// The gradient audit.
    #[error(
        "{} of {total} tensors get no usable gradient from this objective: {}; training would not change them",
        names.len(),
        names.join(", ")
    )]
    Audit {
        /// The tensors.
        names: Vec<String>,
        /// How many there are in all.
        total: usize,
    },
    /// Too many steps in a row without finite numbers.
    #[error(
        "step {step}: the {what} was not finite in {skips} steps in a row; the weights are unchanged. \
         {} with a lower optim.lr or with optim.clip = 1.0",
        start_again(checkpoint.as_deref())
    )]
    Diverged {
        /// The step.
        step: u64,
        /// Loss or gradient norm.
        what: &'static str,
        /// How many in a row.
        skips: u64,
        /// The last checkpoint.
        checkpoint: Option<PathBuf>,
    },
    /// Weights that are NaN or infinite.
    #[error(
        "after step {step} {} tensors hold NaN or infinite values ({} first); they were not saved. \
         Start again with a lower optim.lr or with optim.clip = 1.0",
        names.len(),
        names.first().map_or("", String::as_str)
    )]
    NotFinite {
        /// Steps done.
        step: u64,
        /// The tensors.
        names: Vec<String>,
    },
    /// Evaluating samples.
    #[error("evaluation: {0}")]
    Evaluation(String),
    /// A tensor operation.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

/// Where to continue after numbers that were not finite.
fn start_again(checkpoint: Option<&Path>) -> String {
    match checkpoint {
        Some(path) => format!(
            "The last checkpoint is {}. Start again from the same source, or with --source CHECKPOINT/weights.safetensors,",
            path.display()
        ),
        None => "There is no checkpoint yet. Start again".to_owned(),
    }
}

impl From<sdft_eval::EvalError> for TrainError {
    fn from(error: sdft_eval::EvalError) -> Self {
        Self::Evaluation(error.to_string())
    }
}

/// The result of this crate's functions.
pub type Result<T, E = TrainError> = std::result::Result<T, E>;

/// Adds the file and the action to an error of the system.
pub(crate) trait Context<T> {
    fn at(self, action: &'static str, path: impl Into<PathBuf>) -> Result<T>;
}

impl<T> Context<T> for std::io::Result<T> {
    fn at(self, action: &'static str, path: impl Into<PathBuf>) -> Result<T> {
        self.map_err(|source| TrainError::Io {
            action,
            path: path.into(),
            source,
        })
    }
}
