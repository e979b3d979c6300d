//! Loads networks from files, strictly.

use crate::autoencoder::SCALE;
use crate::error::ModelError;
use crate::folder::weights_of;
use crate::layout::{ENCODER, UNET};
use crate::opened::{Opened, specs};
use crate::resolve::{Resolved, hints};
use crate::stage::Stated;
use crate::{Architecture, Classes, LoadedAutoencoder, NetworkFile, notes};
use candle_core::DType;
use sdft_adapters::{Adapter, AdapterFile, merge};
use sdft_adm::{EncoderConfig, Origin};
use sdft_autoencoder::AutoencoderConfig;
use sdft_checkpoint::{Prefer, ReadOptions, StateDict, Wanted, sha256_weights};
use sdft_diffusion::{ComputeMode, Diffusion, Network, Process, Trainable};
use sdft_files::sha256_bytes;
use sdft_imaging::ImageSpec;
use sdft_nn::{ParamSpec, Params};
use sdft_schedule::{Respacing, ScheduleError};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// How a model file is read.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// Fields of the architecture that the user gave, by name; under `autoencoder` those of an autoencoder in the same file or next to it.
    pub given: Map<String, Value>,
    /// Fields of the process that the user gave, by name.
    pub given_process: Map<String, Value>,
    /// The part of the file to take if it has several.
    pub key: Option<String>,
    /// The weights to take if a file has both.
    pub prefer: Prefer,
    /// The process of a file that does not state its own; `None` is the usual one of such files.
    pub process_otherwise: Option<Process>,
    /// Adapters that are applied to the network, whose differences add up.
    pub adapters: Vec<AdapterFile>,
    /// The autoencoder of a network that works on latents; `None` is the one that its file states.
    pub autoencoder: Option<Arc<LoadedAutoencoder>>,
    /// The autoencoder of a network whose file states this one, or does not say what it works on.
    pub autoencoder_otherwise: Option<Arc<LoadedAutoencoder>>,
}

impl LoadOptions {
    pub(crate) fn read(&self, wanted: Wanted) -> ReadOptions {
        ReadOptions {
            key: self.key.clone(),
            prefer: self.prefer,
            wanted: Some(wanted),
            number: Some(SCALE),
            ..ReadOptions::default()
        }
    }
}

/// A network's parameters, configuration and origins.
#[derive(Clone, Debug)]
pub struct LoadedModel {
    /// The architecture.
    pub architecture: Architecture,
    /// The diffusion process.
    pub process: Process,
    /// The form of the images: the file's own, or [`Architecture::image`], or what the autoencoder makes of it.
    pub image: ImageSpec,
    /// The autoencoder in whose latents the network works; `None` if it works on images.
    pub autoencoder: Option<Arc<LoadedAutoencoder>>,
    /// The classes: the file's own, or [`Architecture::classes`]. `None` for unconditional networks.
    pub classes: Option<Classes>,
    /// The weights, f32 on the CPU.
    pub params: Params,
    /// How each field of the architecture is known.
    pub origins: BTreeMap<String, Origin>,
    /// SHA-256 of the file.
    pub sha256: String,
    /// Notes for the user about how it was read.
    pub notes: Vec<String>,
}

impl LoadedModel {
    /// Number of classes without the null class, 0 for an unconditional network.
    pub fn n_classes(&self) -> usize {
        let table = || self.architecture.n_classes();
        self.classes
            .as_ref()
            .map_or_else(table, |classes| classes.names.len())
    }

    /// The architecture of the autoencoder in whose latents the network works; `None` if it works on images.
    pub fn autoencoder_config(&self) -> Option<&AutoencoderConfig> {
        let autoencoder = self.autoencoder.as_ref()?;
        Some(&autoencoder.record.config)
    }

    /// SHA-256 of that autoencoder.
    pub fn autoencoder_sha256(&self) -> Option<String> {
        let autoencoder = self.autoencoder.as_ref()?;
        Some(autoencoder.record.sha256.clone())
    }

    /// The shape of the network's states for images of this form, `[C, H, W]`.
    pub fn state_shape(&self, image: &ImageSpec) -> [usize; 3] {
        state_shape(self.autoencoder_config(), image)
    }

    /// The label of the null class, if the network has one.
    pub fn null_class(&self) -> Option<u32> {
        self.classes.as_ref()?.null
    }

