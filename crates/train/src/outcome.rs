//! The result of a step, and a step whose result is not known yet.

use crate::error::Result;
use sdft_cuda::Download;
use sdft_losses::{Present, Report};
use sdft_optim::{Pending, Verdict};

/// The result of a step.
#[derive(Clone, Copy, Debug)]
pub enum Outcome {
    /// The weights moved.
    Updated {
        /// The terms of the loss.
        report: Report,
        /// Norm of the gradient of all parameters, before clipping.
        grad_norm: f64,
    },
    /// Loss or gradient was not finite, so nothing moved.
    Skipped {
        /// `loss` or `gradient`.
        what: &'static str,
    },
}

/// A step that the device may still be computing.
#[derive(Debug)]
pub struct PendingStep {
    pub(crate) step: Pending,
    pub(crate) numbers: Download,
    pub(crate) present: Present,
}

impl PendingStep {
    /// Waits for the device and returns the result of the step.
    ///
    /// # Errors
    /// The device failed.
    pub fn wait(self) -> Result<Outcome> {
        let report = Report::of(&self.numbers.wait()?, self.present)?;
        Ok(match self.step.wait()? {
            Verdict::Updated { grad_norm } => Outcome::Updated { report, grad_norm },
            Verdict::BadLoss => Outcome::Skipped { what: "loss" },
            Verdict::BadGradient => Outcome::Skipped { what: "gradient" },
        })
    }
}
