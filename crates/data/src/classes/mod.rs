//! The classes of the images of a folder.

mod csv;
mod json;

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    io::{self, BufReader},
    path::{Path, PathBuf},
};

use sdft_imaging::without_ending;

use crate::{ClassesFrom, DataError, Result};

/// Most classes that are given by number.
const MOST: u64 = 1 << 20;

/// Files that an error or a note names.
const NAMED: usize = 10;

/// The classes of some images.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Classes {
    /// Their names.
    pub names: Vec<String>,
    /// The class of each image.
    pub labels: Vec<u32>,
    /// Files that have a label and are not among the images.
    pub unknown: Vec<String>,
}

/// Why labels cannot be used; the file is added later.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Problem(String);

type Reading<T> = std::result::Result<T, Problem>;

macro_rules! problem {
    ($($text:tt)*) => { $crate::classes::Problem(format!($($text)*)) };
}
use problem;

/// A file and its label.
#[derive(Debug, PartialEq)]
struct Row {
    file: String,
    label: String,
}

/// The content of a file of labels.
#[derive(Debug, Default)]
struct Table {
    rows: Vec<Row>,
    /// The names of classes that are given by number.
    names: Option<Vec<String>>,
}

impl From<Vec<Row>> for Table {
    fn from(rows: Vec<Row>) -> Self {
        Self { rows, names: None }
    }
}

/// The classes of the images `ids` of `folder`. A page `a.tif#2` without its own label has the label of `a.tif`.
///
/// # Errors
/// Fails if an image has no class, or the file with the labels cannot be read.
pub fn classes<'a>(
    from: &ClassesFrom,
    folder: &Path,
    ids: impl Iterator<Item = Cow<'a, str>>,
) -> Result<Classes> {
    match from {
        ClassesFrom::Folders => of_folders(folder, ids),
        ClassesFrom::File(file) => {
            let file = found(file, folder);
            let refuse = |Problem(problem)| DataError::Labels {
                file: file.clone(),
                problem,
            };
            let table = read(&file).map_err(refuse)?;
            table.classes(&file, ids)
        }
    }
}

/// The subfolders that hold the images, sorted by bytes as torchvision's `ImageFolder` sorts them.
fn of_folders<'a>(folder: &Path, ids: impl Iterator<Item = Cow<'a, str>>) -> Result<Classes> {
    let (mut seen, mut labels) = (BTreeMap::new(), Vec::new());
    let mut outside = Named::default();
    for id in ids {
        let Some((class, _)) = id.split_once('/') else {
            outside.push(&id);
            continue;
        };
        let next = seen.len() as u32;
        let label = match seen.get(class) {
            Some(&label) => label,
            None => *seen.entry(class.to_owned()).or_insert(next),
        };
        labels.push(label);
    }
    if outside.n > 0 {
        return Err(DataError::Incomplete {
            n: outside.n,
            what: "no class for".to_owned(),
            hint: format!(
                "the subfolders of {} are the classes; move these images into one",
                folder.display()
            ),
            files: outside.files,
        });
    }
    // From the order in which they were found to the order of their names.
    let mut rank = vec![0; seen.len()];
    for (sorted, &found) in seen.values().enumerate() {
        rank[found as usize] = sorted as u32;
    }
    Ok(Classes {
        labels: labels
            .into_iter()
            .map(|found| rank[found as usize])
            .collect(),
        names: seen.into_keys().collect(),
        unknown: Vec::new(),
    })
}

/// The first few of many files.
#[derive(Default)]
struct Named {
    n: usize,
    files: Vec<String>,
}

impl Named {
    fn push(&mut self, file: &str) {
        self.n += 1;
        if self.files.len() < NAMED {
            self.files.push(file.to_owned());
        }
    }
}

/// The file with the labels: as given, or else inside the folder.
fn found(file: &Path, folder: &Path) -> PathBuf {
    let inside = folder.join(file);
    match !file.exists() && inside.exists() {
        true => inside,
        false => file.to_owned(),
    }
}

fn read(path: &Path) -> Reading<Table> {
    let unread = |e: io::Error| match e.kind() {
        io::ErrorKind::NotFound => {
            problem!("cannot be read: {e}; expected `folders`, or a CSV or JSON file")
        }
        _ => problem!("cannot be read: {e}"),
    };
    let ending = path.extension().unwrap_or_default().to_string_lossy();
    let table = if ["jsonl", "ndjson"].contains(&ending.to_ascii_lowercase().as_str()) {
        // An index has several hundred bytes for each image, so it is not read as a whole.
        let file = sdft_files::open_regular(path).map_err(unread)?;
        json::parse_lines(BufReader::new(file))?
    } else {
        let text = sdft_files::read_text(path).map_err(unread)?;
        match text.trim_start().chars().next() {
            Some('{' | '[') => json::parse(&text)?,
            _ => csv::parse(&text)?.into(),
        }
    };
    match table.rows.is_empty() {
        true => Err(problem!("expected files and their labels, found none")),
        false => Ok(table),
    }
}