    /// The contents of a file of this network in addition to its weights, without provenance.
    pub fn file(&self) -> NetworkFile<'_> {
        NetworkFile {
            image: Some(&self.image),
            autoencoder: self.autoencoder.as_ref().map(|stage| &stage.record),
            classes: self.classes.as_ref(),
            ..NetworkFile::new(&self.architecture, &self.process)
        }
    }

    /// The network, in f32 on the CPU, with the prediction type of its process.
    ///
    /// # Errors
    /// A configuration that cannot be built.
    pub fn network(&self) -> candle_core::Result<Box<dyn Network>> {
        let kind = self.process.prediction_type;
        self.architecture.load(&self.params, kind, DType::F32)
    }

    /// A copy of the network that can be trained, in f32 on the CPU.
    ///
    /// # Errors
    /// A configuration that cannot be trained.
    pub fn trainable(&self) -> candle_core::Result<Box<dyn Trainable>> {
        let (kind, mode) = (self.process.prediction_type, ComputeMode::default());
        self.architecture.trainable(&self.params, kind, mode)
    }

    /// The model's process with the steps that `respacing` keeps.
    ///
    /// # Errors
    /// See [`Process::diffusion`].
    pub fn diffusion(&self, respacing: &Respacing) -> Result<Diffusion, ScheduleError> {
        self.process
            .diffusion(self.architecture.learns_variance(), respacing)
    }

    /// SHA-256 of the network itself; see [`network_sha256`].
    ///
    /// # Errors
    /// A tensor cannot be read.
    pub fn network_sha256(&self) -> Result<String, ModelError> {
        network_sha256(&self.architecture, &self.params)
    }

    /// The model with these adapters, and a note about each.
    ///
    /// # Errors
    /// An adapter that cannot be read, or was trained on another network.
    fn adapted(mut self, name: &Path, files: &[AdapterFile]) -> Result<Self, ModelError> {
        if files.is_empty() {
            return Ok(self);
        }
        let sha256 = self.network_sha256()?;
        let mut adapters = Vec::with_capacity(files.len());
        for AdapterFile { path, strength } in files {
            let adapter = Adapter::read(path)?;
            adapter.check_base(&name.display().to_string(), &sha256)?;
            let unverified = match adapter.base_sha256 {
                Some(_) => "",
                None => "; it does not state the network that it was trained on",
            };
            self.notes.push(format!(
                "{}: {} with strength {strength}{unverified}",
                adapter.path.display(),
                adapter.config
            ));
            adapters.push((adapter, *strength));
        }
        for rank in adapters
            .iter()
            .filter_map(|(a, _)| a.config.time_adapter_rank())
        {
            self.architecture = self.architecture.with_time_adapter(rank);
        }
        let specs = self.architecture.specs()?;
        self.params = merge(&self.params, &specs, &adapters)?;
        Ok(self)
    }
}

/// The shape of the states of a network in the latents of an autoencoder, or on images, for images of this form: `[C, H, W]`.
pub fn state_shape(autoencoder: Option<&AutoencoderConfig>, image: &ImageSpec) -> [usize; 3] {
    autoencoder.map_or_else(|| image.shape(), |config| config.latent_shape(image))
}

/// SHA-256 of a network itself, its architecture and its weights: the same for every file and part of a file that holds it.
///
/// # Errors
/// A tensor cannot be read.
pub fn network_sha256(architecture: &Architecture, params: &Params) -> Result<String, ModelError> {
    let path = Path::new("the network");
    let config = serde_json::to_string(architecture).map_err(|e| ModelError::Problem {
        path: path.to_owned(),
        problem: e.to_string(),
    })?;
    sha256_of(config, params, path)
}

/// SHA-256 of a configuration and weights.
///
/// # Errors
/// A tensor of the file `path` cannot be read.
pub(crate) fn sha256_of(
    config: String,
    params: &Params,
    path: &Path,
) -> Result<String, ModelError> {
    // Hashes of the parts, so that no second copy of the weights is made.
    let mut parts = config;
    for (name, tensor) in params.iter() {
        let values = tensor.flatten_all().and_then(|flat| flat.to_vec1::<f32>());
        let values = values.map_err(|e| ModelError::Problem {
            path: path.to_owned(),
            problem: format!("{name}: {e}"),
        })?;
        let bytes: Vec<u8> = values.into_iter().flat_map(f32::to_le_bytes).collect();
        let hash = sdft_files::sha256_bytes(&bytes);
        parts.push_str(&format!("\n{name} {hash}"));
    }
    Ok(sdft_files::sha256_bytes(parts.as_bytes()))
}

/// Reads a network from a file, or from the folder of a model in diffusers' layout.
///
/// # Errors
/// The file cannot be read, is not a network, does not fit its configuration completely, or does not state the settings in
/// which public models of its kind differ.
pub fn load_network(path: &Path, options: &LoadOptions) -> Result<LoadedModel, ModelError> {
    let path = &weights_of(path)?;
    let state = sdft_checkpoint::read(path, &options.read(UNET))?;
    let opened = Opened::file(path, state.shapes(), Some(sha256_weights(path)?))?;
    assemble(&opened, state, options)
}

/// Reads a network from bytes in memory; messages call them `name`.
///
/// # Errors
/// As [`load_network`].
pub fn load_network_bytes(
    name: &str,
    bytes: &[u8],
    options: &LoadOptions,
) -> Result<LoadedModel, ModelError> {
    let state = sdft_checkpoint::read_bytes(name, bytes, &options.read(UNET))?;
    let opened = Opened::bytes(Path::new(name), state.shapes(), Some(sha256_bytes(bytes)));
    assemble(&opened, state, options)
}

