//! The settings of a folder, key by key, with what its presets say.

use crate::error::{Error, OnPath as _, Result};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;
use toml::{Table, Value};

/// Longest value that is shown whole.
const LONGEST: usize = 200;

/// A setting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Setting {
    pub(crate) key: String,
    pub(crate) value: String,
    /// The value of the preset, if it is another one.
    pub(crate) preset: Option<String>,
}

/// The plan of a folder.
pub(crate) fn read_plan(root: &Path) -> Result<Table> {
    let path = root.join("plan.toml");
    let text = std::fs::read_to_string(&path).on("read", &path)?;
    toml::from_str(&text).map_err(|error| Error::Content {
        path,
        problem: error.message().to_owned(),
    })
}

/// All settings of a plan, in the order of their keys, next to presets, of which later ones override earlier ones.
pub(crate) fn settings(plan: &Table, presets: &[Table]) -> Vec<Setting> {
    let mut base = BTreeMap::new();
    for preset in presets {
        base.extend(flat(preset));
    }
    let own = flat(plan);
    let known = own.into_iter().map(|(key, value)| Setting {
        preset: base
            .get(&key)
            .filter(|preset| !is_same(preset, &value))
            .map(shown),
        value: shown(&value),
        key,
    });
    known.collect()
}

/// A text of the plan, by its path.
pub(crate) fn text<'a>(plan: &'a Table, path: &[&str]) -> Option<&'a str> {
    value(plan, path)?.as_str()
}

/// A value of the plan, by its path.
pub(crate) fn value<'a>(plan: &'a Table, path: &[&str]) -> Option<&'a Value> {
    let (last, sections) = path.split_last()?;
    let mut table = plan;
    for section in sections {
        table = table.get(*section)?.as_table()?;
    }
    table.get(*last)
}

fn flat(table: &Table) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    collect("", table, &mut all);
    all
}

fn collect(prefix: &str, table: &Table, all: &mut BTreeMap<String, Value>) {
    for (key, value) in table {
        let key = format!("{prefix}{key}");
        match value {
            Value::Table(inner) => collect(&format!("{key}."), inner, all),
            value => {
                all.insert(key, value.clone());
            }
        }
    }
}

/// Whether two values mean the same: `1` and `1.0` do.
fn is_same(a: &Value, b: &Value) -> bool {
    let number = |value: &Value| value.as_float().or(value.as_integer().map(|n| n as f64));
    match (number(a), number(b)) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

fn shown(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{} ..", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_name_what_differs_from_the_presets() {
        let table = |text: &str| toml::from_str::<Table>(text).unwrap();
        let plan = table("name = 'a'\n[loop]\nsteps = 300\nlr = 1.0\nbatch = 4");
        let presets = [
            table("[loop]\nsteps = 100\nlr = 1"),
            table("[loop]\nsteps = 200"),
        ];
        let all = settings(&plan, &presets);
        let row = |key: &str, value: &str, preset: Option<&str>| Setting {
            key: key.to_owned(),
            value: value.to_owned(),
            preset: preset.map(str::to_owned),
        };
        let want = [
            row("loop.batch", "4", None),
            row("loop.lr", "1.0", None),
            row("loop.steps", "300", Some("200")),
            row("name", "a", None),
        ];
        assert_eq!(all, want);
        assert_eq!(text(&plan, &["name"]), Some("a"));
        assert_eq!(value(&plan, &["loop", "steps"]), Some(&Value::Integer(300)));
        assert_eq!(value(&plan, &["loop", "no", "steps"]), None);
    }
}
