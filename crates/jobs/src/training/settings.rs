//! The settings of a new training run: options over a preset that fits them.

use super::networks::{AUGMENT_LABELS, TrainPlan};
use super::options::RunOptions;
use super::presets::TRAINING;
use super::run_name::name_after;
use crate::context::Context;
use crate::embedded::{DIGITS, EMOJI};
use crate::error::{Result, usage};
use sdft_adm::AdmConfig;
use sdft_diffusion::{Continuous, PredictionType};
use sdft_models::Architecture;
use sdft_settings::{assigned, layers, merge, put, set_all};
use sdft_train::{Method, Size};
use serde_json::{Map, Value as Json};
use toml::{Table, Value};

/// The default image size.
const USUAL_SIZE: usize = 64;
/// Options of a run that trains a diffusion model; the defaults are the embedded example of SDFT.
#[derive(Clone, Debug, Default)]
pub struct TrainOptions {
    /// Options of every run.
    pub run: RunOptions,
    /// The source model: a file, or the name of an embedded one.
    pub source: Option<String>,
    /// The part of the source file to take, if it holds several.
    pub source_key: Option<String>,
    /// The autoencoder in whose latents the network works, if it is not the source model's.
    pub autoencoder: Option<String>,
    /// The images: a folder, or the name of embedded ones.
    pub data: Option<String>,
    /// How to train.
    pub method: Option<Method>,
    /// Height and width of the images.
    pub size: Option<Size>,
    /// Where the classes of the images are: `folders`, or a CSV or JSON file.
    pub classes: Option<String>,
}

impl TrainOptions {
    /// The table of settings: presets and files, then options, then assignments. Without `config`, a preset that fits is chosen, with a
    /// note.
    ///
    /// # Errors
    /// [`Error::Settings`](crate::Error::Settings) for an unknown preset or key, or an invalid value.
    pub fn settings(&self, context: &mut Context<'_>) -> Result<Table> {
        let (table, note) = self.table()?;
        context.notes(note);
        Ok(table)
    }

    /// [`TrainOptions::settings`], with the note instead of a context.
    ///
    /// # Errors
    /// Those of [`TrainOptions::settings`].
    pub fn table(&self) -> Result<(Table, Option<String>)> {
        let asked = self.asked()?;
        let (configs, note) = self.configs(&asked);
        let mut table = layers::<TrainPlan>(&TRAINING, &configs)?;
        // A preset's name describes its own data and method.
        let is_named = table
            .get("name")
            .and_then(Value::as_str)
            .is_some_and(|name| !configs.iter().any(|config| config == name));
        let differs = text(&asked, &["data", "path"]).is_some() || asked.contains_key("method");
        merge::<TrainPlan>(&mut table, asked);
        set_all::<TrainPlan>(&mut table, &self.run.set)?;
        if !is_named && self.run.name.is_none() && !self.run.sets("name") {
            name_after(&mut table, self.data.as_deref(), &configs, differs);
        }
        Ok((table, note))
    }

    /// The presets and files of settings that the plan begins with, and a note if they were not named.
    pub(super) fn configs(&self, asked: &Table) -> (Vec<String>, Option<String>) {
        match self.run.config.is_empty() {
            true => fitting(asked),
            false => (self.run.config.clone(), None),
        }
    }

    /// The options as a table. Assignments are not checked, because the preset decides which keys there are.
    pub(super) fn asked(&self) -> Result<Table> {
        let mut table = Table::new();
        let method = self.method.map(|method| match method {
            Method::Scratch => "scratch",
            Method::Naive => "naive",
            Method::Sdft => "sdft",
        });
        let size = self.size.map(|size| size.to_string());
        let texts = [
            ("source", self.source.as_deref()),
            ("source_key", self.source_key.as_deref()),
            ("model.autoencoder.path", self.autoencoder.as_deref()),
            ("data.path", self.data.as_deref()),
            ("data.classes", self.classes.as_deref()),
            ("data.size", size.as_deref()),
            ("method", method),
        ];
        for (key, value) in texts {
            if let Some(value) = value {
                put(&mut table, key, value);
            }
        }
        self.run.apply_all_but_set(&mut table)?;
        merge::<TrainPlan>(&mut table, assigned(&self.run.set)?);
        Ok(table)
    }
}

