//! Preset, then TOML file, then `--set`: one table, checked key by key.

use crate::assets::Presets;
use crate::keys;
use crate::{assets, console, usage};
use anyhow::{Context, Result};
use sdft_assets::did_you_mean;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value as Json};
use std::io::Read;
use toml::{Table, Value};

/// The longest text of settings, in bytes.
const MOST_BYTES: usize = 1 << 20;
/// The most brackets inside each other; no setting has more than two. Everything that walks a table does so recursively.
const MOST_BRACKETS: usize = 16;
/// The most parts of a key, and its most bytes.
const MOST_PARTS: usize = 8;
const LONGEST_KEY: usize = 200;
/// Characters of a text that an error repeats.
const SHOWN: usize = 60;

/// Settings that stand in TOML files.
pub(crate) trait Settings: Presets + Default + Serialize + DeserializeOwned {}

impl<P: Presets + Default + Serialize + DeserializeOwned> Settings for P {}

/// Merges the files and presets named by `--config`, in order.
pub(crate) fn layers<P: Settings>(names: &[String]) -> Result<Table> {
    let mut merged = Table::new();
    for name in names {
        let (text, origin) = match P::preset(name) {
            Some(text) => (text.to_owned(), format!("preset {name}")),
            None => (read_file::<P>(name)?, name.clone()),
        };
        let table = parse(&text, &origin)?;
        check::<P>(&table, &origin)?;
        merge(&mut merged, table);
    }
    Ok(merged)
}

fn read_file<P: Settings>(name: &str) -> Result<String> {
    let path = std::path::Path::new(name);
    if path.exists() {
        let cannot = || format!("cannot read the configuration {name}");
        let file = std::fs::File::open(path).with_context(cannot)?;
        let mut text = String::new();
        file.take(MOST_BYTES as u64 + 1)
            .read_to_string(&mut text)
            .with_context(cannot)?;
        return Ok(text);
    }
    Err(usage(format!(
        "--config {name}: neither a file nor a preset ({}){}",
        P::preset_names().collect::<Vec<_>>().join(", "),
        did_you_mean(name, P::preset_names())
    )))
}

/// Settings as a table, unless they are too long or too deep to be any.
fn parse(text: &str, origin: &str) -> Result<Table> {
    if text.len() > MOST_BYTES {
        return Err(usage(format!(
            "{origin}: expected settings of at most {MOST_BYTES} bytes, found more"
        )));
    }
    let (mut depth, mut deepest) = (0usize, 0);
    for byte in text.bytes() {
        match byte {
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    if deepest > MOST_BRACKETS {
        return Err(usage(format!(
            "{origin}: expected at most {MOST_BRACKETS} brackets inside each other, found {deepest}"
        )));
    }
    toml::from_str(text).map_err(|e| usage(format!("{origin}: {}", short(&e.to_string(), 1000))))
}

/// A text of the user's, or its beginning where it is long.
fn short(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}.. ({} bytes)", &text[..end], text.len()),
    }
}

/// Puts the settings of one table over those of another, key by key.
pub(crate) fn merge(into: &mut Table, from: Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Table(old)), Value::Table(new)) => merge(old, new),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

/// Puts `key=value` into the table; the value is TOML, or text if it is not.
pub(crate) fn set<P: Settings>(table: &mut Table, assignment: &str) -> Result<()> {
    let origin = format!("--set {}", short(assignment, SHOWN));
    let Some((key, text)) = assignment.split_once('=') else {
        return Err(usage(format!(
            "{origin}: expected KEY=VALUE, as in --set optim.lr=1e-4"
        )));
    };
    let (key, text) = (key.trim(), text.trim());
    if key.is_empty() {
        return Err(usage(format!(
            "--set {assignment}: expected KEY=VALUE, found no key"
        )));
    }
    if key.len() > LONGEST_KEY || key.split('.').count() > MOST_PARTS {
        return Err(usage(format!(
            "{origin}: expected a key of at most {MOST_PARTS} parts and {LONGEST_KEY} bytes, as optim.lr, found {} parts and {} bytes",
            key.split('.').count(),
            key.len()
        )));
    }
    let value = match parse(&format!("v = {text}"), &origin) {
        Ok(mut parsed) => parsed
            .remove("v")
            .unwrap_or_else(|| Value::String(text.to_owned())),
        Err(_) => Value::String(text.to_owned()),
    };
    put(table, key, value);
    check::<P>(table, &origin)
}