impl Table {
    fn classes<'a>(
        self,
        origin: &Path,
        ids: impl Iterator<Item = Cow<'a, str>>,
    ) -> Result<Classes> {
        let Self { rows, names } = self;
        let refuse = |Problem(problem)| DataError::Labels {
            file: origin.to_owned(),
            problem,
        };
        let lookup = Lookup::new(&rows).map_err(refuse)?;
        let mut used = vec![false; rows.len()];
        let mut missing = Named::default();
        let mut found = Vec::new();
        for id in ids {
            match lookup.find(&id) {
                Some(row) => {
                    used[row] = true;
                    found.push(row);
                }
                None => missing.push(&id),
            }
        }
        if missing.n > 0 {
            let example = rows.first().map_or("", |row| row.file.as_str());
            return Err(DataError::Incomplete {
                n: missing.n,
                what: format!("labels {} have none for", origin.display()),
                hint: format!(
                    "its files are relative to the folder of the images; the first is {example:?}"
                ),
                files: missing.files,
            });
        }
        let unused = rows.iter().zip(&used).filter(|&(_, used)| !used);
        let unknown = unused.map(|(row, _)| row.file.clone()).collect();
        let chosen: Vec<&Row> = found.iter().map(|&i| &rows[i]).collect();
        let (names, labels) = numbered(&chosen, names).map_err(refuse)?;
        Ok(Classes {
            names,
            labels,
            unknown,
        })
    }
}

/// Finds the row of a file.
struct Lookup<'a> {
    by_file: HashMap<&'a str, usize>,
    /// By the path without its ending; `None` for several files.
    by_stem: HashMap<&'a str, Option<usize>>,
}

impl<'a> Lookup<'a> {
    fn new(rows: &'a [Row]) -> Reading<Self> {
        let (mut by_file, mut by_stem) = (HashMap::new(), HashMap::new());
        for (i, row) in rows.iter().enumerate() {
            let file = row.file.strip_prefix("./").unwrap_or(&row.file);
            match by_file.insert(file, i) {
                None => {
                    let stem = by_stem.entry(without_ending(file));
                    stem.and_modify(|known| *known = None).or_insert(Some(i));
                }
                Some(before) if rows[before].label == row.label => {}
                Some(before) => {
                    return Err(problem!(
                        "{file} has two labels, {} and {}",
                        rows[before].label,
                        row.label
                    ));
                }
            }
        }
        Ok(Self { by_file, by_stem })
    }

    fn find(&self, id: &str) -> Option<usize> {
        let exact = |id: &str| self.by_file.get(id).copied();
        let file = id.rsplit_once('#').map_or(id, |(file, _)| file);
        let stem = || *self.by_stem.get(without_ending(file))?;
        exact(id).or_else(|| exact(file)).or_else(stem)
    }
}

