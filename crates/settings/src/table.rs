//! Tables of settings: merging, dotted keys, and the plan that a table describes.

use crate::error::{Error, Result};
use crate::keys::plain;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value as Json};
use toml::{Table, Value};

/// What settings can describe: any type with serde's traits and a default value.
pub trait Plan: Default + Serialize + DeserializeOwned {}

impl<P: Default + Serialize + DeserializeOwned> Plan for P {}

/// Puts the values of one table over those of another, key by key.
pub fn merge(into: &mut Table, from: Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Table(old)), Value::Table(new)) => merge(old, new),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

/// Puts a value at a dotted key. Tables on the way are made.
pub fn put(table: &mut Table, key: &str, value: impl Into<Value>) {
    match key.split_once('.') {
        None => {
            table.insert(key.to_owned(), value.into());
        }
        Some((first, rest)) => {
            let inner = table
                .entry(first)
                .or_insert_with(|| Value::Table(Table::new()));
            if !inner.is_table() {
                *inner = Value::Table(Table::new());
            }
            if let Value::Table(inner) = inner {
                put(inner, rest, value);
            }
        }
    }
}

/// The fields of a section that were set explicitly, for comparison with the metadata of a file.
pub fn given(table: &Table, section: &str) -> Map<String, Json> {
    match table.get(section).map(serde_json::to_value) {
        Some(Ok(Json::Object(fields))) => fields,
        _ => Map::new(),
    }
}

/// The table with the plan's default for every key that it does not set.
pub fn complete<P: Plan>(table: Table) -> Table {
    let mut all = defaults::<P>();
    merge(&mut all, table);
    all
}

/// The plan that a table describes. What the table does not set keeps the plan's default.
///
/// # Errors
/// [`Error::Invalid`] with the key for a value that the plan does not accept.
pub fn plan<P: Plan>(table: Table) -> Result<P> {
    // The default of a section can differ from the section in the default plan.
    read(complete::<P>(table))
}

/// The plan that a table describes, without the plan's defaults. For tables of [`complete`] that were changed.
///
/// # Errors
/// [`Error::Invalid`] with the key for a value that the plan does not accept.
pub fn read<P: Plan>(table: Table) -> Result<P> {
    serde_path_to_error::deserialize(Value::Table(table)).map_err(|e| {
        let (key, problem) = (e.path().to_string(), e.into_inner());
        Error::invalid(key, plain(problem.message()))
    })
}

/// Every key with the default value of its type.
pub(crate) fn defaults<P: Plan>() -> Table {
    match Value::try_from(P::default()) {
        Ok(Value::Table(table)) => table,
        _ => Table::new(),
    }
}