/// Puts a value at a dotted key.
pub(crate) fn put(table: &mut Table, key: &str, value: impl Into<Value>) {
    match key.split_once('.') {
        None => {
            table.insert(key.to_owned(), value.into());
        }
        Some((first, rest)) => {
            let inner = table
                .entry(first)
                .or_insert_with(|| Value::Table(Table::new()));
            if !inner.is_table() {
                *inner = Value::Table(Table::new());
            }
            if let Value::Table(inner) = inner {
                put(inner, rest, value);
            }
        }
    }
}

/// Every key with a default value of its type.
fn known<P: Settings>() -> Table {
    let Ok(Value::Table(mut known)) = Value::try_from(P::default()) else {
        return Table::new();
    };
    // Plans leave these out at their default.
    for (section, key) in [("process", "prediction_type"), ("loss", "distill_space")] {
        if let Some(Value::Table(section)) = known.get_mut(section) {
            section.insert(key.to_owned(), "epsilon".into());
        }
    }
    known
}

/// Fails on keys that do not exist, naming the nearest, and on values of another type.
fn check<P: Settings>(table: &Table, origin: &str) -> Result<()> {
    let known = known::<P>();
    let mut all = Vec::new();
    keys(&known, "", &mut all);
    check_level(table, &known, "", &all, origin)
}

fn keys(table: &Table, prefix: &str, out: &mut Vec<String>) {
    for (key, value) in table {
        let full = format!("{prefix}{key}");
        if let Value::Table(inner) = value {
            keys(inner, &format!("{full}."), out);
        } else {
            out.push(full);
        }
    }
}

fn check_level(
    table: &Table,
    known: &Table,
    prefix: &str,
    all: &[String],
    origin: &str,
) -> Result<()> {
    for (key, value) in table {
        let full = format!("{prefix}{key}");
        match (known.get(key), value) {
            (None, _) => {
                if full.len() > LONGEST_KEY {
                    // The distance to a text of thousands of characters takes long and is no hint.
                    let full = short(&full, SHOWN);
                    return Err(usage(format!("{origin}: there is no key {full}")));
                }
                let in_file = !origin.starts_with("--set");
                let problem = keys::unknown(&full, value, all, in_file);
                return Err(usage(format!("{origin}: {problem}")));
            }
            (Some(Value::Table(known)), Value::Table(inner)) => {
                check_level(inner, known, &format!("{full}."), all, origin)?
            }
            (Some(Value::Float(_)), Value::Integer(_)) => {}
            (Some(expected), found) if !expected.same_type(found) => {
                return Err(usage(format!(
                    "{origin}: {full}: expected {}, found {}",
                    describe(expected),
                    short(&found.to_string(), SHOWN)
                )));
            }
            _ => {}
        }
    }
    Ok(())
}

fn describe(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "text",
        Value::Integer(_) => "a whole number",
        Value::Float(_) => "a number",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a date",
        Value::Array(_) => "a list",
        Value::Table(_) => "a table",
    }
}

/// The plan that a checked table describes.
pub(crate) fn plan<P: Settings>(table: Table) -> Result<P> {
    // A section that says only a part keeps the other values of this plan's own defaults.
    let mut all = known::<P>();
    merge(&mut all, table.clone());
    let mut removed = Vec::new();
    leave_digits_out(&mut all, "", &mut removed);
    removed.retain(|key| is_said(&table, key));
    if !removed.is_empty() {
        console::note(&format!(
            "left out, because only the embedded digits have it and the images come from a folder: {}",
            removed.join(", ")
        ));
    }
    serde_path_to_error::deserialize(Value::Table(all)).map_err(|e| {
        let (key, problem) = (e.path().to_string(), e.into_inner());
        usage(format!("{key}: {}", keys::plain(problem.message())))
    })
}

/// What only the digits have, in every section of images.
const OF_DIGITS: [&str; 3] = ["style", "classes", "per_class"];

