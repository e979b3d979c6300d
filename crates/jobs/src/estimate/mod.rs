//! The cost of a run on this machine: time by a trial pass of its own network, memory and disk from its plan.

mod autoencoder;
mod direction;
mod memory;
mod trial;
mod tuning;

pub(crate) use autoencoder::{autoencoder_disk, estimate_autoencoder};
pub(crate) use direction::{DirectionTrial, estimate_direction};
pub(crate) use memory::{memory_of, memory_of_autoencoder, memory_of_classifier, memory_of_tuning};
pub(crate) use trial::{classifier_disk, disk, estimate, estimate_classifier};
pub(crate) use tuning::{TuningTrial, estimate_tuning, tuning_disk};

use std::path::PathBuf;

/// The cost of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Estimate {
    /// The numbers of images and parameters, as text.
    pub subject: String,
    /// Seconds of the whole run, by a trial pass. `None` if there is not enough memory for one.
    pub seconds: Option<f64>,
    /// Those of them that draw samples of the model; `None` where they are not counted or not measured.
    pub drawing_seconds: Option<f64>,
    /// Seconds of one trajectory, where a run consists of trajectories.
    pub trajectory_seconds: Option<f64>,
    /// The most memory, in bytes.
    pub memory: u64,
    /// Why there is not enough memory, if so.
    pub problem: Option<String>,
    /// The files written to disk.
    pub disk: Disk,
}

/// Files that a run writes to disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Bytes in all; 0 for nothing of note.
    pub bytes: u64,
    /// What takes the space, in words; empty for the run as a whole.
    pub of: String,
    /// The folder, if it is not that of the run.
    pub folder: Option<PathBuf>,
}