/// Reads parameters from bytes in memory and fits them to `specs`.
///
/// # Errors
/// The bytes are not weights, or do not fit completely.
pub fn read_params_bytes(
    name: &str,
    bytes: &[u8],
    specs: &[ParamSpec],
) -> Result<Params, ModelError> {
    let state = sdft_checkpoint::read_bytes(name, bytes, &ReadOptions::default())?;
    let tensors = state.into_map().into_iter().collect();
    Params::fit(specs, tensors).map_err(|mismatch| ModelError::Misfit {
        path: name.into(),
        mismatch: Box::new(mismatch),
        hints: String::new(),
    })
}

/// The parameters of the network or classifier.
fn fitted(opened: &Opened, state: StateDict, resolved: &Resolved) -> Result<Params, ModelError> {
    let checked = resolved.architecture.check();
    checked.map_err(|e| opened.problem(e.to_string()))?;
    let specs = specs(resolved).map_err(|e| opened.problem(e.to_string()))?;
    let tensors = opened.tensors(Some(resolved), state.into_map())?;
    Params::fit(&specs, tensors.into_iter().collect()).map_err(|mismatch| {
        let mut hints = match resolved.architecture.adm() {
            Some(config) => hints(config, &opened.shapes),
            None => opened.settings_hint().into_iter().collect(),
        };
        hints.extend(notes::shard(&opened.path));
        ModelError::Misfit {
            path: opened.path.clone(),
            mismatch: Box::new(mismatch),
            hints: hints.join("\n"),
        }
    })
}

/// Notes for the user: how the file was read, and what was assumed.
fn notes_of(
    opened: &Opened,
    state: &StateDict,
    resolved: &Resolved,
    options: &LoadOptions,
) -> Vec<String> {
    let mut all = opened.notes(&state.summary);
    all.extend(notes::assumed(
        resolved,
        options.process_otherwise.is_some(),
    ));
    all
}

fn assemble(
    opened: &Opened,
    state: StateDict,
    options: &LoadOptions,
) -> Result<LoadedModel, ModelError> {
    let stated = Stated::of(opened, state.metadata(), &state.summary)?;
    let autoencoder = stated.load(opened, options)?;
    let config = autoencoder.as_ref().map(|stage| &stage.record.config);
    let resolved = opened.resolve(state.metadata(), config, options)?;
    if let Some(pool) = resolved.pool {
        return Err(opened.problem(format!(
            "expected a network that makes images, found a classifier ({pool:?} pool)"
        )));
    }
    let mut notes = notes_of(opened, &state, &resolved, options);
    if let Some(autoencoder) = &autoencoder {
        notes.extend(autoencoder.notes.iter().cloned());
        notes.extend(stated.shift_note());
    }
    let params = fitted(opened, state, &resolved)?;
    opened.refuse_to_guess(&resolved)?;
    let model = LoadedModel {
        autoencoder,
        architecture: resolved.architecture,
        process: resolved.process,
        image: resolved.image,
        classes: resolved.classes,
        params,
        origins: resolved.origins,
        sha256: opened.sha256(),
        notes,
    };
    model.adapted(&opened.path, &options.adapters)
}

/// A classifier's parameters, configuration and origins.
#[derive(Clone, Debug)]
pub struct LoadedEncoder {
    /// The architecture.
    pub config: EncoderConfig,
    /// The diffusion process of its noised images or latents.
    pub process: Process,
    /// SHA-256 of the autoencoder of its latents; `None` if it takes images, or its file does not state it.
    pub autoencoder_sha256: Option<String>,
    /// The weights, f32 on the CPU.
    pub params: Params,
    /// How each field of the architecture is known.
    pub origins: BTreeMap<String, Origin>,
    /// SHA-256 of the file.
    pub sha256: String,
    /// Notes for the user about how it was read.
    pub notes: Vec<String>,
}

/// Reads a time-dependent classifier: this project's, guided-diffusion's, or EGSDE's.
///
/// # Errors
/// As [`load_network`].
pub fn load_encoder(path: &Path, options: &LoadOptions) -> Result<LoadedEncoder, ModelError> {
    let state = sdft_checkpoint::read(path, &options.read(ENCODER))?;
    let opened = Opened::file(path, state.shapes(), Some(sha256_weights(path)?))?;
    let stated = Stated::of(&opened, state.metadata(), &state.summary)?;
    let autoencoder_sha256 = stated.record().map(|record| record.sha256.clone());
    let resolved = opened.resolve(state.metadata(), None, options)?;
    let Some(config) = resolved.encoder() else {
        return Err(opened.problem("expected a classifier, found a U-Net"));
    };
    let notes = notes_of(&opened, &state, &resolved, options);
    let params = fitted(&opened, state, &resolved)?;
    opened.refuse_to_guess(&resolved)?;
    Ok(LoadedEncoder {
        config,
        process: resolved.process,
        autoencoder_sha256,
        params,
        origins: resolved.origins,
        sha256: opened.sha256(),
        notes,
    })
}
