//! Preset, then TOML file, then `--set`: one table, checked key by key.

use crate::assets::Presets;
use crate::keys;
use crate::usage;
use anyhow::{Context, Result};
use sdft_assets::did_you_mean;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value as Json};
use toml::{Table, Value};

/// Settings that stand in TOML files.
pub(crate) trait Settings: Presets + Default + Serialize + DeserializeOwned {}

impl<P: Presets + Default + Serialize + DeserializeOwned> Settings for P {}

/// Merges the files and presets named by `--config`, in order.
pub(crate) fn layers<P: Settings>(names: &[String]) -> Result<Table> {
    let mut merged = Table::new();
    for name in names {
        let (text, origin) = match P::preset(name) {
            Some(text) => (text.to_owned(), format!("preset {name}")),
            None => (read_file::<P>(name)?, name.clone()),
        };
        let table: Table = toml::from_str(&text).map_err(|e| usage(format!("{origin}: {e}")))?;
        check::<P>(&table, &origin)?;
        merge(&mut merged, table);
    }
    Ok(merged)
}

fn read_file<P: Settings>(name: &str) -> Result<String> {
    let path = std::path::Path::new(name);
    if path.exists() {
        return std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the configuration {name}"));
    }
    Err(usage(format!(
        "--config {name}: neither a file nor a preset ({}){}",
        P::preset_names().collect::<Vec<_>>().join(", "),
        did_you_mean(name, P::preset_names())
    )))
}

fn merge(into: &mut Table, from: Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Table(old)), Value::Table(new)) => merge(old, new),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

/// Puts `key=value` into the table; the value is TOML, or text if it is not.
pub(crate) fn set<P: Settings>(table: &mut Table, assignment: &str) -> Result<()> {
    let Some((key, text)) = assignment.split_once('=') else {
        return Err(usage(format!(
            "--set {assignment}: expected KEY=VALUE, as in --set optim.lr=1e-4"
        )));
    };
    let (key, text) = (key.trim(), text.trim());
    if key.is_empty() {
        return Err(usage(format!(
            "--set {assignment}: expected KEY=VALUE, found no key"
        )));
    }
    let value = match toml::from_str::<Table>(&format!("v = {text}")) {
        Ok(mut parsed) => parsed
            .remove("v")
            .unwrap_or_else(|| Value::String(text.to_owned())),
        Err(_) => Value::String(text.to_owned()),
    };
    put(table, key, value);
    check::<P>(table, &format!("--set {assignment}"))
}

/// Puts a value at a dotted key.
pub(crate) fn put(table: &mut Table, key: &str, value: impl Into<Value>) {
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

/// Every key with a default value of its type.
fn known<P: Settings>() -> Table {
    match Value::try_from(P::default()) {
        Ok(Value::Table(table)) => table,
        _ => Table::new(),
    }
}

/// Fails on keys that do not exist, naming the nearest, and on values of another type.
fn check<P: Settings>(table: &Table, origin: &str) -> Result<()> {
    let known = known::<P>();
    let mut all = Vec::new();
    keys(&known, "", &mut all);
    check_level(table, &known, "", &all, origin)
}

fn keys(table: &Table, prefix: &str, out: &mut Vec<String>) {
    for (key, value) in table {
        let full = format!("{prefix}{key}");
        if let Value::Table(inner) = value {
            keys(inner, &format!("{full}."), out);
        } else {
            out.push(full);
        }
    }
}

fn check_level(
    table: &Table,
    known: &Table,
    prefix: &str,
    all: &[String],
    origin: &str,
) -> Result<()> {
    for (key, value) in table {
        let full = format!("{prefix}{key}");
        match (known.get(key), value) {
            (None, _) => {
                let in_file = !origin.starts_with("--set");
                let problem = keys::unknown(&full, value, all, in_file);
                return Err(usage(format!("{origin}: {problem}")));
            }
            (Some(Value::Table(known)), Value::Table(inner)) => {
                check_level(inner, known, &format!("{full}."), all, origin)?
            }
            (Some(Value::Float(_)), Value::Integer(_)) => {}
            (Some(expected), found) if !expected.same_type(found) => {
                return Err(usage(format!(
                    "{origin}: {full}: expected {}, found {found}",
                    describe(expected)
                )));
            }
            _ => {}
        }
    }
    Ok(())
}

fn describe(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "text",
        Value::Integer(_) => "a whole number",
        Value::Float(_) => "a number",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a date",
        Value::Array(_) => "a list",
        Value::Table(_) => "a table",
    }
}

