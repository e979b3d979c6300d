//! Tables of models over seeds, shown and written.

use crate::console;
use anyhow::{Context, Result};
use sdft_imaging::Rgb8;
use sdft_train::sheet;
use std::fmt::Write;
use std::path::Path;

/// A column: its name, its digits behind the point, and what it shows of a measured model.
pub(super) type Column<M> = (&'static str, usize, fn(&M) -> f64);

/// A row for each label, with the mean over its models and their range in every column.
pub(super) fn markdown<M>(
    first: &str,
    columns: &[Column<M>],
    rows: &[(impl AsRef<str>, Vec<M>)],
) -> String {
    let names: Vec<&str> = columns.iter().map(|column| column.0).collect();
    let mut out = format!(
        "| {first} | {} |\n|{}\n",
        names.join(" | "),
        "---|".repeat(1 + columns.len())
    );
    for (label, models) in rows {
        let cell = |(_, digits, value): &Column<M>| {
            spread(&models.iter().map(value).collect::<Vec<_>>(), *digits)
        };
        let cells: Vec<String> = columns.iter().map(cell).collect();
        // Writing to a string does not fail.
        let _ = writeln!(out, "| {} | {} |", label.as_ref(), cells.join(" | "));
    }
    out
}

/// Mean and range over the seeds.
fn spread(values: &[f64], digits: usize) -> String {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    match values.len() {
        1 => format!("{mean:.digits$}"),
        _ => format!("{mean:.digits$} ({low:.digits$} to {high:.digits$})"),
    }
}

/// Prints a table of models with what it says, and writes it as `STEM.md`, its numbers as `STEM.json` and rows of images under titles as
/// `STEM.png`.
pub(super) fn show(
    out: &Path,
    stem: &str,
    (text, reading): (&str, &str),
    numbers: &[serde_json::Value],
    rows: impl Iterator<Item = (String, Vec<Rgb8>)>,
) -> Result<()> {
    console::line(text)?;
    console::line(reading)?;
    let path = out.join(format!("{stem}.json"));
    let json = serde_json::to_string_pretty(numbers)?;
    sdft_files::write_atomic(&path, json.as_bytes())
        .with_context(|| format!("cannot write {}", path.display()))?;
    let markdown = out.join(format!("{stem}.md"));
    sdft_files::write_atomic(&markdown, text.as_bytes())
        .with_context(|| format!("cannot write {}", markdown.display()))?;
    let rows: Vec<Rgb8> = rows
        .map(|(name, row)| sheet(&row, row.len(), &name))
        .collect();
    let picture = out.join(format!("{stem}.png"));
    sdft_imaging::write_png(&picture, &sdft_imaging::grid(&rows, 1, 0, [24, 24, 24]))?;
    console::line(format_args!("table    {}", path.display()))?;
    console::line(format_args!("picture  {}", picture.display()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_means_and_ranges_of_its_models() {
        let columns: [Column<f64>; 2] = [("a", 1, |m| *m), ("b", 0, |m| 10.0 * m)];
        let rows = [("one", vec![0.25]), ("two", vec![1.0, 2.0])];
        assert_eq!(
            markdown("x", &columns, &rows),
            "| x | a | b |\n|---|---|---|\n| one | 0.2 | 2 |\n| two | 1.5 (1.0 to 2.0) | 15 (10 to 20) |\n"
        );
    }
}
