//! Finds and loads the model of a name or path.

use crate::context::Context;
use crate::embedded::{
    DIGITS_AUTOENCODER, DIGITS_DIT_SOURCE, embedded_autoencoder, embedded_model,
};
use crate::error::{Error, Result, ResultExt as _, failed, option, usage};
use sdft_adm::Origin;
use sdft_autoencoder::AutoencoderConfig;
use sdft_diffusion::Process;
use sdft_imaging::ImageSpec;
use sdft_models::{
    Architecture, AutoencoderOptions, LoadOptions, LoadedAutoencoder, LoadedModel, inspect_file,
    load_autoencoder_bytes, load_network, load_network_bytes,
};
use sdft_train::{Size, model_of_run, runs_near, verify_recorded};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

/// The file of a model, and notes about the choice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelFile {
    /// The file, or the name of an embedded model.
    pub path: String,
    /// Skipped files and why.
    pub notes: Vec<String>,
}

impl ModelFile {
    /// Finds the file of a model. A run folder stands for its finished model or else its newest complete checkpoint, a checkpoint for its
    /// averaged weights, a folder of diffusers for its weights. Other paths are returned unchanged. Recorded hashes are compared.
    ///
    /// # Errors
    /// The folder holds no model, the file does not exist, or it differs from its recorded hash.
    pub fn find(name: &str) -> Result<Self> {
        let path = Path::new(name);
        let plain = |path: String| Self {
            path,
            notes: Vec::new(),
        };
        if path.is_dir() {
            if let Some(weights) = sdft_models::folder_weights(path)? {
                return Ok(plain(weights.display().to_string()));
            }
            let Some(model) = model_of_run(path)? else {
                return Err(failed(format!(
                    "{name}: no model in this folder; expected a finished run, a checkpoint, or a folder of diffusers (model_index.json, or weights with config.json){}",
                    hint(path)
                )));
            };
            return Ok(Self {
                path: model.path.display().to_string(),
                notes: model.notes,
            });
        }
        if path.is_file() {
            verify_recorded(path).with_context(|| {
                format!("{name}: take another file, or remove its line from SHA256SUMS if you changed it yourself")
            })?;
        }
        if embedded_model(name).is_none()
            && !path.exists()
            && let Some(runs) = runs_near(path)
        {
            return Err(failed(format!("{name}: no such file or run; {runs}")));
        }
        Ok(plain(name.to_owned()))
    }

    /// As [`ModelFile::find`], for a model that a run needs again when it is continued.
    ///
    /// # Errors
    /// As [`ModelFile::find`].
    pub fn find_lasting(name: &str) -> Result<Self> {
        let mut file = Self::find(name)?;
        let mut parts = Path::new(&file.path).components();
        if parts.any(|part| part.as_os_str() == "checkpoints") {
            file.notes.push(format!(
                "{}: a checkpoint of a run, which may be removed as that run continues; keep a copy, or this run cannot be continued",
                file.path
            ));
        }
        Ok(file)
    }

    /// Passes the notes on to the caller, and returns the path.
    pub fn noted(self, context: &mut Context<'_>) -> String {
        context.notes(self.notes);
        self.path
    }
}

/// The runs near a path without one.
pub(crate) fn hint(path: &Path) -> String {
    runs_near(path).map_or_else(String::new, |runs| format!("; {runs}"))
}

/// The run in `folder` whose finished model was written last.
pub fn newest_run(folder: &Path) -> Option<PathBuf> {
    let finished = |entry: std::fs::DirEntry| -> Option<(SystemTime, PathBuf)> {
        let path = entry.path().join("final.safetensors");
        // The folder may hold classifiers, too.
        let found = inspect_file(&path, &LoadOptions::default())
            .ok()?
            .resolved
            .ok()?;
        if found.pool.is_some() {
            return None;
        }
        Some((path.metadata().ok()?.modified().ok()?, entry.path()))
    };
    let newest = std::fs::read_dir(folder)
        .ok()?
        .filter_map(|entry| finished(entry.ok()?))
        .max()?;
    Some(newest.1)
}

/// Loads the model in a file, or an embedded one.
///
/// # Errors
/// The file cannot be read, or does not hold a model that fits the options.
pub fn load_model(name: &str, options: &LoadOptions) -> Result<LoadedModel> {
    if let Some(bytes) = embedded_model(name) {
        let mut options = options.clone();
        if options.autoencoder.is_none() {
            options.autoencoder = autoencoder_of_embedded(name)?;
        }
        return Ok(load_network_bytes(name, bytes, &options)?);
    }
    Ok(load_network(Path::new(name), options)?)
}

