//! Errors about a configuration, or about the names and shapes in a file.

/// A network of this configuration cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("model.{field}: {problem}")]
pub struct ConfigError {
    /// The field to change.
    pub field: String,
    /// The value found, and the valid values.
    pub problem: String,
}

impl ConfigError {
    pub(crate) fn new(field: &str, problem: impl Into<String>) -> Self {
        Self {
            field: field.to_owned(),
            problem: problem.into(),
        }
    }
}

/// Names and shapes that are not those of an EDM network: the key that is missing or invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotEdm(pub String);
