//! Reading a `config.json`, field by field.

use crate::ConfigError;
use crate::error::brief;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// The field that names the class of a network.
pub const CLASS: &str = "_class_name";

/// What is expected of a number of layers, channels, ..
pub const COUNT: &str = "a whole number";
/// What is expected of a number.
pub const NUMBER: &str = "a number";
/// What is expected of a flag.
pub const FLAG: &str = "true or false";

/// Fails unless all fields are in `known`, those that `class` has. Fields that start with `_` are diffusers' own notes.
///
/// # Errors
/// The first unknown field.
pub fn check_known(
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

/// The value of a field; the default if it is absent. `expected` describes the valid values.
///
/// # Errors
/// A value of another type.
pub fn field<T: DeserializeOwned>(
    json: &Map<String, Value>,
    name: &str,
    expected: &str,
    default: T,
) -> Result<T, ConfigError> {
    match json.get(name) {
        None => Ok(default),
        Some(value) => serde_json::from_value(whole(value))
            .map_err(|_| ConfigError::new(name, expected, brief(value))),
    }
}

/// The value with whole numbers as integers: some writers make `4.0` of 4.
pub fn whole(value: &Value) -> Value {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked"
    )]
    match value {
        Value::Array(values) => values.iter().map(whole).collect(),
        Value::Number(number) if !number.is_u64() => match number.as_f64() {
            Some(x) if x.fract() == 0.0 && (0.0..1e15).contains(&x) => Value::from(x as u64),
            _ => value.clone(),
        },
        _ => value.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn whole_numbers_are_integers_however_they_are_written() {
        assert_eq!(whole(&json!([1.0, 2, 2.5, -1.0])), json!([1, 2, 2.5, -1.0]));
        let json = json!({ "widths": [64.0, 128] });
        let widths: Vec<usize> = field(json.as_object().unwrap(), "widths", "", vec![]).unwrap();
        assert_eq!(widths, [64, 128]);
    }

    #[test]
    fn notes_are_no_fields_and_long_values_are_shortened() {
        let json = json!({ "_note": 1, "known": 2, "other": "x".repeat(200) });
        let json = json.as_object().unwrap();
        let error = check_known(json, "UNet2DModel", &["known"]).unwrap_err();
        assert_eq!((error.field.as_str(), error.found.len()), ("other", 82));
        check_known(json, "UNet2DModel", &["known", "other"]).unwrap();
    }
}
