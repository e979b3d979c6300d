//! Presets of every kind of run, and the plan that a table of settings describes.

use crate::context::Context;
use crate::embedded::{DIGITS, EMOJI};
use crate::error::Result;
use sdft_settings::{Plan, Presets, complete};
use std::collections::BTreeMap;
use toml::{Table, Value};

macro_rules! preset {
    ($name:literal) => {
        preset!($name, $name)
    };
    ($name:literal, $file:literal) => {
        ($name, sdft_assets::config($file))
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
    preset!("digits-dit-sdft"),
    preset!("digits-dit-naive"),
    preset!("digits-dit-source"),
    preset!("emoji-sdft"),
    preset!("emoji-naive"),
    preset!("emoji-scratch"),
    preset!("emoji-source"),
    preset!("metfaces-sdft"),
    preset!("aahq-sdft"),
    preset!("celebahq-sdft"),
    preset!("ffhq64-sdft"),
    preset!("celebahq-latent-sdft"),
    preset!("dit-sdft"),
    preset!("diff-tuning", "methods/diff-tuning"),
    preset!("dogfit", "methods/dogfit"),
    preset!("ddpm-pa", "methods/ddpm-pa"),
    preset!("ant", "methods/ant"),
    preset!("l2-sp", "methods/l2-sp"),
    preset!("ewc", "methods/ewc"),
    preset!("lora", "methods/lora"),
    preset!("difffit", "methods/difffit"),
    preset!("time-aware", "methods/time-aware"),
]);

/// Presets of [`TRAINING`] that are layers: methods of fine-tuning, to be given after a preset of images. Their names in order.
pub const METHODS: [&str; 9] = [
    "diff-tuning",
    "dogfit",
    "ddpm-pa",
    "ant",
    "l2-sp",
    "ewc",
    "lora",
    "difffit",
    "time-aware",
];

/// Presets of `train-classifier`.
pub const CLASSIFIERS: Presets =
    Presets(&[preset!("digits-classifier"), preset!("emoji-classifier")]);

/// Presets of `train-autoencoder`.
pub const AUTOENCODERS: Presets =
    Presets(&[preset!("autoencoder-digits"), preset!("autoencoder-emoji")]);

/// Presets of `edit train`.
pub const DIRECTIONS: Presets = Presets(&[
    preset!("smiling", "edit/smiling"),
    preset!("sad", "edit/sad"),
    preset!("angry", "edit/angry"),
    preset!("young", "edit/young"),
    preset!("old", "edit/old"),
    preset!("man", "edit/man"),
    preset!("woman", "edit/woman"),
    preset!("emoji-man-to-woman", "edit/emoji-man-to-woman"),
    preset!("emoji-light-to-dark", "edit/emoji-light-to-dark"),
    preset!("emoji-add-glasses", "edit/emoji-add-glasses"),
    preset!("digits-3-to-2", "edit/digits-3-to-2"),
    preset!("diffusionclip", "edit/diffusionclip"),
    preset!(
        "digits-3-to-2-diffusionclip",
        "edit/digits-3-to-2-diffusionclip"
    ),
]);

/// The keys that only embedded images have, in every section of images.
const OF_EMBEDDED: [&str; 5] = ["style", "classes", "per_class", "digits", "only"];

/// The keys of [`OF_EMBEDDED`] that the images at a path have, and what these images are.
fn keys_of(path: &str) -> (&'static [&'static str], &'static str) {
    match path {
        DIGITS => (
            &["style", "classes", "per_class", "digits"],
            "the embedded digits",
        ),
        EMOJI => (&["style", "only"], "the embedded emoji"),
        _ => (&[], "the images of a folder"),
    }
}

/// The plan that a checked table describes. Keys that its images do not have are dropped with a note.
pub(super) fn plan<P: Plan>(table: Table, context: &mut Context<'_>) -> Result<P> {
    let (plan, dropped) = resolve(table)?;
    let mut notes: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (key, images) in dropped {
        notes.entry(images).or_default().push(key);
    }
    for (images, keys) in notes {
        let keys = keys.join(", ");
        let note = format!("ignored, because {images} do not have it: {keys}");
        context.progress.note(&note);
    }
    Ok(plan)
}

