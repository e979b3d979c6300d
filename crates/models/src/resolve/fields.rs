//! Fields of a section, each with its origin.

use crate::error::{ModelError, brief};
use sdft_adm::Origin;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The fields of one section of a configuration, and how each is known.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fields {
    pub(crate) all: Map<String, Value>,
    pub(crate) origins: BTreeMap<String, Origin>,
}

impl Fields {
    /// These fields, of one origin.
    pub(crate) fn new(all: Map<String, Value>, origin: Origin) -> Self {
        let origins = all.keys().map(|field| (field.clone(), origin));
        Self {
            origins: origins.collect(),
            all,
        }
    }

    /// Replaces fields by those that the file states; `assumed` lists those that were assumed when it was written.
    pub(crate) fn state(&mut self, stated: &Map<String, Value>, assumed: &BTreeSet<&str>) {
        for (field, value) in stated {
            let origin = match assumed.contains(field.as_str()) {
                true => Origin::Assumed,
                false => Origin::Read,
            };
            self.set(field, value.clone(), origin);
        }
    }

    /// Replaces fields by those that the user gave. A field that was read must agree, unless it is `free`.
    ///
    /// # Errors
    /// A given value differs from the one in `path`.
    pub(crate) fn give(
        &mut self,
        path: &Path,
        section: &str,
        given: &Map<String, Value>,
        free: impl Fn(&str) -> bool,
    ) -> Result<(), ModelError> {
        for (field, value) in given {
            let is_read = self.origins.get(field) == Some(&Origin::Read) && !free(field);
            match self.all.get(field) {
                Some(found) if is_read && agrees(found, value) => {}
                Some(found) if is_read => {
                    return Err(ModelError::Conflict {
                        path: path.to_owned(),
                        field: format!("{section}.{field}"),
                        given: brief(value),
                        found: brief(found),
                    });
                }
                // Some of the fields of an object, such as single settings of the sampler.
                Some(Value::Object(found)) if value.is_object() => {
                    let mut all = found.clone();
                    all.extend(value.as_object().cloned().unwrap_or_default());
                    self.set(field, all.into(), Origin::Given);
                }
                _ => self.set(field, value.clone(), Origin::Given),
            }
        }
        Ok(())
    }

    /// Sets a field.
    pub(crate) fn set(&mut self, field: &str, value: Value, origin: Origin) {
        self.all.insert(field.to_owned(), value);
        self.origins.insert(field.to_owned(), origin);
    }

    /// Whether this field has its default.
    pub(crate) fn is_assumed(&self, field: &str) -> bool {
        self.origins.get(field) == Some(&Origin::Assumed)
    }
}

/// Whether a value is the one that was found, or fields of it. Numbers may be written with or without a fraction.
pub(crate) fn agrees(found: &Value, given: &Value) -> bool {
    match (found, given) {
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| agrees(a, b))
        }
        (Value::Object(found), Value::Object(given)) => given
            .iter()
            .all(|(field, value)| found.get(field).is_some_and(|found| agrees(found, value))),
        _ => found == given || found.as_f64().is_some_and(|a| Some(a) == given.as_f64()),
    }
}
