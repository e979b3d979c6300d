//! What a run reports while it trains.

/// The state of a run after a step.
#[derive(Clone, Debug, PartialEq)]
pub struct StepReport {
    /// Steps done.
    pub step: u64,
    /// Steps in all.
    pub steps: u64,
    /// Images used so far.
    pub images: u64,
    /// Duration of this step in seconds.
    pub step_seconds: f64,
    /// Speed of the steps since the last log line, without samples, evaluations and checkpoints.
    pub images_per_second: f64,
    /// Means of the loss terms since the last log line, if this step writes one.
    pub means: Option<Vec<(String, f64)>>,
}

/// Receives the progress of a run. Every method does nothing by default.
pub trait Progress {
    /// Is called after every training step.
    fn step(&mut self, report: &StepReport) {
        let _ = report;
    }

    /// Is called while images are read, generated or measured: `done` of `total` are finished. An image in the making counts in part.
    fn images(&mut self, done: f64, total: usize) {
        let _ = (done, total);
    }

    /// Is called while a run draws samples of its model: `done` of `total` are finished. A sample in the making counts in part.
    fn samples(&mut self, done: f64, total: usize) {
        let _ = (done, total);
    }

    /// Is called with a sentence that deserves a line: a damaged checkpoint was skipped, a picture was written, a step was skipped.
    fn note(&mut self, text: &str) {
        let _ = text;
    }
}

/// Ignores all progress.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoopProgress;

impl Progress for NoopProgress {}
