//! Folders of numbers: evaluations, and comparisons of methods.

use crate::chart::number;
use crate::error::{Error, OnPath as _, Result};
use crate::images::Named;
use crate::picture::embed;
use crate::plan::{Setting, read_plan, settings};
use sdft_files::plural;
use serde::Serialize;
use serde_json::Value as Json;
use std::fs;
use std::path::{Path, PathBuf};

/// A table.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Table {
    /// Text above the table.
    pub(crate) caption: String,
    pub(crate) columns: Vec<String>,
    pub(crate) rows: Vec<Vec<String>>,
}

/// A folder of numbers as the page shows it.
#[derive(Debug, Serialize)]
pub(crate) struct Numbers {
    pub(crate) name: String,
    pub(crate) warnings: Vec<String>,
    pub(crate) tables: Vec<Table>,
    /// Text that belongs to the tables.
    pub(crate) text: Vec<String>,
    pub(crate) pictures: Vec<Named>,
    pub(crate) settings: Vec<Setting>,
}

/// The report of `evaluate`.
pub(crate) fn read_evaluation(root: &Path, name: String, most: usize) -> Result<Numbers> {
    let path = root.join("report.json");
    let text = fs::read_to_string(&path).on("read", &path)?;
    let report: Json = serde_json::from_str(&text).map_err(|error| Error::Content {
        path,
        problem: error.to_string(),
    })?;
    let list = |key: &str| {
        report
            .get(key)
            .and_then(Json::as_array)
            .into_iter()
            .flatten()
    };
    let cell = |row: &Json, key: &str| row.get(key).map(shown).unwrap_or_default();
    let measures = Table {
        caption: String::new(),
        columns: ["measure", "value", "spread", "n", "note"]
            .map(str::to_owned)
            .into(),
        rows: list("measures")
            .map(|row| {
                ["name", "value", "spread", "n", "note"]
                    .map(|key| cell(row, key))
                    .into()
            })
            .collect(),
    };
    let mut tables = vec![measures];
    let pairs: Vec<&Json> = list("pairs").collect();
    if let Some(first) = pairs.first().and_then(|pair| pair.as_object()) {
        let mut columns: Vec<String> = first.keys().filter(|key| *key != "name").cloned().collect();
        columns.insert(0, "name".to_owned());
        tables.push(Table {
            caption: plural(pairs.len(), "pair", "pairs"),
            rows: pairs
                .iter()
                .map(|pair| columns.iter().map(|key| cell(pair, key)).collect())
                .collect(),
            columns,
        });
    }
    Ok(Numbers {
        name,
        warnings: list("warnings").map(shown).collect(),
        tables,
        text: Vec::new(),
        pictures: pictures(root, most)?,
        settings: settings(&read_plan(root)?, &[]),
    })
}

/// The tables of `compare` and `reproduce`.
pub(crate) fn read_comparison(root: &Path, name: String, most: usize) -> Result<Numbers> {
    let mut numbers = Numbers {
        name,
        warnings: Vec::new(),
        tables: Vec::new(),
        text: Vec::new(),
        pictures: pictures(root, most)?,
        settings: match root.join("plan.toml").is_file() {
            true => settings(&read_plan(root)?, &[]),
            false => Vec::new(),
        },
    };
    for path in tables_of(root) {
        let text = fs::read_to_string(&path).on("read", &path)?;
        let stem = path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let (table, words) = markdown(&text);
        if let Some(table) = table {
            numbers.tables.push(Table {
                caption: stem,
                ..table
            });
        }
        numbers.text.extend(words);
    }
    Ok(numbers)
}

/// The Markdown files with a JSON file of the same name.
pub(crate) fn tables_of(root: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    let mut all: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "md"))
        .filter(|path| path.with_extension("json").is_file())
        .collect();
    all.sort();
    all
}

/// The first table of a Markdown text, and the paragraphs around it.
fn markdown(text: &str) -> (Option<Table>, Vec<String>) {
    let cells = |line: &str| -> Vec<String> {
        let inner = line.trim().trim_matches('|');
        inner
            .split('|')
            .map(|cell| cell.trim().replace("**", ""))
            .collect()
    };
    let (lines, words): (Vec<&str>, Vec<&str>) = text
        .lines()
        .partition(|line| line.trim_start().starts_with('|'));
    let is_rule = |line: &str| line.chars().all(|c| "|-: ".contains(c));
    let mut rows = lines.into_iter().filter(|line| !is_rule(line)).map(cells);
    let table = rows.next().map(|columns| Table {
        caption: String::new(),
        columns,
        rows: rows.collect(),
    });
    let words = words.join("\n");
    let paragraphs = words
        .split("\n\n")
        .map(|part| part.replace('\n', " ").trim().to_owned());
    (table, paragraphs.filter(|part| !part.is_empty()).collect())
}

/// The pictures that are directly in the folder.
fn pictures(root: &Path, most: usize) -> Result<Vec<Named>> {
    let entries = fs::read_dir(root).on("read", root)?.flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.ends_with(".png"))
        .collect();
    names.sort();
    let each = most / names.len().max(1);
    let all = names.into_iter().map(|name| {
        let picture = embed(&root.join(&name), each)?;
        Ok(Named { name, picture })
    });
    all.collect()
}

fn shown(value: &Json) -> String {
    match value {
        Json::Null => String::new(),
        Json::String(text) => text.clone(),
        Json::Number(n) if !n.is_u64() => n.as_f64().map_or_else(|| n.to_string(), number),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_evaluation_has_its_measures_and_pairs() {
        let dir = tempfile::tempdir().unwrap();
        let report = r#"{"settings":{},"warnings":["few images"],"measures":[{"name":"KID x1000","value":1.23456,"spread":0.1,"n":"500","note":""}],
            "pairs":[{"name":"a.png","PSNR":12.5,"SSIM":"inf"},{"name":"b.png","PSNR":3.0,"SSIM":0.5}]}"#;
        fs::write(dir.path().join("report.json"), report).unwrap();
        fs::write(dir.path().join("plan.toml"), "compared = ['a', 'b']").unwrap();
        let numbers = read_evaluation(dir.path(), "e".into(), 1 << 20).unwrap();
        assert_eq!(numbers.warnings, ["few images"]);
        assert_eq!(
            numbers.tables[0].rows[0],
            ["KID x1000", "1.23", "0.1", "500", ""]
        );
        assert_eq!(numbers.tables[1].columns, ["name", "PSNR", "SSIM"]);
        assert_eq!(numbers.tables[1].rows[0], ["a.png", "12.5", "inf"]);
        assert_eq!(numbers.settings[0].key, "compared");
    }

    #[test]
    fn a_comparison_is_its_markdown_tables() {
        let dir = tempfile::tempdir().unwrap();
        let text = "Words above.\n\n| method | KID |\n|---|---:|\n| **sdft** | 1.5 (1.4 to 1.6) |\n\nWords\nbelow.\n";
        fs::write(dir.path().join("table.md"), text).unwrap();
        fs::write(dir.path().join("table.json"), "[]").unwrap();
        fs::write(dir.path().join("notes.md"), "not a table").unwrap();
        let numbers = read_comparison(dir.path(), "c".into(), 1 << 20).unwrap();
        assert_eq!(numbers.tables.len(), 1);
        assert_eq!(numbers.tables[0].columns, ["method", "KID"]);
        assert_eq!(numbers.tables[0].rows, [["sdft", "1.5 (1.4 to 1.6)"]]);
        assert_eq!(numbers.text, ["Words above.", "Words below."]);
    }
}
