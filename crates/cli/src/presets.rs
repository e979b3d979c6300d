//! Presets of every kind of run, and the plan that a table of settings describes.

use crate::{assets, console};
use anyhow::Result;
use sdft_settings::{Plan, Presets, complete};
use toml::{Table, Value};

macro_rules! preset {
    ($name:literal) => {
        preset!($name, $name)
    };
    ($name:literal, $file:literal) => {
        (
            $name,
            include_str!(concat!("../../../assets/configs/", $file, ".toml")),
        )
    };
}

/// Presets of `train`.
pub(crate) const TRAINING: Presets = Presets(&[
    preset!("own-32"),
    preset!("own-64"),
    preset!("own-128"),
    preset!("own-256"),
    preset!("digits-sdft"),
    preset!("digits-naive"),
    preset!("digits-scratch"),
    preset!("digits-source"),
    preset!("metfaces-sdft"),
    preset!("aahq-sdft"),
]);

/// Presets of `train-classifier`.
pub(crate) const CLASSIFIERS: Presets = Presets(&[preset!("digits-classifier")]);

/// Presets of `edit train`.
pub(crate) const DIRECTIONS: Presets = Presets(&[
    preset!("smiling", "edit/smiling"),
    preset!("sad", "edit/sad"),
    preset!("angry", "edit/angry"),
    preset!("young", "edit/young"),
    preset!("old", "edit/old"),
    preset!("man", "edit/man"),
    preset!("woman", "edit/woman"),
    preset!("digits-3-to-2", "edit/digits-3-to-2"),
]);

/// The keys that only the embedded digits have, in every section of images.
const OF_DIGITS: [&str; 3] = ["style", "classes", "per_class"];

/// The plan that a checked table describes. Keys that only the digits have are dropped where images come from a folder, with a note.
pub(crate) fn plan<P: Plan>(table: Table) -> Result<P> {
    let mut all = complete::<P>(table.clone());
    let mut removed = Vec::new();
    drop_keys_of_digits(&mut all, "", &mut removed);
    removed.retain(|key| is_set(&table, key));
    if !removed.is_empty() {
        console::note(&format!(
            "ignored, because only the embedded digits have it and the images come from a folder: {}",
            removed.join(", ")
        ));
    }
    Ok(sdft_settings::plan(all)?)
}

/// Removes [`OF_DIGITS`] from sections whose images come from a folder, and adds the keys to `removed`.
fn drop_keys_of_digits(table: &mut Table, prefix: &str, removed: &mut Vec<String>) {
    let path = table.get("path").and_then(Value::as_str);
    if path.is_some_and(|path| !path.is_empty() && path != assets::DIGITS) {
        let gone = OF_DIGITS.iter().filter(|key| table.remove(**key).is_some());
        removed.extend(gone.map(|key| format!("{prefix}{key}")));
    }
    for (key, value) in table.iter_mut() {
        if let Value::Table(inner) = value {
            drop_keys_of_digits(inner, &format!("{prefix}{key}."), removed);
        }
    }
}

/// Whether a table has a value at a dotted key.
fn is_set(table: &Table, key: &str) -> bool {
    match key.split_once('.') {
        None => table.contains_key(key),
        Some((first, rest)) => {
            let inner = table.get(first).and_then(Value::as_table);
            inner.is_some_and(|inner| is_set(inner, rest))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sdft_settings::{layers, put};
    use sdft_train::{ClassifierPlan, DirectionPlan, Plan};

    #[test]
    fn every_preset_is_a_valid_configuration() {
        for name in TRAINING.names() {
            let mut table = layers::<Plan>(&TRAINING, &[name]).unwrap();
            let own = name.starts_with("own-");
            if name.starts_with("metfaces") || name.starts_with("aahq") {
                put(&mut table, "source", "source.pt");
            }
            if !name.starts_with("digits") {
                put(&mut table, "data.path", "images");
            }
            assert_eq!(own, !table.contains_key("name"), "{name}");
            let plan: Plan = plan(table).unwrap();
            assert!(own || plan.name == name, "{name}");
            assert_eq!(plan.warnings(), Vec::<String>::new(), "{name}");
            plan.validate().unwrap_or_else(|e| panic!("{name}: {e}"));
        }
    }

    #[test]
    fn settings_of_the_digits_do_not_reach_the_plan_of_a_folder() {
        let mut table = layers::<Plan>(&TRAINING, &["digits-sdft"]).unwrap();
        let digits = plan::<Plan>(table.clone()).unwrap();
        assert_eq!(digits.data.classes.as_deref(), Some(&[1, 4, 7][..]));
        put(&mut table, "data.path", "photos");
        let photos = plan::<Plan>(table).unwrap();
        let text = toml::to_string(&photos).unwrap();
        for key in OF_DIGITS {
            assert!(!text.contains(&format!("\n{key} = ")), "{key}: {text}");
        }
        assert_eq!(toml::from_str::<Plan>(&text).unwrap(), photos);
        // Both domains of a classifier, and the images of a direction.
        let mut table = layers::<ClassifierPlan>(&CLASSIFIERS, &["digits-classifier"]).unwrap();
        put(&mut table, "data.target.path", "photos");
        let both = plan::<ClassifierPlan>(table).unwrap().data;
        assert!(both.source.style.is_some() && both.source.per_class == Some(30));
        assert!(both.target.style.is_none() && both.target.classes.is_none());
        let mut table = layers::<DirectionPlan>(&DIRECTIONS, &["digits-3-to-2"]).unwrap();
        put(&mut table, "data.path", "photos");
        let data = plan::<DirectionPlan>(table).unwrap().data;
        assert_eq!(
            (data.style, data.classes, data.per_class),
            (None, None, None)
        );
    }
}
