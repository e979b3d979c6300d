//! Reads labels from JSON.

use std::io::BufRead;

use serde_json::{Map, Value};

use super::{Problem, Reading, Row, Table, problem};

/// The labels of a JSON document: `{"labels": [["00000/img.png", 6], ..]}` as StyleGAN and EDM write `dataset.json`, which may have the names
/// of the `classes`; an object of files and their labels; or a list of objects or pairs.
///
/// # Errors
/// The document has another form.
pub(super) fn parse(text: &str) -> Reading<Table> {
    let document: Value = serde_json::from_str(text).map_err(|e| problem!("{e}"))?;
    match document {
        Value::Object(mut all) => match all.remove("labels") {
            Some(Value::Null) => Err(problem!(
                "its \"labels\" are null: these images have no classes"
            )),
            Some(labels @ (Value::Array(_) | Value::Object(_))) => Ok(Table {
                rows: rows(labels)?,
                names: names(all.remove("classes"))?,
            }),
            Some(label) => {
                all.insert("labels".to_owned(), label);
                rows(Value::Object(all)).map(Table::from)
            }
            None => rows(Value::Object(all)).map(Table::from),
        },
        list @ Value::Array(_) => rows(list).map(Table::from),
        other => Err(problem!("expected an object or a list, found {other}")),
    }
}

/// The labels of JSON lines: one object with a file and a label in each line, such as the index of a prepared set. Lines without a file
/// or a label are left out.
///
/// # Errors
/// The file cannot be read, or a line is not a JSON object; the message has its number.
pub(super) fn parse_lines(lines: impl BufRead) -> Reading<Table> {
    let mut all = Vec::new();
    for (n, line) in lines.lines().enumerate() {
        let line = line.map_err(|e| problem!("line {}: {e}", n + 1))?;
        let text = line.trim_start_matches('\u{FEFF}').trim();
        if text.is_empty() {
            continue;
        }
        let object: Map<String, Value> =
            serde_json::from_str(text).map_err(|e| problem!("line {}: {e}", n + 1))?;
        all.extend(of_object(object).map_err(|e| problem!("line {}: {e}", n + 1))?);
    }
    Ok(all.into())
}

fn names(classes: Option<Value>) -> Reading<Option<Vec<String>>> {
    let Some(classes) = classes else {
        return Ok(None);
    };
    let names = serde_json::from_value(classes);
    names
        .map(Some)
        .map_err(|e| problem!("\"classes\": expected a list of names: {e}"))
}

fn rows(labels: Value) -> Reading<Vec<Row>> {
    let mut rows = Vec::new();
    match labels {
        Value::Object(labels) => {
            for (file, value) in labels {
                rows.extend(row(file, value)?);
            }
        }
        Value::Array(labels) => {
            for entry in labels {
                let found = match entry {
                    Value::Object(object) => of_object(object)?,
                    Value::Array(pair) => match <[Value; 2]>::try_from(pair) {
                        Ok([Value::String(file), value]) => row(file, value)?,
                        other => {
                            return Err(expected_pair(&Value::from(
                                other.map_or_else(|p| p, Vec::from),
                            )));
                        }
                    },
                    other => return Err(expected_pair(&other)),
                };
                rows.extend(found);
            }
        }
        other => return Err(problem!("expected an object or a list, found {other}")),
    }
    Ok(rows)
}

fn expected_pair(found: &Value) -> Problem {
    problem!("expected pairs of a file and a label, such as [\"a.png\", 3], found {found}")
}

/// The row of an object; `None` if it has no file or no label.
fn of_object(mut object: Map<String, Value>) -> Reading<Option<Row>> {
    let mut take = |names: &[&str]| names.iter().find_map(|name| object.remove(*name));
    let file = take(&["file", "file_name", "filename", "path", "image"]);
    match (file, take(&["label", "class"])) {
        (Some(Value::String(file)), Some(value)) => row(file, value),
        _ => Ok(None),
    }
}

fn row(file: String, value: Value) -> Reading<Option<Row>> {
    let label = match value {
        Value::Null => return Ok(None),
        Value::String(label) => label,
        Value::Number(label) => label.to_string(),
        other => {
            return Err(problem!(
                "{file}: expected a number or a name as its label, found {other}"
            ));
        }
    };
    Ok(Some(Row { file, label }))
}
