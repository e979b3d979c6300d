//! Reading the fields of a `config.json`.

use crate::ConfigError;
use crate::error::brief;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// The key of the class in a `config.json`.
pub(crate) const CLASS: &str = "_class_name";

/// Fails unless all fields are known. Fields that start with `_` are diffusers' own notes.
pub(crate) fn check_known(
    json: &Map<String, Value>,
    class: &str,
    known: &[&str],
) -> Result<(), ConfigError> {
    let unknown = json
        .iter()
        .find(|(name, _)| !name.starts_with('_') && !known.contains(&name.as_str()));
    match unknown {
        None => Ok(()),
        Some((name, value)) => Err(ConfigError::new(
            name,
            format!("a field that {class} has"),
            brief(value),
        )),
    }
}

/// The value of a field; the default if it is absent.
pub(crate) fn field<T: DeserializeOwned>(
    json: &Map<String, Value>,
    field: &str,
    expected: &str,
    default: T,
) -> Result<T, ConfigError> {
    match json.get(field) {
        None => Ok(default),
        Some(value) => serde_json::from_value(value.clone())
            .map_err(|_| ConfigError::new(field, expected, brief(value))),
    }
}
