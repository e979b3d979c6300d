//! Errors about a configuration.

use serde_json::Value;

/// A field that makes the network impossible, or another one than this crate computes.
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
    pub(crate) fn new(
        field: &str,
        expected: impl Into<String>,
        found: impl std::fmt::Display,
    ) -> Self {
        Self {
            field: field.to_owned(),
            expected: expected.into(),
            found: found.to_string(),
        }
    }
}

/// A value of a file on one line of at most 80 characters.
pub(crate) fn brief(value: &Value) -> String {
    const SHOWN: usize = 80;
    let text = value.to_string();
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}..", &text[..end]),
        None => text,
    }
}
