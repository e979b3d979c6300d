//! The classes of images, as their inputs state them.

use std::{
    collections::{BTreeSet, HashMap},
    path::Path,
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{PrepareError, Record, Result};

/// The file with the classes in a prepared folder, and in data sets of StyleGAN and EDM.
pub(crate) const DATASET: &str = "dataset.json";
/// Largest [`DATASET`] in bytes.
pub(crate) const MOST: u64 = 64 << 20;
/// Longest name of a class in bytes.
const LONGEST: usize = 256;

/// The class of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Label {
    Number(u32),
    Name(Arc<str>),
}

impl Label {
    /// `None` for a negative number, which marks images without a class.
    pub(crate) fn number(number: i64) -> Option<Self> {
        u32::try_from(number).ok().map(Self::Number)
    }

    /// A number or a name; `None` for an empty text and a negative number.
    pub(crate) fn text(text: &str) -> Option<Self> {
        let text = text.trim();
        match text.parse() {
            Ok(number) => Self::number(number),
            Err(_) if text.is_empty() || text.len() > LONGEST => None,
            Err(_) => Some(Self::Name(text.into())),
        }
    }

    fn value(value: &Value) -> Option<Self> {
        match value {
            Value::String(text) => Self::text(text),
            other => other.as_i64().and_then(Self::number),
        }
    }
}

/// The class in a file `KEY.cls`.
pub(crate) fn of_text(bytes: &[u8]) -> Option<Label> {
    std::str::from_utf8(bytes).ok().and_then(Label::text)
}

/// The class in a file `KEY.json`: its `label`, `cls` or `class`, a number or a name.
pub(crate) fn of_json(bytes: &[u8]) -> Option<Label> {
    let Ok(Value::Object(object)) = serde_json::from_slice(bytes) else {
        return None;
    };
    let mut keys = ["label", "cls", "class"].into_iter();
    keys.find_map(|key| object.get(key).and_then(Label::value))
}

/// `dataset.json` as StyleGAN and EDM write it, with the names of the classes if they are known.
#[derive(Debug, Deserialize)]
struct Dataset {
    labels: Vec<(String, Value)>,
    classes: Option<Vec<String>>,
}

/// The classes of the files of a data set.
pub(crate) struct Labels {
    of: HashMap<String, Label>,
    /// The names of all classes, in order; empty if they are only numbered.
    pub(crate) names: Vec<Arc<str>>,
}

impl Labels {
    /// The classes in a [`DATASET`]; `None` if it is something else, or the images have no classes.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let Dataset { labels, classes } = serde_json::from_slice(bytes).ok()?;
        let labels = labels.into_iter();
        Some(Self {
            of: labels
                .filter_map(|(file, label)| Some((file, Label::value(&label)?)))
                .collect(),
            names: names(classes.unwrap_or_default()),
        })
    }

    /// The class of a file.
    pub(crate) fn of(&self, file: &str) -> Option<Label> {
        let label = self.of.get(file)?.clone();
        Some(named(label, &self.names))
    }
}

/// Names to share.
pub(crate) fn names(names: Vec<String>) -> Vec<Arc<str>> {
    names.into_iter().map(Arc::from).collect()
}

/// The label by its name, if the classes have names.
pub(crate) fn named(label: Label, names: &[Arc<str>]) -> Label {
    match &label {
        Label::Number(n) => names.get(*n as usize).cloned().map_or(label, Label::Name),
        Label::Name(_) => label,
    }
}

/// The classes of a set.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Classes {
    /// The class of each entry.
    pub(crate) labels: Vec<Option<u32>>,
    /// The names of all classes; empty if they are only numbered.
    pub(crate) names: Vec<String>,
}

