//! The name of a run that has none: after its images, its method and its further methods.

use super::presets::METHODS;
use sdft_settings::put;
use std::path::Path;
use toml::{Table, Value};

/// The longest part of a folder's name that becomes part of a run's name, in bytes.
pub(super) const LONGEST: usize = 100;

/// Puts a name into the settings of a run. `data` are the images as they were given. `differs` says that images or method are not those of the
/// preset, so that its name does not fit.
pub(super) fn name_after(table: &mut Table, data: Option<&str>, configs: &[String], differs: bool) {
    let given = table.get("name").and_then(Value::as_str).unwrap_or("run");
    let base = match differs {
        true => of_images(table, data),
        false => given.to_owned(),
    };
    let methods: Vec<&str> = configs
        .iter()
        .map(String::as_str)
        .filter(|config| METHODS.contains(config))
        .collect();
    if !differs && methods.is_empty() {
        return;
    }
    let name = match methods.is_empty() {
        true => base,
        false => {
            let start = base.strip_suffix("-naive").unwrap_or(&base);
            format!("{start}-{}", methods.join("-"))
        }
    };
    put(table, "name", name);
}

/// A name made of the images and the method.
fn of_images(table: &Table, data: Option<&str>) -> String {
    let section = table.get("data").and_then(Value::as_table);
    let path = section.and_then(|section| section.get("path"));
    // The option holds the user's word where the table has the path that replaced it.
    let data = data.or(path.and_then(Value::as_str)).unwrap_or_default();
    let full = std::path::absolute(data);
    let path = full.as_deref().unwrap_or(Path::new(data));
    let stem = path.file_name().map(|name| name.to_string_lossy());
    let stem = stem.as_deref().unwrap_or("run").trim_start_matches('.');
    let end = stem.floor_char_boundary(LONGEST);
    let method = table
        .get("method")
        .and_then(Value::as_str)
        .unwrap_or("sdft");
    match &stem[..end] {
        "" => format!("run-{method}"),
        stem => format!("{stem}-{method}"),
    }
}
