//! Loads networks from files, strictly.

use crate::Architecture;
use crate::diffusers::Layout;
use crate::error::ModelError;
use crate::notes;
use crate::official::{ENCODER, UNET, official_shapes, tensors};
use crate::resolve::{Resolved, Seen, hints, resolve};
use crate::siblings::{Siblings, folder_weights};
use candle_core::DType;
use sdft_adm::{Encoder, EncoderConfig, Origin, Unet};
use sdft_checkpoint::{Prefer, ReadOptions, StateDict, Wanted, sha256_weights};
use sdft_diffusion::{ComputeMode, Diffusion, Network, Process, Trainable};
use sdft_files::sha256_bytes;
use sdft_nn::{ParamSpec, Params};
use sdft_schedule::{Respacing, ScheduleError};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// How a model file is read.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// Fields of the architecture that the user gave, by name.
    pub given: Map<String, Value>,
    /// Fields of the process that the user gave, by name.
    pub given_process: Map<String, Value>,
    /// The part of the file to take if it has several.
    pub key: Option<String>,
    /// The weights to take if a file has both.
    pub prefer: Prefer,
    /// The process of a file that does not state its own; guided-diffusion's usual one if none.
    pub process_otherwise: Option<Process>,
}

impl LoadOptions {
    pub(crate) fn read(&self, wanted: Wanted) -> ReadOptions {
        ReadOptions {
            key: self.key.clone(),
            prefer: self.prefer,
            wanted: Some(wanted),
            ..ReadOptions::default()
        }
    }
}

/// A U-Net's parameters, configuration and origins.
#[derive(Clone, Debug)]
pub struct LoadedModel {
    /// The architecture.
    pub architecture: Architecture,
    /// The diffusion process.
    pub process: Process,
    /// The weights, f32 on the CPU.
    pub params: Params,
    /// How each field of the architecture is known.
    pub origins: BTreeMap<&'static str, Origin>,
    /// SHA-256 of the file.
    pub sha256: String,
    /// Notes for the user about how it was read.
    pub notes: Vec<String>,
}

impl LoadedModel {
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

    /// SHA-256 of the network itself, its architecture and its weights: the same for every file and part of a file that holds it.
    ///
    /// # Errors
    /// A tensor cannot be read.
    pub fn network_sha256(&self) -> Result<String, ModelError> {
        let problem = |problem: String| ModelError::Problem {
            path: "the network".into(),
            problem,
        };
        let config =
            serde_json::to_string(&self.architecture).map_err(|e| problem(e.to_string()))?;
        // Hashes of the parts, so that no second copy of the weights is made.
        let mut parts = config;
        for (name, tensor) in self.params.iter() {
            let values = tensor.flatten_all().and_then(|flat| flat.to_vec1::<f32>());
            let values = values.map_err(|e| problem(format!("{name}: {e}")))?;
            let bytes: Vec<u8> = values.into_iter().flat_map(f32::to_le_bytes).collect();
            let hash = sdft_files::sha256_bytes(&bytes);
            parts.push_str(&format!("\n{name} {hash}"));
        }
        Ok(sdft_files::sha256_bytes(parts.as_bytes()))
    }
}

/// Reads a U-Net from a file, or from the folder of a model in diffusers' layout.
///
/// # Errors
/// The file cannot be read, is not a U-Net, does not fit its configuration completely, or does not state its process where public models
/// of its kind differ.
pub fn load_unet(path: &Path, options: &LoadOptions) -> Result<LoadedModel, ModelError> {
    let path = &weights_of(path)?;
    let state = sdft_checkpoint::read(path, &options.read(UNET))?;
    let siblings = siblings(path, &state)?;
    assemble(path, state, options, sha256_weights(path)?, siblings)
}

