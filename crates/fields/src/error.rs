//! Errors about a configuration.

use serde_json::Value;

/// A field that makes a network impossible, or another one than its crate computes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: expected {expected}, found {found}")]
pub struct ConfigError {
    /// The field of `config.json`.
    pub field: String,
    /// The valid values.
    pub expected: String,
    /// The value in the file, shortened.
    pub found: String,
}

impl ConfigError {
    /// The error about `field`, where `expected` was expected and `found` was found.
    pub fn new(field: &str, expected: impl Into<String>, found: impl std::fmt::Display) -> Self {
        Self {
            field: field.to_owned(),
            expected: expected.into(),
            found: found.to_string(),
        }
    }
}

/// Fails with an error about `field` unless `holds`.
///
/// # Errors
/// `holds` is false.
pub fn require(
    holds: bool,
    field: &str,
    expected: impl FnOnce() -> String,
    found: impl std::fmt::Display,
) -> Result<(), ConfigError> {
    match holds {
        true => Ok(()),
        false => Err(ConfigError::new(field, expected(), found)),
    }
}

/// A value of a file on one line of at most 80 characters.
pub fn brief(value: &Value) -> String {
    const SHOWN: usize = 80;
    let text = value.to_string();
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}..", &text[..end]),
        None => text,
    }
}
