//! Errors about a configuration, or about the names and shapes in a file.

/// A network of this configuration cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("model.{field}: {problem}")]
pub struct ConfigError {
    /// The field to change.
    pub field: &'static str,
    /// The value found, and the valid values.
    pub problem: String,
}

/// Names and shapes that are not those of an ADM network: the key that is missing or invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotAdm(pub String);
