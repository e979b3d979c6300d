//! What can be wrong with the environment of the kernels.

use std::ffi::OsString;

/// An environment variable that selects kernels has an invalid value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{variable}: expected one of {expected}, found {found:?}")]
pub struct Error {
    /// The name of the variable.
    pub variable: &'static str,
    /// The valid values, separated by commas.
    pub expected: String,
    /// Its value.
    pub found: OsString,
}