/// The autoencoder of an embedded model that works on latents.
///
/// # Errors
/// The embedded file is damaged.
pub fn autoencoder_of_embedded(name: &str) -> Result<Option<Arc<LoadedAutoencoder>>> {
    let is_latent = name == DIGITS_DIT_SOURCE;
    is_latent
        .then(|| load_autoencoder(DIGITS_AUTOENCODER))
        .transpose()
}

/// The autoencoder in a file or folder, of a finished run, or an embedded one. Recorded hashes are compared.
///
/// # Errors
/// The file cannot be read, is not an autoencoder, or differs from its recorded hash; a run that is not finished.
pub fn load_autoencoder(name: &str) -> Result<Arc<LoadedAutoencoder>> {
    let options = AutoencoderOptions::default();
    if let Some(bytes) = embedded_autoencoder(name) {
        return Ok(Arc::new(load_autoencoder_bytes(name, bytes, &options)?));
    }
    let file = autoencoder_file(name)?;
    let mut loaded = sdft_models::load_autoencoder(Path::new(&file.path), &options)?;
    loaded.notes.splice(0..0, file.notes);
    Ok(Arc::new(loaded))
}

/// The file of an autoencoder: the finished one of a run, or the path itself.
///
/// # Errors
/// A run that is not finished, or a file that differs from its recorded hash.
fn autoencoder_file(name: &str) -> Result<ModelFile> {
    let path = Path::new(name);
    let checkpoint = |mut notes: Vec<String>| {
        notes.insert(
            0,
            format!(
                "{name}: expected a finished run of train-autoencoder, found a checkpoint: the scale of the latents is measured when the run \
                 ends; continue it with train-autoencoder --resume"
            ),
        );
        Err(failed(notes.join("; ")))
    };
    if !path.is_dir() {
        return match is_checkpoint(sdft_files::parent_of(path)) {
            true => checkpoint(Vec::new()),
            false => ModelFile::find(name),
        };
    }
    let Some(run) = model_of_run(path)? else {
        // A folder of diffusers.
        return Ok(ModelFile {
            path: name.to_owned(),
            notes: Vec::new(),
        });
    };
    if run.path.parent() != Some(path) || is_checkpoint(path) {
        return checkpoint(run.notes);
    }
    Ok(ModelFile {
        path: run.path.display().to_string(),
        notes: run.notes,
    })
}

/// Whether a folder is a checkpoint of a run.
fn is_checkpoint(folder: &Path) -> bool {
    folder.join("ema.safetensors").is_file()
}

/// Loads a model and passes its notes on.
///
/// # Errors
/// As [`load_model`].
pub fn load_source(
    name: &str,
    options: &LoadOptions,
    context: &mut Context<'_>,
) -> Result<LoadedModel> {
    let model = load_model(name, options)?;
    context.notes(&model.notes);
    Ok(model)
}

/// The options of a source model: the part of its file, which the reader chooses if `key` is empty, and what the user gave.
pub(crate) fn source_options(
    key: &str,
    given: Map<String, Value>,
    given_process: Map<String, Value>,
) -> LoadOptions {
    LoadOptions {
        given,
        given_process,
        key: (!key.is_empty()).then(|| key.to_owned()),
        ..LoadOptions::default()
    }
}

/// Loads a model that is used with `model`, and whose file may state neither its process nor its image size. Returns its path, too, and
/// passes its notes on.
///
/// # Errors
/// As [`ModelFile::find`] and [`load_model`].
pub(crate) fn load_partner(
    name: &str,
    model: &LoadedModel,
    context: &mut Context<'_>,
) -> Result<(String, LoadedModel)> {
    let path = ModelFile::find(name)?.noted(context);
    let mut partner = load_model(&path, &options_of_partner(model))?;
    if partner.origins.get("image_size") == Some(&Origin::Assumed) {
        partner = load_model(&path, &options_of_partner_with_size(model))?;
    }
    context.notes(&partner.notes);
    Ok((path, partner))
}

/// Options for a network that is used with `model`, and whose file may not state its process.
pub(crate) fn options_of_partner(model: &LoadedModel) -> LoadOptions {
    // Files without a process are official ones, which predict the noise whatever `model` predicts.
    LoadOptions {
        process_otherwise: Some(model.process.discrete()),
        autoencoder_otherwise: model.autoencoder.clone(),
        ..LoadOptions::default()
    }
}

/// As [`options_of_partner`], for a file that does not state its image size either.
pub(crate) fn options_of_partner_with_size(model: &LoadedModel) -> LoadOptions {
    let size = model.architecture.image_size().into();
    LoadOptions {
        given: Map::from_iter([("image_size".to_owned(), size)]),
        ..options_of_partner(model)
    }
}