/// The plan that a checked table describes.
pub(crate) fn plan<P: Settings>(table: Table) -> Result<P> {
    // A section that says only a part keeps the other values of this plan's own defaults.
    let mut all = known::<P>();
    merge(&mut all, table);
    serde_path_to_error::deserialize(Value::Table(all)).map_err(|e| {
        let (key, problem) = (e.path().to_string(), e.into_inner());
        usage(format!("{key}: {}", keys::plain(problem.message())))
    })
}

/// The fields of a section that were given explicitly, for comparison with what a file says.
pub(crate) fn given(table: &Table, section: &str) -> Map<String, Json> {
    match table.get(section).map(serde_json::to_value) {
        Some(Ok(Json::Object(fields))) => fields,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sdft_train::Plan;

    #[test]
    fn every_preset_is_a_sound_configuration() {
        for name in Plan::preset_names() {
            let mut table = layers::<Plan>(&[name.to_owned()]).unwrap();
            if name.starts_with("metfaces") || name.starts_with("aahq") {
                put(&mut table, "source", "source.pt");
                put(&mut table, "data.path", "images");
            }
            let plan = plan::<Plan>(table).unwrap();
            assert_eq!(plan.name, name);
            plan.validate().unwrap_or_else(|e| panic!("{name}: {e}"));
        }
    }

    #[test]
    fn later_layers_override_key_by_key() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("mine.toml");
        std::fs::write(&file, "seed = 7\n[optim]\nlr = 1\n").unwrap();
        let mut table =
            layers::<Plan>(&["digits-sdft".into(), file.display().to_string()]).unwrap();
        set::<Plan>(&mut table, "loop.steps = 12").unwrap();
        set::<Plan>(&mut table, "loss.weight=snr-2").unwrap();
        let plan = plan::<Plan>(table).unwrap();
        assert_eq!(
            (plan.seed, plan.optim.lr, plan.optim.clip, plan.steps.steps),
            (7, 1.0, 1.0, 12)
        );
        assert_eq!(plan.loss.weight.to_string(), "snr-2");
    }

    #[test]
    fn unknown_keys_and_wrong_types_are_named() {
        let mut table = Table::new();
        let error = set::<Plan>(&mut table, "optim.lrr=1")
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("no key optim.lrr") && error.contains("optim.lr"),
            "{error}"
        );
        let error = set::<Plan>(&mut Table::new(), "optim.lr=fast")
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("optim.lr: expected a number, found \"fast\""),
            "{error}"
        );
        let error = set::<Plan>(&mut Table::new(), "loop.steps=1.5")
            .unwrap_err()
            .to_string();
        assert!(error.contains("expected a whole number"), "{error}");
        assert!(
            set::<Plan>(&mut Table::new(), "optim")
                .unwrap_err()
                .to_string()
                .contains("KEY=VALUE")
        );
        let mut table = Table::new();
        put(&mut table, "loss.weight", "snr-x");
        let error = plan::<Plan>(table).unwrap_err().to_string();
        assert!(
            error.contains("snr-x") && error.contains("loss.weight"),
            "{error}"
        );
        let mut table = Table::new();
        set::<Plan>(&mut table, "data.classes=[1, \"a\"]").unwrap();
        let error = plan::<Plan>(table).unwrap_err().to_string();
        assert!(error.starts_with("data.classes[1]"), "{error}");
        let error = layers::<Plan>(&["digit-sdft".into()])
            .unwrap_err()
            .to_string();
        assert!(error.contains("did you mean digits-sdft"), "{error}");
    }
}
