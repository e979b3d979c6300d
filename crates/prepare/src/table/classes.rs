//! Which columns of a table are classes, as the library `datasets` describes them.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::{
    footer::{Column, Leaf, Physical, Schema},
    thrift::{Read, Thrift},
};

/// Longest description in bytes.
const LONGEST: usize = 4 << 20;

/// The columns that are classes, with the names of their classes.
pub(super) type Classes = BTreeMap<String, Vec<String>>;

impl Schema<'_> {
    /// The column of labels with the names of its classes, or why none of several is used: the only column of classes, or the one of them
    /// that is called `label`; in tables that do not say which columns are classes, numbers or texts called `label` or `labels`.
    pub(super) fn label(&self, classes: &Classes) -> (Option<Leaf>, Vec<String>, Option<String>) {
        let named = |name: &str| {
            let is_it = |column: &Column<'_>| {
                column.depth == 1 && !column.is_repeated && column.last == name.as_bytes()
            };
            let index = self.leaves.iter().position(is_it);
            index.filter(|&i| self.leaves[i].physical != Physical::Other)
        };
        let known: Vec<_> = classes
            .iter()
            .filter_map(|(name, names)| Some((name, named(name)?, names)))
            .collect();
        let usual = known.iter().find(|(name, ..)| *name == "label");
        match (usual, known.as_slice()) {
            (Some((_, i, names)), _) | (None, [(_, i, names)]) => {
                (Some(self.leaf(*i)), (*names).clone(), None)
            }
            (None, []) => {
                let usual = ["label", "labels"].into_iter().find_map(named);
                (usual.map(|i| self.leaf(i)), Vec::new(), None)
            }
            (None, several) => {
                let names: Vec<&str> = several.iter().map(|(name, ..)| name.as_str()).collect();
                let note = format!(
                    "the columns {} are classes, and none is called label",
                    names.join(", ")
                );
                (None, Vec::new(), Some(note))
            }
        }
    }
}

/// The columns of classes in the description that the library `datasets` puts into a table.
pub(super) fn features(bytes: &[u8]) -> Read<Classes> {
    let mut found = Classes::new();
    Thrift::new(bytes).fields(|at, id, _| {
        if id != 5 {
            return Ok(false);
        }
        at.structs(|at, _| {
            let (mut key, mut value) = (&b""[..], &b""[..]);
            at.fields(|at, id, _| {
                match id {
                    1 => key = at.binary()?,
                    2 => value = at.binary()?,
                    _ => return Ok(false),
                }
                Ok(true)
            })?;
            if key == b"huggingface" && value.len() <= LONGEST {
                found = classes_of(value);
            }
            Ok(())
        })?;
        Ok(true)
    })?;
    Ok(found)
}

/// The columns of classes in a description of a data set: `{"info": {"features": {..}}}` in tables, without `info` in `dataset_info.json`,
/// and one for each configuration in `dataset_infos.json`. None if it is something else.
fn classes_of(json: &[u8]) -> Classes {
    let Ok(Value::Object(mut all)) = serde_json::from_slice(json) else {
        return Classes::new();
    };
    let features = match all.remove("features") {
        Some(features) => features,
        None => {
            let one = all.into_iter().next();
            let features = one.and_then(|(_, mut info)| Some(info.get_mut("features")?.take()));
            features.unwrap_or_default()
        }
    };
    let Value::Object(features) = features else {
        return Classes::new();
    };
    let classes = features.into_iter().filter_map(|(column, feature)| {
        let is_class = feature
            .get("_type")
            .is_some_and(|kind| kind == "ClassLabel");
        let names = feature.get("names").filter(|_| is_class)?;
        Some((column, serde_json::from_value(names.clone()).ok()?))
    });
    classes.collect()
}

/// The columns of classes in the files that describe a data set, next to a table or one folder above.
pub(super) fn described(table: &Path) -> Classes {
    let folders = table.ancestors().skip(1).take(2);
    let mut files = folders.flat_map(|folder| {
        ["dataset_info.json", "dataset_infos.json"].map(|name| folder.join(name))
    });
    let read = |path: PathBuf| sdft_files::read_regular(&path, LONGEST as u64).ok();
    let classes = files.find_map(|path| Some(classes_of(&read(path)?)).filter(|c| !c.is_empty()));
    classes.unwrap_or_default()
}
