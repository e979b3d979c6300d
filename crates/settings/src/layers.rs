//! Presets, files and assignments, each checked when it is added.

use crate::check::{LONGEST_KEY, MOST_BYTES, SHOWN, check, parse, short};
use crate::error::{Error, Result};
use crate::presets::Presets;
use crate::table::{Plan, merge, overlay, put};
use sdft_files::did_you_mean;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use toml::{Table, Value};

/// The most parts of a dotted key.
const MOST_PARTS: usize = 8;

/// Merges presets and TOML files, in order; later ones override earlier ones key by key.
///
/// # Errors
/// - [`Error::UnknownPreset`] for a name that is neither a preset nor a file
/// - [`Error::Read`] for a file that cannot be read
/// - [`Error::Invalid`] for text that is not TOML, an unknown key or a value of another type
pub fn layers<P: Plan>(presets: &Presets, names: &[impl AsRef<str>]) -> Result<Table> {
    let mut merged = Table::new();
    for name in names {
        let (table, origin) = read_layer(presets, name.as_ref())?;
        check::<P>(&table, &merged, &origin)?;
        merge::<P>(&mut merged, table);
    }
    Ok(merged)
}

/// The value that presets, files and assignments give to `key`, a key of the top level. Other keys are not checked: the value says which
/// type of plan they belong to.
///
/// # Errors
/// As [`layers`], without those of keys; an assignment without `=` or key.
pub fn peek(
    presets: &Presets,
    names: &[impl AsRef<str>],
    assignments: &[impl AsRef<str>],
    key: &str,
) -> Result<Option<Value>> {
    let mut found = None;
    for name in names {
        let (mut table, _) = read_layer(presets, name.as_ref())?;
        found = table.remove(key).or(found);
    }
    Ok(assigned(assignments)?.remove(key).or(found))
}

/// The table of a preset or a TOML file, and its origin as it is named in errors.
fn read_layer(presets: &Presets, name: &str) -> Result<(Table, String)> {
    let (text, origin) = match presets.get(name) {
        Some(text) => (text.to_owned(), format!("preset {name}")),
        None => (read_file(presets, name)?, name.to_owned()),
    };
    Ok((parse(&text, &origin)?, origin))
}

fn read_file(presets: &Presets, name: &str) -> Result<String> {
    let path = Path::new(name);
    if !path.exists() {
        return Err(Error::UnknownPreset {
            name: name.to_owned(),
            presets: presets.names().collect::<Vec<_>>().join(", "),
            hint: did_you_mean(name, presets.names()),
        });
    }
    let mut text = String::new();
    File::open(path)
        .and_then(|file| {
            let mut limited = file.take(MOST_BYTES as u64 + 1);
            limited.read_to_string(&mut text)
        })
        .map_err(|source| Error::Read {
            name: name.to_owned(),
            source,
        })?;
    Ok(text)
}

/// Puts an assignment `KEY=VALUE` into the table. The value is TOML; what is not TOML is taken as text.
///
/// # Errors
/// [`Error::Invalid`] for an assignment without `=` or key, an unknown key, or a value of another type.
pub fn set<P: Plan>(table: &mut Table, assignment: &str) -> Result<()> {
    set_all::<P>(table, &[assignment])
}

/// [`set`] for several assignments, whose order does not matter unless they assign the same key.
///
/// # Errors
/// As [`set`], for the first such assignment.
pub fn set_all<P: Plan>(table: &mut Table, assignments: &[impl AsRef<str>]) -> Result<()> {
    merge::<P>(table, assigned(assignments)?);
    for assignment in assignments {
        let (origin, assigned) = parse_assignment(assignment.as_ref())?;
        check::<P>(&assigned, table, &origin)?;
    }
    Ok(())
}

/// A table of assignments. Whether the keys exist is not checked, because that can depend on settings of other layers.
///
/// # Errors
/// [`Error::Invalid`] for an assignment without `=` or key.
pub fn assigned(assignments: &[impl AsRef<str>]) -> Result<Table> {
    let mut table = Table::new();
    for assignment in assignments {
        overlay(&mut table, parse_assignment(assignment.as_ref())?.1);
    }
    Ok(table)
}

