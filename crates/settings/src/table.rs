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

/// Keys that say of which kind a section is. The kind decides which other keys the section has, and their defaults.
pub(crate) const KINDS: [&str; 3] = ["architecture", "model_type", "process_type"];

/// Puts the values of one table over those of another, key by key. A section of another kind replaces the old section, whose keys it does
/// not have.
pub fn merge<P: Plan>(into: &mut Table, from: Table) {
    let old = kinds(into);
    let mut new = old.clone();
    overlay(&mut new, kinds(&from));
    remove_changed(into, &from, &defaults::<P>(&old), &defaults::<P>(&new));
    overlay(into, from);
}

/// Removes sections for which `from` names another kind; `old` and `new` are the defaults before and after.
fn remove_changed(into: &mut Table, from: &Table, old: &Table, new: &Table) {
    for (section, value) in from {
        let tables = [old, new].map(|of| of.get(section).and_then(Value::as_table));
        let (Value::Table(from), [Some(old), Some(new)]) = (value, tables) else {
            continue;
        };
        let names_kind = KINDS.iter().any(|kind| from.contains_key(*kind));
        if names_kind && !old.keys().eq(new.keys()) {
            into.remove(section);
        } else if let Some(Value::Table(into)) = into.get_mut(section) {
            remove_changed(into, from, old, new);
        }
    }
}

pub(crate) fn overlay(into: &mut Table, from: Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Table(old)), Value::Table(new)) => overlay(old, new),
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
    let mut all = defaults::<P>(&table);
    overlay(&mut all, table);
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

/// The kinds of sections that a table names, and nothing else.
pub(crate) fn kinds(table: &Table) -> Table {
    let named = table.iter().filter_map(|(key, value)| match value {
        Value::Table(inner) => {
            let inner = kinds(inner);
            (!inner.is_empty()).then(|| (key.clone(), Value::Table(inner)))
        }
        value => KINDS
            .contains(&key.as_str())
            .then(|| (key.clone(), value.clone())),
    });
    named.collect()
}

/// Every key with its default value, where sections are of the kinds that a table names.
pub(crate) fn defaults<P: Plan>(table: &Table) -> Table {
    let as_table = |plan: P| match Value::try_from(plan) {
        Ok(Value::Table(table)) => table,
        _ => Table::new(),
    };
    let mut all = as_table(P::default());
    for (section, kind) in kinds(table) {
        let mut of_kind = all.clone();
        of_kind.insert(section, kind);
        // A kind that does not exist is reported when the plan is read.
        if let Ok(plan) = Value::Table(of_kind).try_into::<P>() {
            all = as_table(plan);
        }
    }
    all
}