/// Removes what only the digits have from sections whose images come from a folder; `removed` gets the keys.
fn leave_digits_out(table: &mut Table, prefix: &str, removed: &mut Vec<String>) {
    let path = table.get("path").and_then(Value::as_str);
    if path.is_some_and(|path| !path.is_empty() && path != assets::DIGITS) {
        let gone = OF_DIGITS.iter().filter(|key| table.remove(**key).is_some());
        removed.extend(gone.map(|key| format!("{prefix}{key}")));
    }
    for (key, value) in table.iter_mut() {
        if let Value::Table(inner) = value {
            leave_digits_out(inner, &format!("{prefix}{key}."), removed);
        }
    }
}

/// Whether a table says something at a dotted key.
fn is_said(table: &Table, key: &str) -> bool {
    match key.split_once('.') {
        None => table.contains_key(key),
        Some((first, rest)) => {
            let inner = table.get(first).and_then(Value::as_table);
            inner.is_some_and(|inner| is_said(inner, rest))
        }
    }
}

/// The fields of a section that were given explicitly, for comparison with what a file says.
pub(crate) fn given(table: &Table, section: &str) -> Map<String, Json> {
    match table.get(section).map(serde_json::to_value) {
        Some(Ok(Json::Object(fields))) => fields,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adm::Plan;
    use sdft_classifier::ClassifierPlan;
    use sdft_diffusion::PredictionType;
    use sdft_directions::DirectionPlan;

    #[test]
    fn every_preset_is_a_sound_configuration() {
        for name in Plan::preset_names() {
            let mut table = layers::<Plan>(&[name.to_owned()]).unwrap();
            let own = name.starts_with("own-");
            if name.starts_with("metfaces") || name.starts_with("aahq") {
                put(&mut table, "source", "source.pt");
            }
            if !name.starts_with("digits") {
                put(&mut table, "data.path", "images");
            }
            assert_eq!(own, !table.contains_key("name"), "{name}");
            let plan = plan::<Plan>(table).unwrap();
            assert!(own || plan.name == name, "{name}");
            assert_eq!(plan.warnings(), Vec::<String>::new(), "{name}");
            crate::adm::validate(&plan).unwrap_or_else(|e| panic!("{name}: {e}"));
        }
    }

    #[test]
    fn later_layers_override_key_by_key() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("mine.toml");
        std::fs::write(&file, "seed = 7\n[optim]\nlr = 1\n").unwrap();
        let mut table =
            layers::<Plan>(&["digits-sdft".into(), file.display().to_string()]).unwrap();
        set::<Plan>(&mut table, "loop.steps = 12").unwrap();
        set::<Plan>(&mut table, "loss.weight=snr-2").unwrap();
        let plan = plan::<Plan>(table).unwrap();
        assert_eq!(
            (plan.seed, plan.optim.lr, plan.optim.clip, plan.steps.steps),
            (7, 1.0, 1.0, 12)
        );
        assert_eq!(plan.loss.weight.to_string(), "snr-2");
    }

    #[test]
    fn settings_of_the_digits_do_not_reach_the_plan_of_a_folder() {
        let mut table = layers::<Plan>(&["digits-sdft".into()]).unwrap();
        let digits = plan::<Plan>(table.clone()).unwrap();
        assert_eq!(digits.data.classes.as_deref(), Some(&[1, 4, 7][..]));
        put(&mut table, "data.path", "photos");
        let photos = plan::<Plan>(table).unwrap();
        let text = toml::to_string(&photos).unwrap();
        for key in OF_DIGITS {
            assert!(!text.contains(&format!("\n{key} = ")), "{key}: {text}");
        }
        assert_eq!(toml::from_str::<Plan>(&text).unwrap(), photos);
        // The brothers: both domains of a classifier, and the images of a direction.
        let mut table = layers::<ClassifierPlan>(&["digits-classifier".into()]).unwrap();
        put(&mut table, "data.target.path", "photos");
        let both = plan::<ClassifierPlan>(table).unwrap().data;
        assert!(both.source.style.is_some() && both.source.per_class == Some(30));
        assert!(both.target.style.is_none() && both.target.classes.is_none());
        let mut table = layers::<DirectionPlan>(&["digits-3-to-2".into()]).unwrap();
        put(&mut table, "data.path", "photos");
        let data = plan::<DirectionPlan>(table).unwrap().data;
        assert_eq!(
            (data.style, data.classes, data.per_class),
            (None, None, None)
        );
    }

    #[test]
    fn settings_that_are_too_long_or_too_deep_are_refused_in_few_words() {
        let dots = "x.".repeat(20_000);
        let brackets = format!("{}1{}", "[".repeat(20_000), "]".repeat(20_000));
        let tables = format!("{}x=1{}", "{a=".repeat(9000), "}".repeat(9000));
        for assignment in [
            format!("process.{dots}y=1"),
            dots.clone(),
            format!("optim.lr={brackets}"),
            format!("optim.lr={tables}"),
            format!("optim.{}=1", "r".repeat(100_000)),
            format!("optim.lr={}", "9".repeat(100_000)),
            format!("{}=1", "optim.lr".repeat(30)),
            "=1".into(),
            "...=1".into(),
        ] {
            let error = set::<Plan>(&mut Table::new(), &assignment).unwrap_err();
            let text = error.to_string();
            assert!(error.is::<crate::Usage>() && text.len() < 600, "{text}");
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
            let error = layers::<Plan>(&[file.display().to_string()]).unwrap_err();
            assert!(error.is::<crate::Usage>(), "{error}");
            assert!(error.to_string().len() < 2000, "{error}");
        }
        // Text with brackets is text.
        let mut table = Table::new();
        set::<Plan>(&mut table, "data.path=[photos").unwrap();
        assert_eq!(plan::<Plan>(table).unwrap().data.path, "[photos");
    }

    #[test]
    fn keys_that_plans_leave_out_at_their_default_can_be_set() {
        let mut table = Table::new();
        set::<Plan>(&mut table, "process.prediction_type=v_prediction").unwrap();
        set::<Plan>(&mut table, "loss.distill_space=sample").unwrap();
        let plan: Plan = plan(table).unwrap();
        assert_eq!(plan.process.prediction_type, PredictionType::V);
        assert_eq!(plan.objective(true).distill_space, PredictionType::Sample);
        let text = toml::to_string(&Plan::default()).unwrap();
        assert!(!text.contains("prediction_type") && !text.contains("distill_space"));
        let mut table = Table::new();
        set::<Plan>(&mut table, "loss.distill_space=eps").unwrap();
        let error = super::plan::<Plan>(table).unwrap_err().to_string();
        assert!(
            error.contains("loss.distill_space") && error.contains("epsilon"),
            "{error}"
        );
    }

    #[test]
    fn unknown_keys_and_wrong_types_are_named() {
        let mut table = Table::new();
        let error = set::<Plan>(&mut table, "optim.lrr=1")
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("no key optim.lrr") && error.contains("optim.lr"),
            "{error}"
        );
        let error = set::<Plan>(&mut Table::new(), "optim.lr=fast")
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("optim.lr: expected a number, found \"fast\""),
            "{error}"
        );
        let error = set::<Plan>(&mut Table::new(), "loop.steps=1.5")
            .unwrap_err()
            .to_string();
        assert!(error.contains("expected a whole number"), "{error}");
        assert!(
            set::<Plan>(&mut Table::new(), "optim")
                .unwrap_err()
                .to_string()
                .contains("KEY=VALUE")
        );
        let mut table = Table::new();
        put(&mut table, "loss.weight", "snr-x");
        let error = plan::<Plan>(table).unwrap_err().to_string();
        assert!(
            error.contains("snr-x") && error.contains("loss.weight"),
            "{error}"
        );
        let mut table = Table::new();
        set::<Plan>(&mut table, "data.classes=[1, \"a\"]").unwrap();
        let error = plan::<Plan>(table).unwrap_err().to_string();
        assert!(error.starts_with("data.classes[1]"), "{error}");
        let error = layers::<Plan>(&["digit-sdft".into()])
            .unwrap_err()
            .to_string();
        assert!(error.contains("did you mean digits-sdft"), "{error}");
    }
}