/// Fails unless the model in `path`, of option `name`, has the noise and the autoencoder of `model`: both are called for the same noised
/// states.
///
/// # Errors
/// Another noise schedule, another number of steps, or another autoencoder.
pub(crate) fn check_same_noise(
    name: &'static str,
    path: &str,
    partner: &LoadedModel,
    model: &LoadedModel,
) -> Result<()> {
    let of = |model: &LoadedModel| model.autoencoder_sha256();
    if of(partner) != of(model) {
        let shown = |model| of(model).unwrap_or_else(|| "none".to_owned());
        return Err(option(
            name,
            format!(
                "{path}: both models need the same autoencoder, found that of SHA-256 {} and {}",
                shown(partner),
                shown(model)
            ),
        ));
    }
    let (found, expected) = (&partner.process, &model.process);
    match found.same_noise(expected) {
        true => Ok(()),
        false => Err(option(
            name,
            format!(
                "{path}: both models need the same noise schedule, found {} and {}",
                noise_of(found),
                noise_of(expected)
            ),
        )),
    }
}

/// How a process adds noise, as text.
fn noise_of(process: &Process) -> String {
    let mut text = match process.trained_betas.is_empty() {
        true => process.noise_schedule.clone(),
        false => "betas of its own".to_owned(),
    };
    text += &format!(" with {} steps", process.diffusion_steps);
    for (name, beta) in [
        ("beta_start", process.beta_start),
        ("beta_end", process.beta_end),
    ] {
        if let Some(beta) = beta {
            text += &format!(", {name} {beta}");
        }
    }
    if process.rescale_betas_zero_snr {
        text += ", rescaled to zero terminal SNR";
    }
    text
}

/// Fails unless the model's file is the one that a run began with.
///
/// # Errors
/// The file has another hash.
pub(crate) fn check_unchanged(name: &str, began_with: &str, model: &LoadedModel) -> Result<()> {
    if model.sha256 != began_with {
        return Err(failed(format!(
            "{name}: the model changed since the run began: its SHA-256 was {began_with}, now it is {}",
            model.sha256
        )));
    }
    Ok(())
}

/// The fields of a plan's architecture, as if all were given. Dropout belongs to the training, not to the source model.
pub(crate) fn fields_of(architecture: &Architecture) -> Map<String, Value> {
    let mut fields = architecture.fields();
    if let Some(Value::Object(inner)) = fields.get_mut("model") {
        inner.remove("dropout");
    }
    fields
}

/// The fields of a resolved section of a plan, as if all were given.
pub(crate) fn all_fields(section: &impl serde::Serialize) -> Map<String, Value> {
    match serde_json::to_value(section) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    }
}

/// The form of the images that a model makes at `size`, height and width, or at its own.
///
/// # Errors
/// Another number of output channels than of input channels, apart from those of a learned variance; a size that the network cannot run at.
pub(crate) fn form_of(name: &str, model: &LoadedModel, size: Option<Size>) -> Result<ImageSpec> {
    let mut form = model.image;
    if let Some(size) = size {
        (form.height, form.width) = (size.height, size.width);
    }
    check_form(name, model, &form)?;
    Ok(form)
}

/// Fails unless a model makes images of a form.
///
/// # Errors
/// As [`form_of`]; other channels than the model's.
pub(crate) fn check_form(name: &str, model: &LoadedModel, form: &ImageSpec) -> Result<()> {
    let architecture = &model.architecture;
    let (inputs, outputs) = (architecture.in_channels(), architecture.out_channels());
    if ![inputs, 2 * inputs].contains(&outputs) {
        return Err(usage(format!(
            "{name}: expected a model with as many output channels as input channels, or twice as many for a learned variance, found {inputs} and {outputs}"
        )));
    }
    let config = model.autoencoder_config();
    let channels = config.map_or(inputs, AutoencoderConfig::decoded_channels);
    if form.channels != channels {
        return Err(usage(format!(
            "{name}: expected images of {channels} channels, as the model has, found {}",
            form.channels
        )));
    }
    let checked = architecture.check_image_size([form.height, form.width], config);
    checked.map_err(|error| {
        let text = error.to_string();
        option("size", text.strip_prefix("size ").unwrap_or(&text))
    })
}

/// The form of images as plans record it: only if it is not the network's own in 8 bits.
pub(crate) fn recorded_form(model: &LoadedModel, form: &ImageSpec) -> Option<ImageSpec> {
    (*form != model.architecture.image()).then_some(*form)
}

/// Fails unless a seed fits into a plan: TOML's largest number is `i64::MAX`.
pub(crate) fn check_seed(seed: u64) -> Result<()> {
    match i64::try_from(seed) {
        Ok(_) => Ok(()),
        Err(_) => Err(Error::Option {
            name: "seed",
            problem: format!("{seed}: expected 0 to {}", i64::MAX),
        }),
    }
}