/// [`plan`], and the keys that were set and dropped, each with its images.
fn resolve<P: Plan>(table: Table) -> Result<(P, Vec<(String, &'static str)>)> {
    let mut all = complete::<P>(table.clone());
    let mut dropped = Vec::new();
    drop_keys(&mut all, &table, "", &mut dropped);
    dropped.retain(|(key, _)| is_set(&table, key));
    Ok((sdft_settings::read(all)?, dropped))
}

/// Removes keys of [`OF_EMBEDDED`] from sections whose images do not have them, and adds them to `dropped`. `given` is what was set.
fn drop_keys(
    table: &mut Table,
    given: &Table,
    prefix: &str,
    dropped: &mut Vec<(String, &'static str)>,
) {
    let path = table.get("path").and_then(Value::as_str);
    if let Some(path) = path.filter(|path| !path.is_empty()) {
        let (own, images) = keys_of(path);
        let is_emoji = path == EMOJI;
        for key in OF_EMBEDDED.into_iter().filter(|key| !own.contains(key)) {
            // Anything but a list of digits says where the classes are.
            let is_place =
                key == "classes" && table.get(key).is_some_and(|value| !value.is_array());
            if !is_place && table.remove(key).is_some() {
                dropped.push((format!("{prefix}{key}"), images));
            }
        }
        let is_default = !is_set(given, &format!("{prefix}style"));
        if let (true, true, Some(style)) = (is_emoji, is_default, table.get_mut("style")) {
            // The default styles are those of the digits, of the source and of the target domain.
            let domain = if style.as_str() == Some("ember") {
                "fluent"
            } else {
                "noto"
            };
            *style = domain.into();
        }
    }
    for (key, value) in table.iter_mut() {
        if let Value::Table(inner) = value {
            drop_keys(inner, given, &format!("{prefix}{key}."), dropped);
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
    use sdft_directions::{DirectionPlan, TuningPlan};
    use sdft_first_stage::AutoencoderPlan;
    use sdft_settings::{layers, put};
    use sdft_train::RunPlan as _;

    #[test]
    fn every_preset_is_a_valid_configuration() {
        for name in TRAINING.names().filter(|name| !METHODS.contains(name)) {
            let mut table = layers::<TrainPlan>(&TRAINING, &[name]).unwrap();
            let own = name.starts_with("own-");
            let embedded = ["digits", "emoji"].iter().any(|set| name.starts_with(set));
            if !own && !embedded {
                put(&mut table, "source", "source.pt");
            }
            if !embedded {
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
    fn every_preset_of_an_autoencoder_is_a_valid_configuration() {
        for name in AUTOENCODERS.names() {
            let table = layers::<AutoencoderPlan>(&AUTOENCODERS, &[name]).unwrap();
            let (plan, dropped) = resolve::<AutoencoderPlan>(table).unwrap();
            assert_eq!((plan.name.as_str(), dropped.len()), (name, 0));
            plan.validate().unwrap();
            // In f16 the file is small enough to be embedded.
            let parameters = plan.config().cost(plan.size().sides()).parameters;
            assert!(parameters < 300_000, "{name}: {parameters}");
        }
    }

    #[test]
    fn every_method_is_a_layer_over_every_fine_tuning_of_embedded_images() {
        let named = TRAINING.names().filter(|name| METHODS.contains(name));
        assert!(named.eq(METHODS));
        for base in ["digits-naive", "digits-sdft", "emoji-naive", "emoji-sdft"] {
            for method in METHODS {
                let mut table = layers::<TrainPlan>(&TRAINING, &[base, method]).unwrap();
                if method == "ant" {
                    put(&mut table, "loss.ant.classifier", "classifier.safetensors");
                }
                let (plan, _) = resolve::<TrainPlan>(table).unwrap();
                validate(&plan).unwrap_or_else(|e| panic!("{base} {method}: {e}"));
                let plain = layers::<TrainPlan>(&TRAINING, &[base]).unwrap();
                assert_ne!(plan, resolve::<TrainPlan>(plain).unwrap().0, "{method}");
                let text = toml::to_string(&plan).unwrap();
                assert_eq!(toml::from_str::<TrainPlan>(&text).unwrap(), plan);
            }
        }
    }

    #[test]
    fn every_preset_of_an_edit_is_a_valid_configuration() {
        fn resolved<P: Plan>(name: &str) -> P {
            let mut table = layers::<P>(&DIRECTIONS, &[name]).unwrap();
            if !["digits", "emoji"].iter().any(|set| name.starts_with(set)) {
                put(&mut table, "source", "source.pt");
                put(&mut table, "data.path", "images");
            }
            if name == "diffusionclip" {
                put(&mut table, "goal.from", "face");
                put(&mut table, "goal.to", "smiling face");
            }
            resolve::<P>(table).unwrap().0
        }
        for name in DIRECTIONS.names() {
            let valid = match name.contains("diffusionclip") {
                true => {
                    let plan = resolved::<TuningPlan>(name);
                    assert_eq!(plan.name, name);
                    plan.validate_settings()
                }
                false => {
                    let plan = resolved::<DirectionPlan>(name);
                    assert_eq!(plan.name, name);
                    plan.validate_settings()
                }
            };
            valid.unwrap_or_else(|e| panic!("{name}: {e}"));
        }
        // The published settings are the defaults.
        let published = resolved::<TuningPlan>("diffusionclip");
        let defaults = TuningPlan::default();
        assert_eq!(published.walk, defaults.walk);
        assert_eq!(published.optim, defaults.optim);
        assert_eq!(published.pace, defaults.pace);
        assert_eq!(published.data.images, defaults.data.images);
        let weights = |plan: &TuningPlan| [plan.goal.clip, plan.goal.l1, plan.goal.identity];
        assert_eq!(weights(&published), weights(&defaults));
    }

    #[test]
    fn the_texts_of_asyrps_presets_serve_diffusionclip() {
        let names = ["diffusionclip", "smiling"];
        let table = layers::<TuningPlan>(&DIRECTIONS, &names).unwrap();
        let plan = resolve::<TuningPlan>(table).unwrap().0;
        assert_eq!(
            (plan.name.as_str(), plan.goal.to.as_str()),
            ("smiling", "smiling face")
        );
        // Texts bring their own epochs, unless the published settings come after them.
        for (names, epochs) in [(["diffusionclip", "sad"], 3), (["sad", "diffusionclip"], 5)] {
            let table = layers::<TuningPlan>(&DIRECTIONS, &names).unwrap();
            let plan = resolve::<TuningPlan>(table).unwrap().0;
            assert_eq!(
                (plan.goal.to.as_str(), plan.pace.epochs),
                ("sad face", epochs)
            );
        }
        // Settings of Asyrp are refused by name.
        let error = layers::<TuningPlan>(&DIRECTIONS, &["digits-3-to-2"]).unwrap_err();
        assert!(error.to_string().contains("no key walk.t_"), "{error}");
    }

    #[test]
    fn settings_of_embedded_images_do_not_reach_the_plan_of_a_folder() {
        let keys = |dropped: Vec<(String, &'static str)>| {
            dropped.into_iter().map(|(key, _)| key).collect::<Vec<_>>()
        };
        let mut table = layers::<TrainPlan>(&TRAINING, &["digits-sdft"]).unwrap();
        let (digits, dropped) = resolve::<TrainPlan>(table.clone()).unwrap();
        assert!(dropped.is_empty());
        assert_eq!(digits.data.chosen_digits(), [1, 4, 7]);
        put(&mut table, "data.path", "photos");
        let (photos, dropped) = resolve::<TrainPlan>(table).unwrap();
        assert_eq!(
            keys(dropped),
            ["data.style", "data.classes", "data.per_class"]
        );
        let text = toml::to_string(&photos).unwrap();
        for key in OF_EMBEDDED {
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

    #[test]
    fn each_embedded_set_has_its_own_settings() {
        let mut table = layers::<TrainPlan>(&TRAINING, &["emoji-sdft"]).unwrap();
        let (emoji, dropped) = resolve::<TrainPlan>(table.clone()).unwrap();
        assert!(dropped.is_empty());
        let only = emoji.data.only.clone().unwrap().0;
        assert_eq!(only["kind"], ["portrait"]);
        assert_eq!(emoji.data.style.as_deref(), Some("fluent"));
        let text = toml::to_string(&emoji).unwrap();
        assert_eq!(toml::from_str::<TrainPlan>(&text).unwrap(), emoji);
        put(&mut table, "data.digits", Value::Array(vec![1.into()]));
        let (_, dropped) = resolve::<TrainPlan>(table.clone()).unwrap();
        assert_eq!(dropped, [("data.digits".to_owned(), "the embedded emoji")]);
        for (path, images) in [
            ("digits", "the embedded digits"),
            ("photos", "the images of a folder"),
        ] {
            let mut table = table.clone();
            put(&mut table, "data.path", path);
            let (plan, dropped) = resolve::<TrainPlan>(table).unwrap();
            assert!(plan.data.only.is_none());
            assert!(
                dropped.contains(&("data.only".to_owned(), images)),
                "{dropped:?}"
            );
        }
        // The default styles of the digits' domains become those of the emoji's.
        let mut table = Table::new();
        put(&mut table, "data.source.path", "emoji");
        put(&mut table, "data.target.path", "emoji");
        let (plan, dropped) = resolve::<ClassifierPlan>(table).unwrap();
        assert!(dropped.is_empty());
        let styles = [plan.data.source.style, plan.data.target.style];
        assert_eq!(styles.map(Option::unwrap), ["noto", "fluent"]);
    }
}