/// The presets to start from where none is named, and a note on the choice.
fn fitting(asked: &Table) -> (Vec<String>, Option<String>) {
    let said = |path: &[&str]| text(asked, path).filter(|text| !text.is_empty());
    let (data, source) = (said(&["data", "path"]), said(&["source"]));
    let method = said(&["method"]);
    let at = |section: &str, key: &str| asked.get(section).and_then(|table| table.get(key));
    if source.is_none() && data.is_none_or(|data| [DIGITS, EMOJI].contains(&data)) {
        // An embedded example.
        let preset = format!("{}-{}", data.unwrap_or(EMOJI), method.unwrap_or("sdft"));
        return (vec![preset], None);
    }
    if source.is_none() && method.is_none_or(|method| method == "scratch") {
        let side = at("model", "image_size").and_then(Value::as_integer);
        let side = side.and_then(|side| usize::try_from(side).ok());
        let size = at("data", "size").and_then(|size| size.clone().try_into::<Size>().ok());
        let preset = own_preset(size.map(|size| size.height.max(size.width)).or(side));
        let others: Vec<&str> = own_presets()
            .map(|(_, name)| name)
            .filter(|name| *name != preset)
            .collect();
        let note = format!(
            "no --source and no --config: training from random weights with the preset {preset} (others: {}); --dry-run estimates the \
             time. With few images, fine-tuning a model of similar images gives better results: --source FILE, or a name such as ffhq-10m",
            others.join(", ")
        );
        return (vec![preset.to_owned()], Some(note));
    }
    let note = source.filter(|_| data.is_some()).map(|_| {
        let steps = match at("loop", "steps") {
            Some(_) => "",
            None => " (80000 steps of 8 images; --steps N for fewer)",
        };
        format!("no --config: using the paper's settings for everything that is not given{steps}")
    });
    (Vec::new(), note)
}

/// The presets for a user's own images with their sizes, in ascending order.
fn own_presets() -> impl Iterator<Item = (usize, &'static str)> {
    TRAINING.names().filter_map(|name| {
        let size = name.strip_prefix("own-")?.parse().ok()?;
        Some((size, name))
    })
}

/// The preset for images of a size: the next larger one, or the largest.
fn own_preset(size: Option<usize>) -> &'static str {
    let size = size.unwrap_or(USUAL_SIZE);
    let mut last = "";
    for (of, name) in own_presets() {
        last = name;
        if of >= size {
            break;
        }
    }
    last
}

fn text<'a>(table: &'a Table, path: &[&str]) -> Option<&'a str> {
    let (first, rest) = path.split_first()?;
    let value = table.get(*first)?;
    match rest {
        [] => value.as_str(),
        _ => text(value.as_table()?, rest),
    }
}

/// Gives a new network the size, the channels and the augmentation labels of the images that the plan asks for.
///
/// # Errors
/// Channels that contradict those of the network.
pub(super) fn fit_to_images(plan: &mut TrainPlan, given: &Map<String, Json>) -> Result<()> {
    let mut architecture = plan.model.architecture.clone();
    let config = plan.model.autoencoder_config();
    if config.is_some() && plan.data.size.is_none() {
        return Err(usage(
            "data.size: expected the size of the images in pixels, because that of the network is the size of their latents; give --size PIXELS"
                .to_owned(),
        ));
    }
    if let Some(size) = plan.data.size {
        let factor = plan.model.factor();
        architecture = architecture.with_size(size.sides().map(|side| side / factor));
    }
    let channels = match config {
        Some(config) => Some(config.latent_channels()),
        None => plan.data.channels,
    };
    if let Some(channels) = channels {
        let field = ["in_channels", "img_channels"]
            .into_iter()
            .find(|field| given.get(*field).is_some_and(|value| *value != channels));
        if let Some(field) = field {
            return Err(usage(format!(
                "{}: expected model.{field}, which is {}, found {channels}; drop one of them",
                if config.is_some() {
                    "model.autoencoder"
                } else {
                    "data.channels"
                },
                given[field]
            )));
        }
        architecture = architecture.with_channels(channels);
    }
    let is_given = given
        .get("model")
        .and_then(|model| model.get("augment_dim"))
        .is_some();
    if plan.data.augment > 0.0 && !is_given {
        architecture = architecture.with_augment_dim(AUGMENT_LABELS);
    }
    plan.model.architecture = architecture;
    Ok(())
}

/// Sets levels and attention from the image size where the settings do not set them.
pub(super) fn fit_architecture(architecture: &mut Architecture, given: &Map<String, Json>) {
    let (Architecture::Adm(model) | Architecture::AdmEdm(model)) = architecture else {
        return;
    };
    if !given.contains_key("channel_mult") {
        model.channel_mult = AdmConfig::channel_mult_for(model.image_size);
    }
    if !given.contains_key("attention_resolutions") {
        model.attention_resolutions = AdmConfig::attention_for(model.image_size, model.levels());
    }
}