/// Reads a U-Net from bytes in memory; messages call them `name`.
///
/// # Errors
/// As [`load_unet`].
pub fn load_unet_bytes(
    name: &str,
    bytes: &[u8],
    options: &LoadOptions,
) -> Result<LoadedModel, ModelError> {
    let state = sdft_checkpoint::read_bytes(name, bytes, &options.read(UNET))?;
    // Bytes have no files next to them.
    let siblings = is_diffusers(&state).then(Siblings::default);
    assemble(
        Path::new(name),
        state,
        options,
        sha256_bytes(bytes),
        siblings,
    )
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

/// The file of the weights: the path itself, or the one in a folder.
pub(crate) fn weights_of(path: &Path) -> Result<PathBuf, ModelError> {
    if !path.is_dir() {
        return Ok(path.to_owned());
    }
    folder_weights(path).ok_or_else(|| ModelError::Problem {
        path: path.to_owned(),
        problem: "expected a file of weights, found a folder without diffusion_pytorch_model.safetensors in it or in unet".into(),
    })
}

fn is_diffusers(state: &StateDict) -> bool {
    Layout::of(&state.shapes()).is_some()
}

/// The files next to one in diffusers' layout.
fn siblings(path: &Path, state: &StateDict) -> Result<Option<Siblings>, ModelError> {
    match is_diffusers(state) {
        true => Siblings::of(path).map(Some),
        false => Ok(None),
    }
}

/// The hash of the weights, and of the settings next to them.
pub(crate) fn whole_sha256(weights: String, siblings: Option<&Siblings>) -> String {
    match siblings.map(Siblings::text).filter(|text| !text.is_empty()) {
        Some(text) => sha256_bytes(format!("{weights}{text}").as_bytes()),
        None => weights,
    }
}

/// A state dict with its configuration, and notes about it.
struct Read {
    resolved: Resolved,
    shapes: BTreeMap<String, Vec<usize>>,
    notes: Vec<String>,
    sha256: String,
}

fn resolve_model(
    path: &Path,
    state: &StateDict,
    options: &LoadOptions,
    sha256: String,
    siblings: Option<&Siblings>,
) -> Result<Read, ModelError> {
    let shapes = official_shapes(state.shapes());
    let seen = Seen {
        path,
        shapes: &shapes,
        metadata: state.metadata(),
        sha256: Some(&sha256),
        siblings,
    };
    let resolved = resolve(&seen, options)?;
    let mut notes = state.notes();
    notes.extend(notes::latents(&state.summary));
    notes.extend(notes::diffusers(siblings));
    notes.extend(notes::assumed(
        &resolved,
        options.process_otherwise.is_some(),
    ));
    Ok(Read {
        resolved,
        notes,
        shapes,
        sha256: whole_sha256(sha256, siblings),
    })
}

/// Fails if a process must be given.
pub(crate) fn refuse_to_guess(path: &Path, resolved: &Resolved) -> Result<(), ModelError> {
    match &resolved.ask {
        None => Ok(()),
        Some(ask) => Err(ModelError::Problem {
            path: path.to_owned(),
            problem: ask.clone(),
        }),
    }
}

fn fitted(
    path: &Path,
    specs: candle_core::Result<Vec<ParamSpec>>,
    state: StateDict,
    read: &Read,
) -> Result<Params, ModelError> {
    let specs = specs.map_err(|e| ModelError::Problem {
        path: path.to_owned(),
        problem: e.to_string(),
    })?;
    let config = &read.resolved.config;
    Params::fit(&specs, tensors(path, state.into_map(), config)?).map_err(|mismatch| {
        let mut hints = hints(config, &read.shapes);
        hints.extend(notes::shard(path));
        ModelError::Misfit {
            path: path.to_owned(),
            mismatch: Box::new(mismatch),
            hints: hints.join("\n"),
        }
    })
}

fn assemble(
    path: &Path,
    state: StateDict,
    options: &LoadOptions,
    sha256: String,
    siblings: Option<Siblings>,
) -> Result<LoadedModel, ModelError> {
    let read = resolve_model(path, &state, options, sha256, siblings.as_ref())?;
    if let Some(pool) = read.resolved.pool {
        return Err(ModelError::Problem {
            path: path.to_owned(),
            problem: format!("expected a U-Net, found a classifier ({pool:?} pool)"),
        });
    }
    let params = fitted(path, Unet::specs(&read.resolved.config), state, &read)?;
    refuse_to_guess(path, &read.resolved)?;
    let Resolved {
        config,
        process,
        origins,
        ..
    } = read.resolved;
    Ok(LoadedModel {
        architecture: config.into(),
        process,
        params,
        origins,
        sha256: read.sha256,
        notes: read.notes,
    })
}

/// A classifier's parameters, configuration and origins.
#[derive(Clone, Debug)]
pub struct LoadedEncoder {
    /// The architecture.
    pub config: EncoderConfig,
    /// The diffusion process of its noised images.
    pub process: Process,
    /// The weights, f32 on the CPU.
    pub params: Params,
    /// How each field of the architecture is known.
    pub origins: BTreeMap<&'static str, Origin>,
    /// SHA-256 of the file.
    pub sha256: String,
    /// Notes for the user about how it was read.
    pub notes: Vec<String>,
}

/// Reads a time-dependent classifier: this project's, guided-diffusion's, or EGSDE's.
///
/// # Errors
/// As [`load_unet`].
pub fn load_encoder(path: &Path, options: &LoadOptions) -> Result<LoadedEncoder, ModelError> {
    let state = sdft_checkpoint::read(path, &options.read(ENCODER))?;
    let siblings = siblings(path, &state)?;
    let read = resolve_model(
        path,
        &state,
        options,
        sha256_weights(path)?,
        siblings.as_ref(),
    )?;
    let Some(config) = read.resolved.encoder() else {
        return Err(ModelError::Problem {
            path: path.to_owned(),
            problem: "expected a classifier, found a U-Net".into(),
        });
    };
    let params = fitted(path, Encoder::specs(&config), state, &read)?;
    refuse_to_guess(path, &read.resolved)?;
    Ok(LoadedEncoder {
        config,
        process: read.resolved.process,
        params,
        origins: read.resolved.origins,
        sha256: read.sha256,
        notes: read.notes,
    })
}