/// An assignment as it is named in errors, and its table.
fn parse_assignment(assignment: &str) -> Result<(String, Table)> {
    let origin = format!("--set {}", short(assignment, SHOWN));
    let Some((key, text)) = assignment.split_once('=') else {
        return Err(Error::invalid(
            origin,
            "expected KEY=VALUE, as in --set optim.lr=1e-4",
        ));
    };
    let (key, text) = (key.trim(), text.trim());
    if key.is_empty() {
        return Err(Error::invalid(origin, "expected KEY=VALUE, found no key"));
    }
    let parts = key.split('.').count();
    if key.len() > LONGEST_KEY || parts > MOST_PARTS {
        return Err(Error::invalid(
            origin,
            format!(
                "expected a key of at most {MOST_PARTS} parts and {LONGEST_KEY} bytes, as optim.lr, found {parts} parts and {} bytes",
                key.len()
            ),
        ));
    }
    let parsed = parse(&format!("v = {text}"), &origin).ok();
    let value = parsed.and_then(|mut parsed| parsed.remove("v"));
    let mut table = Table::new();
    put(
        &mut table,
        key,
        value.unwrap_or_else(|| Value::String(text.to_owned())),
    );
    Ok((origin, table))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::plan;
    use serde::{Deserialize, Serialize};

    #[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
    struct Training {
        seed: u64,
        optim: Optim,
        r#loop: Loop,
        data: Data,
    }

    #[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
    struct Optim {
        lr: f64,
        clip: f64,
        kind: Kind,
    }

    #[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Kind {
        #[default]
        Adamw,
        Sgd,
    }

    #[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
    struct Loop {
        steps: u64,
    }

    #[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Data {
        #[serde(skip_serializing_if = "Option::is_none")]
        kind: Option<Kind>,
        path: String,
        classes: Vec<u8>,
    }

    /// A plan with a section of two kinds.
    #[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Kinds {
        model: Model,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(tag = "architecture", rename_all = "lowercase", deny_unknown_fields)]
    enum Model {
        Small {
            #[serde(default)]
            width: u64,
        },
        Large {
            #[serde(default)]
            blocks: Vec<u64>,
        },
    }

    impl Default for Model {
        fn default() -> Self {
            Self::Small { width: 8 }
        }
    }

    #[test]
    fn one_key_is_read_before_the_plan_is_known() {
        const PRESETS: Presets =
            Presets(&[("old", "kind = \"a\"\nother = 1"), ("new", "more = 2")]);
        let value = |names: &[&str], set: &[&str]| {
            let found = peek(&PRESETS, names, set, "kind").unwrap();
            found.map(|value| value.as_str().unwrap_or_default().to_owned())
        };
        assert_eq!(value(&["new"], &[]), None);
        assert_eq!(value(&["old", "new"], &[]).as_deref(), Some("a"));
        assert_eq!(value(&["old"], &["kind=b", "x=1"]).as_deref(), Some("b"));
        assert!(peek(&PRESETS, &["odl"], &[""; 0], "kind").is_err());
    }

    #[test]
    fn the_kind_of_a_section_decides_its_keys_and_replaces_those_of_another_kind() {
        const LAYERS: Presets = Presets(&[
            ("small", "[model]\nwidth = 9"),
            ("large", "[model]\narchitecture = \"large\""),
            ("blocks", "[model]\nblocks = [7]"),
        ]);
        let table = |presets: &[&str], sets: &[&str]| -> Result<Table> {
            let mut table = layers::<Kinds>(&LAYERS, presets)?;
            set_all::<Kinds>(&mut table, sets)?;
            Ok(table)
        };
        let model = |presets: &[&str], sets: &[&str]| {
            let table = table(presets, sets).unwrap();
            plan::<Kinds>(table).unwrap().model
        };
        let large = |blocks: &[u64]| Model::Large {
            blocks: blocks.to_vec(),
        };
        assert_eq!(model(&["small"], &[]), Model::Small { width: 9 });
        assert_eq!(model(&["large", "blocks"], &[]), large(&[7]));
        // In any order, and the keys of the old kind are gone.
        let sets = ["model.blocks=[1, 2]", "model.architecture=large"];
        assert_eq!(model(&["small"], &sets), large(&[1, 2]));
        let same = ["model.architecture=small"];
        assert_eq!(model(&["small"], &same), Model::Small { width: 9 });
        for (presets, sets) in [
            (&["blocks"][..], &[][..]),
            (&["large"], &["model.width=3"]),
            (&["small"], &["model.block=[]", "model.architecture=large"]),
        ] {
            let error = table(presets, sets).unwrap_err().to_string();
            assert!(error.contains("there is no"), "{error}");
        }
        let unknown = table(&[], &["model.architecture=tiny"]);
        let error = unknown.and_then(plan::<Kinds>).unwrap_err().to_string();
        assert!(error.contains("tiny"), "{error}");
    }

    const PRESETS: Presets = Presets(&[
        (
            "digits-fast",
            "# A few steps.\nloop.steps = 5\noptim.clip = 1.0",
        ),
        ("digits-slow", "loop.steps = 500"),
    ]);

    fn refused(assignment: &str) -> String {
        let error = set::<Training>(&mut Table::new(), assignment).unwrap_err();
        error.to_string()
    }

    #[test]
    fn later_layers_override_key_by_key() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("mine.toml");
        std::fs::write(&file, "seed = 7\n[optim]\nlr = 1\n").unwrap();
        let file = file.display().to_string();
        let mut table = layers::<Training>(&PRESETS, &["digits-fast", &file]).unwrap();
        set::<Training>(&mut table, "loop.steps = 12").unwrap();
        set::<Training>(&mut table, "optim.kind=sgd").unwrap();
        let plan: Training = plan(table).unwrap();
        assert_eq!((plan.seed, plan.r#loop.steps), (7, 12));
        let optim = Optim {
            lr: 1.0,
            clip: 1.0,
            kind: Kind::Sgd,
        };
        assert_eq!(plan.optim, optim);
    }

    #[test]
    fn a_preset_has_a_description_and_a_slip_of_its_name_is_recognized() {
        assert_eq!(PRESETS.about("digits-fast"), "A few steps.");
        let error = layers::<Training>(&PRESETS, &["digit-fast"]).unwrap_err();
        let text = error.to_string();
        for words in ["(digits-fast, digits-slow)", "did you mean digits-fast?"] {
            assert!(text.contains(words), "{text}");
        }
        let folder = tempfile::tempdir().unwrap();
        let name = folder.path().display().to_string();
        let error = layers::<Training>(&PRESETS, &[&name]).unwrap_err();
        assert!(matches!(error, Error::Read { .. }), "{error:?}");
    }

    #[test]
    fn unknown_keys_and_wrong_types_are_named() {
        let error = refused("optim.lrr=1");
        assert!(
            error.contains("no key optim.lrr; did you mean optim.lr?"),
            "{error}"
        );
        let error = refused("optim.lr=fast");
        assert!(
            error.contains("optim.lr: expected a number, found \"fast\""),
            "{error}"
        );
        assert!(refused("loop.steps=1.5").contains("expected a whole number"));
        assert!(refused("optim").contains("KEY=VALUE"));
        let mut table = Table::new();
        put(&mut table, "optim.kind", "adam");
        let error = plan::<Training>(table).unwrap_err().to_string();
        assert!(
            error.contains("adam") && error.contains("optim.kind"),
            "{error}"
        );
        let mut table = Table::new();
        set::<Training>(&mut table, "data.classes=[1, \"a\"]").unwrap();
        let error = plan::<Training>(table).unwrap_err().to_string();
        assert!(error.starts_with("data.classes[1]"), "{error}");
    }

    #[test]
    fn keys_that_the_serialized_default_omits_are_known() {
        let mut table = Table::new();
        set::<Training>(&mut table, "data.kind=sgd").unwrap();
        assert_eq!(plan::<Training>(table).unwrap().data.kind, Some(Kind::Sgd));
        let mut table = Table::new();
        set::<Training>(&mut table, "data.kind=adam").unwrap();
        let error = plan::<Training>(table).unwrap_err().to_string();
        assert!(
            error.starts_with("data.kind: expected ") && error.ends_with("found \"adam\""),
            "{error}"
        );
        assert!(refused("data.kinds=sgd").contains("no key data.kinds"));
    }

    #[test]
    fn settings_that_are_too_long_or_too_deep_are_refused_in_few_words() {
        let dots = "x.".repeat(20_000);
        let brackets = format!("{}1{}", "[".repeat(20_000), "]".repeat(20_000));
        let tables = format!("{}x=1{}", "{a=".repeat(9000), "}".repeat(9000));
        for assignment in [
            format!("loop.{dots}y=1"),
            dots.clone(),
            format!("optim.lr={brackets}"),
            format!("optim.lr={tables}"),
            format!("optim.{}=1", "r".repeat(100_000)),
            format!("optim.lr={}", "9".repeat(100_000)),
            format!("{}=1", "optim.lr".repeat(30)),
            "=1".into(),
            "...=1".into(),
        ] {
            let text = refused(&assignment);
            assert!(text.len() < 600, "{text}");
        }
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("deep.toml");
        let limited = format!("a = {}1{}", "[".repeat(70), "]".repeat(70));
        for text in [
            format!("a = {brackets}"),
            limited,
            format!("[{}b]\nc=1", "a.".repeat(20_000)),
            format!("{}b = 1", "a.".repeat(60_000)),
            "#".repeat(MOST_BYTES + 1),
            format!("{} = 1", "k".repeat(500_000)),
            format!("seed = {}", "9".repeat(500_000)),
        ] {
            std::fs::write(&file, text).unwrap();
            let error = layers::<Training>(&PRESETS, &[file.display().to_string()]).unwrap_err();
            assert!(error.to_string().len() < 2000, "{error}");
        }
        // Text with brackets is text.
        let mut table = Table::new();
        set::<Training>(&mut table, "data.path=[photos").unwrap();
        assert_eq!(plan::<Training>(table).unwrap().data.path, "[photos");
    }
}