/// Numbers the classes of all entries, each with its source: names that an input declares keep their order, others follow in the order of
/// their bytes.
///
/// # Errors
/// Fails if some classes are numbers and others are names.
pub(crate) fn numbered(all: &[(&str, Option<Label>)], declared: &[Arc<str>]) -> Result<Classes> {
    let of = |wanted: fn(&Label) -> bool| {
        let found = all.iter().filter_map(|(s, l)| Some((*s, l.as_ref()?)));
        found.into_iter().find(|(_, label)| wanted(label))
    };
    let number = of(|label| matches!(label, Label::Number(_)));
    let name = of(|label| matches!(label, Label::Name(_)));
    if let (Some((number, Label::Number(n))), Some((name, Label::Name(text)))) = (number, name) {
        return Err(PrepareError::Labels {
            problem: format!("{number} has the number {n}, {name} has the name {text}"),
        });
    }
    let mut names: Vec<Arc<str>> = Vec::new();
    let mut places: HashMap<Arc<str>, u32> = HashMap::new();
    let used = all.iter().filter_map(|(_, label)| match label {
        Some(Label::Name(name)) => Some(name),
        _ => None,
    });
    let others: BTreeSet<&Arc<str>> = used.collect();
    // Declared names count only where they are used: a set with numbers alone has no names.
    let declared = declared.iter().filter(|_| !others.is_empty());
    for name in declared.chain(others.iter().copied()) {
        places.entry(Arc::clone(name)).or_insert_with(|| {
            names.push(Arc::clone(name));
            names.len() as u32 - 1
        });
    }
    let place = |label: &Label| match label {
        Label::Number(number) => Some(*number),
        Label::Name(name) => places.get(name).copied(),
    };
    Ok(Classes {
        labels: all
            .iter()
            .map(|(_, l)| l.as_ref().and_then(place))
            .collect(),
        names: names.iter().map(|name| name.to_string()).collect(),
    })
}

/// Writes the classes of a set next to its images, or removes those of an earlier one.
pub(crate) fn write(folder: &Path, records: &[Record], names: &[String]) -> Result<()> {
    #[derive(Serialize)]
    struct File<'a> {
        labels: Vec<(&'a str, u32)>,
        #[serde(skip_serializing_if = "<[String]>::is_empty")]
        classes: &'a [String],
    }
    let path = folder.join(DATASET);
    let labels = records.iter();
    let labels: Vec<(&str, u32)> = labels
        .filter_map(|record| Some((record.file.as_deref()?, record.label?)))
        .collect();
    let written = match labels.is_empty() {
        true => match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        },
        false => serde_json::to_vec(&File {
            labels,
            classes: names,
        })
        .map_err(Into::into)
        .and_then(|text| sdft_files::write_atomic(&path, &text)),
    };
    written.map_err(|cause| PrepareError::Io { path, cause })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Option<Label> {
        Some(Label::Name(text.into()))
    }

    #[test]
    fn labels_are_numbers_or_names() {
        for (text, label) in [
            ("7\n", Some(Label::Number(7))),
            (" tabby cat ", name("tabby cat")),
            ("-1", None),
            ("", None),
        ] {
            assert_eq!(of_text(text.as_bytes()), label, "{text}");
        }
        for (text, label) in [
            (r#"{"caption": "x", "label": 3}"#, Some(Label::Number(3))),
            (r#"{"class": "dog"}"#, name("dog")),
            (r#"{"label": [0, 1], "cls": "4"}"#, Some(Label::Number(4))),
            (r#"{"label": null}"#, None),
            ("[1]", None),
            ("{", None),
        ] {
            assert_eq!(of_json(text.as_bytes()), label, "{text}");
        }
    }

    #[test]
    fn a_data_set_of_numbers_may_have_names() {
        let set = Labels::read(
            br#"{"labels": [["a/b.png", 1], ["c.png", [0.5]]], "classes": ["x", "y"]}"#,
        );
        let set = set.unwrap();
        assert_eq!((set.of("a/b.png"), set.of("c.png")), (name("y"), None));
        assert!(Labels::read(br#"{"labels": null}"#).is_none());
        assert!(Labels::read(br#"{"images": []}"#).is_none());
    }

    #[test]
    fn declared_names_keep_their_order_and_others_are_sorted() {
        let names = names(vec!["z".to_owned(), "unused".to_owned()]);
        let all = [
            ("1", name("b")),
            ("2", None),
            ("3", name("a")),
            ("4", name("z")),
        ];
        let found = numbered(&all, &names).unwrap();
        assert_eq!(found.names, ["z", "unused", "a", "b"]);
        assert_eq!(found.labels, [Some(3), None, Some(2), Some(0)]);
        let found = numbered(&[("1", Some(Label::Number(7)))], &names).unwrap();
        assert_eq!((found.labels, found.names), (vec![Some(7)], vec![]));
        let both = [("p.png", name("b")), ("q.png", Some(Label::Number(7)))];
        let error = numbered(&both, &[]).unwrap_err().to_string();
        assert!(
            error.contains("q.png has the number 7, p.png has the name b"),
            "{error}"
        );
    }
}
