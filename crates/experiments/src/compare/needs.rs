//! What a comparison needs, found before anything is trained.

use super::CompareOptions;
use super::config::Comparison;
use sdft_data::ImageSource;
use sdft_features::Network;
use sdft_jobs::{
    Context, Error, Files, Form, ModelFile, Result, fingerprint, load_model, open_data, train_plan,
};
use sdft_models::LoadOptions;
use sdft_settings::given;
use sdft_train::DataPlan;
use std::path::Path;
use std::sync::Arc;
use toml::{Table, Value};

/// The inputs of a comparison.
pub(super) struct Inputs {
    /// Settings of every method: source model, images, and those of the options.
    pub(super) settings: Vec<String>,
    /// The source model and its hash.
    pub(super) source: String,
    pub(super) source_sha256: String,
    /// What its file does not state.
    pub(super) load: LoadOptions,
    /// The target images.
    pub(super) data: DataPlan,
    pub(super) images: Arc<dyn ImageSource>,
    pub(super) fingerprint: String,
    /// The preset of the classifier of embedded images, if a method needs one and names none.
    pub(super) classifier: Option<&'static str>,
    /// Inception's weights; none for embedded images.
    pub(super) inception: Files,
}

impl Inputs {
    /// # Errors
    /// [`Error::Usage`] with the list of everything that is missing.
    pub(super) fn find(
        comparison: &Comparison,
        options: &CompareOptions,
        context: &mut Context<'_>,
    ) -> Result<Self> {
        let path = |key: &str, value: &Option<String>| {
            value
                .as_ref()
                .map(|value| format!("{key}={}", Value::String(value.clone())))
        };
        let settings: Vec<String> = path("source", &options.source)
            .into_iter()
            .chain(path("data.path", &options.data))
            .chain(options.set.iter().cloned())
            .collect();
        let tables = comparison
            .method
            .iter()
            .map(|entry| comparison.settings(entry, &settings))
            .collect::<Result<Vec<_>>>()?;
        let first = tables.first().cloned().unwrap_or_default();
        let text = |table: &Table, keys: [&str; 2]| -> String {
            let section = match keys[0] {
                "" => Some(table),
                key => table.get(key).and_then(Value::as_table),
            };
            let value = section.and_then(|section| section.get(keys[1]));
            value.and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let (source, data) = (text(&first, ["", "source"]), text(&first, ["data", "path"]));
        let is_embedded = sdft_jobs::is_embedded(&data);
        let mut missing = Vec::new();
        if source.is_empty() {
            missing.push("--source FILE: the source model, for example ffhq-10m".to_owned());
        } else if !sdft_jobs::is_embedded(&source) && !Path::new(&source).exists() {
            missing.push(format!("--source {source}: there is no such file"));
        }
        if data.is_empty() {
            missing.push("--data DIR: the target images".to_owned());
        } else if !is_embedded && !Path::new(&data).is_dir() {
            missing.push(format!("--data {data}: there is no such folder"));
        }
        let unnamed = tables.iter().any(needs_classifier);
        let classifier = match data.as_str() {
            _ if !unnamed => None,
            sdft_jobs::DIGITS => Some("digits-classifier"),
            sdft_jobs::EMOJI => Some("emoji-classifier"),
            _ => {
                missing.push("--set loss.ant.classifier=FILE: the classifier of ANT, as train-classifier writes it".to_owned());
                None
            }
        };
        let mut inception = Files::default();
        if !is_embedded {
            match options
                .weights
                .of(Network::Inception, "give --weights inception=FILE")
            {
                Ok(files) => inception = files,
                Err(error) => missing.push(error.to_string()),
            }
        }
        if !missing.is_empty() {
            return Err(Error::Usage(format!(
                "{}: missing\n  {}",
                comparison.name,
                missing.join("\n  ")
            )));
        }
        let source = ModelFile::find_lasting(&source)?.noted(context);
        for (entry, table) in comparison.method.iter().zip(&tables) {
            for key in ["source", "source_key", "data", "model", "process"] {
                if table.get(key) != first.get(key) {
                    return Err(Error::Usage(format!(
                        "{}: method {:?}: expected the {key} of the first method, because all are measured alike",
                        comparison.name, entry.label
                    )));
                }
            }
        }
        let mut fields = given(&first, "model");
        fields.remove("adapt_channels");
        let key = text(&first, ["", "source_key"]);
        let load = LoadOptions {
            given: fields,
            given_process: given(&first, "process"),
            key: (!key.is_empty()).then_some(key),
            ..LoadOptions::default()
        };
        let plan = train_plan(first, context)?;
        let model = load_model(&source, &load)?;
        let images = open_data(&plan.data, &Form::of(&model.image), context)?;
        Ok(Self {
            settings,
            source,
            source_sha256: model.sha256,
            load,
            data: plan.data,
            fingerprint: fingerprint(images.as_ref())?,
            images,
            classifier,
            inception,
        })
    }
}

/// Whether these settings need a classifier and name none.
pub(super) fn needs_classifier(settings: &Table) -> bool {
    let ant = settings
        .get("loss")
        .and_then(|loss| loss.get("ant"))
        .and_then(Value::as_table);
    let Some(ant) = ant else { return false };
    let guidance = ant.get("guidance").and_then(|value| match value {
        Value::Integer(n) => Some(*n as f64),
        value => value.as_float(),
    });
    let is_named = ant
        .get("classifier")
        .and_then(Value::as_str)
        .is_some_and(|file| !file.is_empty());
    guidance.unwrap_or(0.0) > 0.0 && !is_named
}
