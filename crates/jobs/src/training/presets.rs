//! Presets of every kind of run, and the plan that a table of settings describes.

use crate::context::Context;
use crate::embedded::DIGITS;
use crate::error::Result;
use sdft_settings::{Plan, Presets, complete};
use toml::{Table, Value};

macro_rules! preset {
    ($name:literal) => {
        preset!($name, $name)
    };
    ($name:literal, $file:literal) => {
        (
            $name,
            include_str!(concat!("../../../../assets/configs/", $file, ".toml")),
        )
    };
}

/// Presets of `train`.
pub const TRAINING: Presets = Presets(&[
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
    preset!("celebahq-sdft"),
    preset!("ffhq64-sdft"),
]);

/// Presets of `train-classifier`.
pub const CLASSIFIERS: Presets = Presets(&[preset!("digits-classifier")]);

/// Presets of `edit train`.
pub const DIRECTIONS: Presets = Presets(&[
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
const OF_DIGITS: [&str; 4] = ["style", "classes", "per_class", "digits"];

/// The plan that a checked table describes. Keys that only the digits have are dropped where images come from a folder, with a note.
pub(super) fn plan<P: Plan>(table: Table, context: &mut Context<'_>) -> Result<P> {
    let (plan, dropped) = resolve(table)?;
    if !dropped.is_empty() {
        context.progress.note(&format!(
            "left out, because only the embedded digits have it and the images come from a folder: {}",
            dropped.join(", ")
        ));
    }
    Ok(plan)
}

/// [`plan`], and the keys that were set and dropped.
fn resolve<P: Plan>(table: Table) -> Result<(P, Vec<String>)> {
    let mut all = complete::<P>(table.clone());
    let mut dropped = Vec::new();
    drop_keys_of_digits(&mut all, "", &mut dropped);
    dropped.retain(|key| is_set(&table, key));
    Ok((sdft_settings::read(all)?, dropped))
}

/// Removes [`OF_DIGITS`] from sections whose images come from a folder, and adds the keys to `dropped`.
fn drop_keys_of_digits(table: &mut Table, prefix: &str, dropped: &mut Vec<String>) {
    let path = table.get("path").and_then(Value::as_str);
    if path.is_some_and(|path| !path.is_empty() && path != DIGITS) {
        let is_of_digits = |key: &str| match table.get(key) {
            // Anything but a list of digits says where the classes of a folder are.
            Some(value) => key != "classes" || value.is_array(),
            None => false,
        };
        let gone: Vec<&str> = OF_DIGITS
            .into_iter()
            .filter(|key| is_of_digits(key))
            .collect();
        for key in &gone {
            table.remove(*key);
        }
        let gone = gone.iter();
        dropped.extend(gone.map(|key| format!("{prefix}{key}")));
    }
    for (key, value) in table.iter_mut() {
        if let Value::Table(inner) = value {
            drop_keys_of_digits(inner, &format!("{prefix}{key}."), dropped);
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
    use crate::training::TrainPlan;
    use crate::training::networks::validate;
    use sdft_classifier::ClassifierPlan;
    use sdft_directions::DirectionPlan;
    use sdft_settings::{layers, put};

    #[test]
    fn every_preset_is_a_valid_configuration() {
        for name in TRAINING.names() {
            let mut table = layers::<TrainPlan>(&TRAINING, &[name]).unwrap();
            let own = name.starts_with("own-");
            if !own && !name.starts_with("digits") {
                put(&mut table, "source", "source.pt");
            }
            if !name.starts_with("digits") {
                put(&mut table, "data.path", "images");
            }
            assert_eq!(own, !table.contains_key("name"), "{name}");
            let (plan, _) = resolve::<TrainPlan>(table).unwrap();
            assert!(own || plan.name == name, "{name}");
            assert_eq!(plan.warnings(), Vec::<String>::new(), "{name}");
            validate(&plan).unwrap_or_else(|e| panic!("{name}: {e}"));
        }
    }

    #[test]
    fn settings_of_the_digits_do_not_reach_the_plan_of_a_folder() {
        let mut table = layers::<TrainPlan>(&TRAINING, &["digits-sdft"]).unwrap();
        let (digits, dropped) = resolve::<TrainPlan>(table.clone()).unwrap();
        assert!(dropped.is_empty());
        assert_eq!(digits.data.chosen_digits(), [1, 4, 7]);
        put(&mut table, "data.path", "photos");
        let (photos, dropped) = resolve::<TrainPlan>(table).unwrap();
        assert_eq!(dropped, ["data.style", "data.classes", "data.per_class"]);
        let text = toml::to_string(&photos).unwrap();
        for key in OF_DIGITS {
            assert!(!text.contains(&format!("\n{key} = ")), "{key}: {text}");
        }
        assert_eq!(toml::from_str::<TrainPlan>(&text).unwrap(), photos);
        // Both domains of a classifier, and the images of a direction.
        let mut table = layers::<ClassifierPlan>(&CLASSIFIERS, &["digits-classifier"]).unwrap();
        put(&mut table, "data.target.path", "photos");
        let both = resolve::<ClassifierPlan>(table).unwrap().0.data;
        assert!(both.source.style.is_some() && both.source.per_class == Some(30));
        assert!(both.target.style.is_none() && both.target.classes.is_none());
        let mut table = layers::<DirectionPlan>(&DIRECTIONS, &["digits-3-to-2"]).unwrap();
        put(&mut table, "data.path", "photos");
        let data = resolve::<DirectionPlan>(table).unwrap().0.data;
        assert_eq!(
            (data.style, data.classes, data.per_class),
            (None, None, None)
        );
    }
}
