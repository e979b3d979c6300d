//! The results of a measurement as table, JSON and CSV.

use serde_json::{Value, json};
use std::fmt::Write;

/// A number with its settings.
#[derive(Clone, Debug, PartialEq)]
pub struct Measure {
    /// Its name as in papers.
    pub name: String,
    /// The value.
    pub value: f64,
    /// Standard deviation over subsets or pairs.
    pub spread: Option<f64>,
    /// Number of images or pairs.
    pub n: String,
    /// Its settings, and whether higher or lower is better.
    pub note: String,
}

/// Numbers with their settings and warnings.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// What was compared, and with which weights.
    pub settings: Vec<(String, String)>,
    /// The numbers.
    pub measures: Vec<Measure>,
    /// Why a number cannot be trusted, and what to use instead.
    pub warnings: Vec<String>,
    /// Names of the values of each pair.
    pub columns: Vec<String>,
    /// Name and values of each pair.
    pub rows: Vec<(String, Vec<f64>)>,
}

impl Report {
    /// Formats a table for the terminal.
    pub fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        for (key, value) in &self.settings {
            let _ = writeln!(out, "{key:<10} {value}");
        }
        let width = self.measures.iter().map(|m| m.name.chars().count()).max();
        let width = width.unwrap_or(0);
        let _ = writeln!(out);
        for m in &self.measures {
            let value = number(m.value);
            let spread = m
                .spread
                .map_or_else(String::new, |s| format!(" ± {}", number(s)));
            let cell = format!("{value}{spread}");
            let _ = writeln!(
                out,
                "{:<width$}  {cell:<18}  n {:<14} {}",
                m.name, m.n, m.note
            );
        }
        for warning in &self.warnings {
            let _ = writeln!(out, "\nwarning: {warning}");
        }
        out
    }

    /// Converts everything to JSON. Numbers that JSON does not support are strings: `"inf"`, `"NaN"`.
    pub fn json(&self) -> Value {
        let settings: serde_json::Map<String, Value> = self
            .settings
            .iter()
            .map(|(key, value)| (key.clone(), json!(value)))
            .collect();
        let measures: Vec<Value> = self
            .measures
            .iter()
            .map(|m| {
                json!({
                    "name": m.name, "value": plain(m.value), "spread": m.spread.map(plain), "n": m.n, "note": m.note,
                })
            })
            .collect();
        let pairs: Vec<Value> = self
            .rows
            .iter()
            .map(|(name, values)| {
                let mut row = serde_json::Map::from_iter([("name".to_owned(), json!(name))]);
                let values = values.iter().map(|&v| plain(v));
                row.extend(self.columns.iter().cloned().zip(values));
                Value::Object(row)
            })
            .collect();
        json!({ "settings": settings, "measures": measures, "warnings": self.warnings, "pairs": pairs })
    }

    /// Formats the numbers as CSV: one line for each measure, then an empty line and one line for each pair.
    pub fn csv(&self) -> String {
        let mut out = String::from("name,value,spread,n,note\n");
        for m in &self.measures {
            let spread = m.spread.map_or_else(String::new, |s| s.to_string());
            let fields = [&m.name, &m.value.to_string(), &spread, &m.n, &m.note];
            let _ = writeln!(out, "{}", fields.map(|f| quoted(f)).join(","));
        }
        if !self.rows.is_empty() {
            let _ = writeln!(
                out,
                "\nname,{}",
                self.columns
                    .iter()
                    .map(|c| quoted(c))
                    .collect::<Vec<_>>()
                    .join(",")
            );
            for (name, values) in &self.rows {
                let values: Vec<String> = values.iter().map(f64::to_string).collect();
                let _ = writeln!(out, "{},{}", quoted(name), values.join(","));
            }
        }
        out
    }
}

/// Formats with as many digits as needed to compare.
fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 1000.0 => format!("{value:.1}"),
        v if v >= 10.0 => format!("{value:.3}"),
        v if v >= 0.01 || v == 0.0 => format!("{value:.4}"),
        _ => format!("{value:.3e}"),
    }
}

fn plain(value: f64) -> Value {
    if value.is_finite() {
        json!(value)
    } else {
        json!(value.to_string())
    }
}

fn quoted(field: &str) -> String {
    if field.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_has_three_formats() {
        let report = Report {
            settings: vec![("real".into(), "faces".into())],
            measures: vec![Measure {
                name: "PSNR".into(),
                value: f64::INFINITY,
                spread: Some(0.25),
                n: "3".into(),
                note: "higher is better, \"dB\"".into(),
            }],
            warnings: vec!["few".into()],
            columns: vec!["PSNR, EGSDE".into()],
            rows: vec![("a,b.png".into(), vec![12.5])],
        };
        let text = report.text();
        assert!(text.contains("PSNR  inf ± 0.2500"), "{text}");
        assert!(text.contains("warning: few"));
        let json = report.json();
        assert_eq!(json["measures"][0]["value"], "inf");
        assert_eq!(json["pairs"][0]["PSNR, EGSDE"], 12.5);
        assert_eq!(
            report.csv(),
            "name,value,spread,n,note\nPSNR,inf,0.25,3,\"higher is better, \"\"dB\"\"\"\n\nname,\"PSNR, EGSDE\"\n\"a,b.png\",12.5\n"
        );
    }
}