/// Names and numbers of the classes of some rows.
fn numbered(rows: &[&Row], names: Option<Vec<String>>) -> Reading<(Vec<String>, Vec<u32>)> {
    if let Some(names) = names {
        let class = |row: &&Row| {
            let by_name = names.iter().position(|name| *name == row.label);
            let class = by_name.map(|i| i as u64).or_else(|| number(&row.label));
            match class {
                Some(class) if class < names.len() as u64 => Ok(class as u32),
                _ => Err(problem!(
                    "{}: expected a class from 0 to {} or its name, found {}",
                    row.file,
                    names.len().saturating_sub(1),
                    row.label
                )),
            }
        };
        let labels: Reading<_> = rows.iter().map(class).collect();
        return labels.map(|labels| (names, labels));
    }
    let is_negative = |row: &&&Row| row.label.parse::<i64>().is_ok_and(|n| n < 0);
    if let Some(row) = rows.iter().find(is_negative) {
        return Err(problem!(
            "{}: expected a class from 0, found {}; leave images without a class out",
            row.file,
            row.label
        ));
    }
    let numbers: Option<Vec<u64>> = rows.iter().map(|row| number(&row.label)).collect();
    if let Some(numbers) = numbers {
        let most = numbers.iter().copied().max().unwrap_or_default();
        if most >= MOST {
            return Err(problem!(
                "class {most}: expected numbers from 0, below {MOST}; number the classes from 0, or give them names"
            ));
        }
        let names = (0..=most).map(|n| n.to_string()).collect();
        return Ok((names, numbers.into_iter().map(|n| n as u32).collect()));
    }
    let mut names: Vec<&str> = rows.iter().map(|row| row.label.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let class = |row: &&Row| names.partition_point(|name| *name < row.label.as_str()) as u32;
    let labels = rows.iter().map(class).collect();
    Ok((names.into_iter().map(str::to_owned).collect(), labels))
}

/// A label as a number: digits, or digits with `.0` as tables of floats have them.
fn number(label: &str) -> Option<u64> {
    label.strip_suffix(".0").unwrap_or(label).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDS: [&str; 4] = ["a.png", "cat/1.jpg", "s.tif#1", "s.tif#2"];

    fn of_file(name: &str, text: &str) -> Result<Classes> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(name), text).unwrap();
        let from = ClassesFrom::File(name.into());
        classes(&from, folder.path(), IDS.iter().map(|&id| id.into()))
    }

    #[test]
    fn every_layout_gives_the_same_classes() {
        let expected = Classes {
            names: ["0", "1", "2", "3"].map(str::to_owned).to_vec(),
            labels: vec![3, 0, 1, 1],
            unknown: vec![],
        };
        for (name, text) in [
            ("l.csv", "file,label\na.png,3\ncat/1.jpg,0\ns.tif,1\n"),
            ("l.txt", "\u{FEFF}a.png;3.0\r\n./cat/1.jpg;0.0\r\ns;1.0\r\n"),
            (
                "dataset.json",
                r#"{"labels": [["a.png", 3], ["cat/1.png", 0], ["s.tif", 1]]}"#,
            ),
            ("l.json", r#"{"a.png": 3, "cat/1.jpg": 0, "s.tif": "1"}"#),
            (
                "l.json",
                r#"[{"file": "a.png", "label": 3}, {"path": "cat/1.jpg", "class": 0}, ["s", 1]]"#,
            ),
            (
                "index.jsonl",
                "{\"size\": 8}\n{\"file\": \"a.png\", \"label\": 3}\n{\"file\": \"cat/1.jpg\", \"label\": 0}\n\n{\"file\": \"s.tif\", \"label\": 1}",
            ),
        ] {
            assert_eq!(of_file(name, text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn texts_are_names_in_the_order_of_their_bytes_and_pages_may_differ() {
        let text = "a.png,dog\ncat/1.jpg,Zebra\ns.tif#1,9\ns.tif,\u{e4}ffchen\ngone.png,ape\n";
        let found = of_file("l.csv", text).unwrap();
        assert_eq!(found.names, ["9", "Zebra", "dog", "\u{e4}ffchen"]);
        assert_eq!(found.labels, [2, 1, 0, 3]);
        assert_eq!(found.unknown, ["gone.png"]);
    }

    #[test]
    fn a_data_set_may_name_its_classes() {
        let text = r#"{"labels": [["a.png", 1], ["cat/1.jpg", "ape"], ["s", 0]], "classes": ["ape", "dog", "cow"]}"#;
        let found = of_file("dataset.json", text).unwrap();
        assert_eq!(found.names, ["ape", "dog", "cow"]);
        assert_eq!(found.labels, [1, 0, 0, 0]);
        let error = of_file("dataset.json", &text.replace("1]", "3]")).unwrap_err();
        assert!(error.to_string().contains("from 0 to 2"), "{error}");
    }

    #[test]
    fn labels_that_cannot_be_used_are_explained() {
        for (name, text, part) in [
            ("l.json", r#"{"labels": null}"#, "are null"),
            (
                "l.json",
                r#"{"labels": [["a.png", [0, 1]]]}"#,
                "found [0,1]",
            ),
            (
                "l.json",
                r#"{"labels": [["a.png", 1, 2]]}"#,
                "expected pairs",
            ),
            ("l.json", "3", "line 1: expected two columns"),
            ("l.json", "{\"a", "EOF"),
            ("l.jsonl", "{}\n[1]\n", "line 2"),
            ("l.csv", "", "found none"),
            (
                "l.csv",
                "a.png,1\na.png,2\n",
                "a.png has two labels, 1 and 2",
            ),
            (
                "l.csv",
                "a.png,-1\ncat/1.jpg,0\ns,1\n",
                "a.png: expected a class from 0",
            ),
            (
                "l.csv",
                "a.png,9999999\ncat/1.jpg,0\ns,1\n",
                "class 9999999",
            ),
        ] {
            let error = of_file(name, text).unwrap_err().to_string();
            assert!(error.contains(part) && error.contains(name), "{error}");
        }
        let missing = of_file("l.csv", "b.png,1\ns,2\n").unwrap_err().to_string();
        assert!(missing.contains("have none for 2 images"), "{missing}");
        assert!(
            missing.contains("a.png") && missing.contains("cat/1.jpg"),
            "{missing}"
        );
        assert!(missing.contains("\"b.png\""), "{missing}");
    }

    #[test]
    fn folders_are_classes_in_the_order_of_their_bytes() {
        let of = |ids: &[&'static str]| {
            let ids = ids.iter().map(|&id| id.into());
            classes(&ClassesFrom::Folders, Path::new("set"), ids)
        };
        let found = of(&["b/x.png", "B/y/z.png", "a/1.png", "b/2.png"]).unwrap();
        assert_eq!(found.names, ["B", "a", "b"]);
        assert_eq!(found.labels, [2, 0, 1, 2]);
        let error = of(&["b/x.png", "top.png"]).unwrap_err().to_string();
        assert!(
            error.contains("1 image") && error.contains("top.png"),
            "{error}"
        );
        assert!(error.contains("subfolders of set"), "{error}");
    }
}
