//! Tables of models over seeds, and their files.

use sdft_imaging::Rgb8;
use sdft_jobs::{Result, write_file};
use sdft_train::sheet;
use serde::Serialize;
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// A finished table.
#[derive(Clone, Debug)]
pub struct Report {
    /// The table in Markdown.
    pub text: String,
    /// How to read it.
    pub reading: &'static str,
    /// The file of its numbers, as JSON; the text is next to it.
    pub table: PathBuf,
    /// A picture of rows of images.
    pub picture: Option<PathBuf>,
}

/// A column: its name, its decimal places, and its value for a measured model, NaN if it has none.
pub(crate) type Column<M> = (&'static str, usize, fn(&M) -> f64);

/// A row for each label, with the mean over its models and their range in every column.
pub(crate) fn markdown<M>(
    first: &str,
    columns: &[Column<M>],
    rows: &[(impl AsRef<str>, Vec<M>)],
) -> String {
    let names: Vec<(&str, usize)> = columns
        .iter()
        .map(|(name, digits, _)| (*name, *digits))
        .collect();
    let values = |model: &M| columns.iter().map(|(_, _, value)| value(model)).collect();
    let rows: Vec<(&str, Vec<Vec<f64>>)> = rows
        .iter()
        .map(|(label, models)| (label.as_ref(), models.iter().map(values).collect()))
        .collect();
    markdown_of(first, &names, &rows)
}

/// A row for each label, with the mean over its models and their range in every column. A model is the list of its values.
pub(crate) fn markdown_of(
    first: &str,
    columns: &[(&str, usize)],
    rows: &[(impl AsRef<str>, Vec<Vec<f64>>)],
) -> String {
    let names: Vec<&str> = columns.iter().map(|column| column.0).collect();
    let mut out = format!(
        "| {first} | {} |\n|{}\n",
        names.join(" | "),
        "---|".repeat(1 + columns.len())
    );
    for (label, models) in rows {
        let cell = |(i, (_, digits)): (usize, &(&str, usize))| {
            spread(
                &models.iter().map(|model| model[i]).collect::<Vec<_>>(),
                *digits,
            )
        };
        let cells: Vec<String> = columns.iter().enumerate().map(cell).collect();
        // Writing to a string does not fail.
        let _ = writeln!(out, "| {} | {} |", label.as_ref(), cells.join(" | "));
    }
    out
}

/// A line for each label and seed with all values, empty where there is none.
pub(crate) fn csv(
    first: &str,
    columns: &[(&str, usize)],
    rows: &[(impl AsRef<str>, Vec<Vec<f64>>)],
) -> String {
    let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
    let names = columns.iter().map(|(name, _)| quoted(name));
    let head: Vec<String> = [quoted(first), quoted("seed")]
        .into_iter()
        .chain(names)
        .collect();
    let mut out = head.join(",") + "\n";
    for (label, models) in rows {
        for (seed, values) in models.iter().enumerate() {
            let cells = values.iter().map(|value| match value.is_nan() {
                true => String::new(),
                false => value.to_string(),
            });
            let line: Vec<String> = [quoted(label.as_ref()), seed.to_string()]
                .into_iter()
                .chain(cells)
                .collect();
            out += &(line.join(",") + "\n");
        }
    }
    out
}

/// Mean and range over the seeds; a dash where there is no value.
fn spread(values: &[f64], digits: usize) -> String {
    if values.iter().any(|value| value.is_nan()) {
        return "-".to_owned();
    }
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    match values.len() {
        1 => format!("{mean:.digits$}"),
        _ => format!("{mean:.digits$} ({low:.digits$} to {high:.digits$})"),
    }
}

/// The numbers of a table, as JSON: for each label the measurements of its models, one for each seed.
pub(crate) fn numbers<M: Serialize>(first: &str, rows: &[(impl AsRef<str>, Vec<M>)]) -> Vec<Value> {
    let rows = rows.iter();
    rows.map(|(label, models)| json!({ first: label.as_ref(), "seeds": models }))
        .collect()
}

/// Writes a table as `STEM.md`, its numbers as `STEM.json`, and rows of images under titles as `STEM.png`.
pub(crate) fn write_table(
    out: &Path,
    stem: &str,
    (text, reading): (String, &'static str),
    numbers: &[Value],
    rows: impl Iterator<Item = (String, Vec<Rgb8>)>,
) -> Result<Report> {
    let rows: Vec<Rgb8> = rows
        .map(|(name, row)| sheet(&row, row.len(), &name))
        .collect();
    let picture = sdft_imaging::grid(&rows, 1, 0, GAP);
    write_files(out, [stem, stem], (text, reading), numbers, Some(&picture))
}

/// Grey between pictures.
pub(crate) const GAP: [u8; 3] = [24, 24, 24];

/// Writes a table, its numbers and its picture; `stems` are the names of the table and of the picture.
pub(crate) fn write_files(
    out: &Path,
    [stem, picture_stem]: [&str; 2],
    (text, reading): (String, &'static str),
    numbers: &[Value],
    picture: Option<&Rgb8>,
) -> Result<Report> {
    let table = out.join(format!("{stem}.json"));
    let json = serde_json::to_string_pretty(numbers)?;
    write_file(&table, json.as_bytes())?;
    write_file(&out.join(format!("{stem}.md")), text.as_bytes())?;
    let picture = match picture {
        None => None,
        Some(picture) => {
            let path = out.join(format!("{picture_stem}.png"));
            sdft_imaging::write_png(&path, picture)?;
            Some(path)
        }
    };
    Ok(Report {
        text,
        reading,
        table,
        picture,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_means_and_ranges_of_its_models() {
        let columns: [Column<f64>; 2] = [("a", 1, |m| *m), ("b", 0, |m| 10.0 * m)];
        let rows = [
            ("one", vec![0.25]),
            ("two", vec![1.0, 2.0]),
            ("none", vec![f64::NAN]),
        ];
        assert_eq!(
            markdown("x", &columns, &rows),
            "| x | a | b |\n|---|---|---|\n| one | 0.2 | 2 |\n| two | 1.5 (1.0 to 2.0) | 15 (10 to 20) |\n| none | - | - |\n"
        );
        let rows = [("a \"b\"", vec![vec![0.5, f64::NAN], vec![2.0, 1.0]])];
        let text = csv("x", &[("p", 1), ("q, r", 0)], &rows);
        let expected =
            "\"x\",\"seed\",\"p\",\"q, r\"\n\"a \"\"b\"\"\",0,0.5,\n\"a \"\"b\"\"\",1,2,1\n";
        assert_eq!(text, expected);
    }
}
