//! Why an update or a restored state is refused.

use std::fmt;

/// The result of this crate's functions.
pub type Result<T> = std::result::Result<T, OptimError>;

/// Why an update, a restore or a configuration was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OptimError {
    /// A tensor operation failed.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
    /// A parameter cannot be optimised in place.
    #[error("parameter {name:?} {problem}")]
    BadParameter {
        /// Name of the parameter.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The list of gradients has another length than the list of parameters.
    #[error("{found} gradients for {expected} parameters")]
    GradientCount {
        /// Number of parameters.
        expected: usize,
        /// Number of gradients.
        found: usize,
    },
    /// A gradient does not fit its parameter.
    #[error("gradient of {name:?} is {found}, expected {expected}")]
    GradientMismatch {
        /// Name of the parameter.
        name: String,
        /// Type and shape of the parameter.
        expected: String,
        /// Type and shape of the gradient.
        found: String,
    },
    /// The average belongs to other parameters than the step updates.
    #[error("the moving average follows other parameters than the optimiser updates")]
    OtherParameters,
    /// A number of the configuration is outside its range.
    #[error("{name} = {value} is outside {range}")]
    OutOfRange {
        /// Name of the number.
        name: &'static str,
        /// The value given.
        value: f64,
        /// The valid range.
        range: &'static str,
    },
    /// Micro-batches do not add up to the batch.
    #[error("micro-batches of {found} samples were accumulated for a batch of {expected}")]
    SampleCount {
        /// Samples of the batch.
        expected: usize,
        /// Samples accumulated.
        found: usize,
    },
    /// A saved state does not fit.
    #[error("{0}")]
    State(StateMismatch),
}

/// Every difference between the state that was expected and the one that was given.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StateMismatch {
    /// Whose state it is.
    pub what: &'static str,
    /// Names that were not given, in the order expected.
    pub missing: Vec<String>,
    /// Unexpected names, in the order given.
    pub unexpected: Vec<String>,
    /// `name: found .., expected ..`, in the order expected.
    pub mis_shaped: Vec<String>,
}

impl StateMismatch {
    pub(crate) fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.unexpected.is_empty() && self.mis_shaped.is_empty()
    }
}

impl fmt::Display for StateMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "state of the {} does not fit:", self.what)?;
        let mut separator = " ";
        for (kind, names) in [
            ("missing", &self.missing),
            ("unexpected", &self.unexpected),
            ("mis-shaped", &self.mis_shaped),
        ] {
            if !names.is_empty() {
                write!(
                    f,
                    "{separator}{kind} ({}) {}",
                    names.len(),
                    names.join(", ")
                )?;
                separator = "; ";
            }
        }
        Ok(())
    }
}

/// An error unless `inside`.
pub(crate) fn check_range(
    inside: bool,
    name: &'static str,
    value: f64,
    range: &'static str,
) -> Result<()> {
    if inside {
        Ok(())
    } else {
        Err(OptimError::OutOfRange { name, value, range })
    }
}