/// The process of a new network with EDM's preconditioning, or of a flow, is continuous.
pub(super) fn fit_process(plan: &mut TrainPlan) {
    if let (Some(precond), None) = (plan.model.precond(), plan.process.continuous) {
        plan.process.continuous = Some(Continuous::of(&precond));
        plan.process.prediction_type = PredictionType::Sample;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::training::networks::validate;
    use crate::training::run_name::LONGEST;
    use sdft_settings::given;

    /// Options from pairs of a command line's option and its value.
    fn options(words: &[&str]) -> TrainOptions {
        let mut options = TrainOptions::default();
        for pair in words.chunks(2) {
            let value = pair[1].to_owned();
            match pair[0] {
                "--config" => options.run.config.push(value),
                "--data" => options.data = Some(value),
                "--method" => options.method = Some(toml::Value::String(value).try_into().unwrap()),
                "--name" => options.run.name = Some(value),
                "--seed" => options.run.seed = value.parse().ok(),
                "--set" => options.run.set.push(value),
                "--source" => options.source = Some(value),
                other => panic!("{other}"),
            }
        }
        options
    }

    fn adm(plan: &TrainPlan) -> &AdmConfig {
        plan.model.adm().expect("an ADM network")
    }

    fn resolve(words: &[&str]) -> (TrainPlan, Option<String>) {
        let (table, note) = options(words).table().unwrap();
        let given = given(&table, "model");
        let mut plan: TrainPlan = sdft_settings::plan(table).unwrap();
        fit_architecture(&mut plan.model, &given);
        (plan, note)
    }

    #[test]
    fn data_without_a_source_trains_from_random_weights_with_a_note() {
        let (plan, note) = resolve(&["--data", "photos/"]);
        let note = note.unwrap();
        assert_eq!(validate(&plan), Ok(()));
        assert_eq!(plan.method, sdft_train::Method::Scratch);
        assert_eq!(
            (plan.name.as_str(), plan.model.image_size()),
            ("photos-scratch", 64)
        );
        for words in [
            "own-64",
            "own-32, own-128, own-256",
            "--source",
            "--dry-run",
        ] {
            assert!(note.contains(words), "{words}: {note}");
        }
        let (plan, _) = resolve(&["--data", "photos", "--set", "model.image_size=32"]);
        assert_eq!((adm(&plan).levels(), plan.steps.steps), (4, 20_000));
        let (plan, _) = resolve(&[
            "--data",
            "p",
            "--method",
            "scratch",
            "--set",
            "model.image_size=1024",
        ]);
        assert_eq!((plan.model.image_size(), adm(&plan).levels()), (1024, 7));
        let (plan, note) = resolve(&["--data", "photos", "--source", "faces.pt"]);
        assert_eq!((plan.name.as_str(), plan.optim.lr), ("photos-sdft", 2e-5));
        assert!(
            plan.optim.ema_ramp
                && note
                    .as_ref()
                    .is_some_and(|note| note.contains("80000 steps")),
            "{note:?}"
        );
        assert_eq!(resolve(&[]).1, None);
    }

    #[test]
    fn settings_of_images_are_read_and_misspelled_ones_get_a_suggestion() {
        let (plan, _) = resolve(&[
            "--config",
            "digits-scratch",
            "--set",
            "data.size=24x16",
            "--set",
            "data.depth=16",
            "--set",
            "data.classes=folders",
            "--set",
            "data.digits=[1,4]",
            "--set",
            "data.range=[0,4095]",
            "--set",
            "loss.label_dropout=0.2",
            "--set",
            "model.adapt_channels=false",
        ]);
        assert_eq!(plan.data.size, Some(Size::new(24, 16)));
        assert_eq!(plan.data.chosen_digits(), [1, 4]);
        assert!(plan.data.classes_from().is_some() && !plan.model.adapt_channels);
        let text = toml::to_string(&plan).unwrap();
        assert_eq!(toml::from_str::<TrainPlan>(&text).unwrap(), plan);
        let (plan, _) = resolve(&["--config", "digits-scratch", "--set", "data.classes=[2]"]);
        assert_eq!(plan.data.chosen_digits(), [2]);
        for (slip, meant) in [
            ("data.chanels=1", "data.channels"),
            ("data.augmnt=0.1", "data.augment"),
            ("loss.label_drop=0.1", "loss.label_dropout"),
        ] {
            let error = options(&["--config", "digits-scratch", "--set", slip])
                .table()
                .unwrap_err()
                .to_string();
            assert!(error.contains(&format!("did you mean {meant}?")), "{error}");
        }
        let error = options(&["--config", "digits-scratch", "--set", "data.size=big"]).table();
        let error = sdft_settings::plan::<TrainPlan>(error.unwrap().0);
        let error = error.unwrap_err().to_string();
        assert!(
            error.contains("data.size") && error.contains("HEIGHTxWIDTH"),
            "{error}"
        );
    }

    #[test]
    fn a_new_network_follows_size_and_channels_of_its_images() {
        let words = ["--data", "p", "--set", "data.size=96x128"];
        let (plan, note) = resolve(&words);
        assert!(note.unwrap().contains("own-128"));
        let mut plan = plan;
        plan.data.channels = Some(1);
        fit_to_images(&mut plan, &Map::new()).unwrap();
        assert_eq!(
            (plan.model.image_size(), plan.model.in_channels()),
            (128, 1)
        );
        assert!(plan.model.learns_variance());
        assert_eq!(validate(&plan), Ok(()));
        plan.data.size = Some(Size::new(100, 128));
        let error = validate(&plan).unwrap_err();
        assert!(
            error.key == "data.size" && error.problem.contains("96x128"),
            "{error}"
        );
        let mut given = Map::new();
        given.insert("in_channels".into(), 3.into());
        assert!(fit_to_images(&mut plan, &given).unwrap_err().is_usage());
    }

    #[test]
    fn the_architecture_follows_the_image_size_unless_it_is_set() {
        let config = [
            "--config",
            "metfaces-sdft",
            "--method",
            "scratch",
            "--data",
            "p",
        ];
        let (plan, _) = resolve(&config);
        assert_eq!(*plan.model, Architecture::default());
        for (size, levels) in [("128", 5), ("64", 4), ("32", 4)] {
            let set = format!("model.image_size={size}");
            let (plan, _) = resolve(&[&config[..], &["--set", &set]].concat());
            assert_eq!(adm(&plan).levels(), levels);
            assert_eq!(validate(&plan), Ok(()));
        }
        let set = [
            "--set",
            "model.image_size=32",
            "--set",
            "model.channel_mult=[1.0, 2.0]",
        ];
        let (plan, _) = resolve(&[&config[..], &set].concat());
        assert_eq!(adm(&plan).channel_mult, [1.0, 2.0]);
        assert_eq!(adm(&plan).attention_resolutions, [2]);
        let (plan, _) = resolve(&["--config", "digits-scratch"]);
        assert_eq!(adm(&plan).channel_mult, [1.0, 1.0, 2.0]);
    }

    #[test]
    fn a_run_is_named_after_its_data_and_method_unless_it_has_a_name() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("mine.toml");
        std::fs::write(&file, "name = \"mine\"\n").unwrap();
        let file = file.display().to_string();
        let long = "x".repeat(250);
        for (more, name) in [
            (&["--config", "metfaces-sdft"][..], "metfaces-sdft"),
            (
                &["--config", "metfaces-sdft", "--data", "a/photos"],
                "photos-sdft",
            ),
            (
                &["--config", "digits-sdft", "--data", ".hidden"],
                "hidden-sdft",
            ),
            (
                &["--config", "digits-sdft", "--method", "naive"],
                "digits-naive",
            ),
            (
                &["--config", "own-32", "--data", "photos"],
                "photos-scratch",
            ),
            (&["--data", "photos", "--name", "it"], "it"),
            (&["--data", "photos", "--set", "name=it"], "it"),
            (&["--config", &file, "--data", "photos"], "mine"),
            (
                &["--config", "digits-source", "--seed", "3"],
                "digits-source",
            ),
            (&["--method", "naive"], "emoji-naive"),
            (&["--data", "digits"], "digits-sdft"),
            (&["--data", "emoji"], "emoji-sdft"),
            (&["--data", "emoji", "--method", "naive"], "emoji-naive"),
            (
                &["--config", "digits-naive", "--config", "dogfit"],
                "digits-dogfit",
            ),
            (
                &[
                    "--config",
                    "digits-sdft",
                    "--config",
                    "ewc",
                    "--config",
                    "lora",
                ],
                "digits-sdft-ewc-lora",
            ),
            (
                &[
                    "--config",
                    "emoji-naive",
                    "--config",
                    "ewc",
                    "--data",
                    "photos",
                ],
                "photos-ewc",
            ),
            (&["--config", &file, "--config", "lora"], "mine"),
            (&["--data", "/"], "run-scratch"),
            (&["--data", &long], &format!("{}-scratch", &long[..LONGEST])),
        ] {
            assert_eq!(resolve(more).0.name, name, "{more:?}");
        }
    }
}
