//! The files of autoencoders, the first stages of latent diffusion models.

pub(crate) use found::{Found, Place, is_autoencoder};
pub(crate) use names::{AUTOENCODER, FIRST_STAGE, SCALE};

use crate::error::ModelError;
use crate::folder::autoencoder_weights;
use crate::load::sha256_of;
use candle_core::{DType, Tensor};
use names::named;
use sdft_autoencoder::{Autoencoder, AutoencoderConfig, AutoencoderRecord};
use sdft_checkpoint::{Prefer, ReadOptions, StateDict, write_safetensors};
use sdft_diffusion::PROVENANCE_PREFIX;
use sdft_nn::Params;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

mod found;
mod names;

/// How the file of an autoencoder is read.
#[derive(Clone, Debug, Default)]
pub struct AutoencoderOptions {
    /// Fields of its `config.json` that the user gave, by name.
    pub given: Map<String, Value>,
    /// The part of the file to take if it has several.
    pub key: Option<String>,
    /// The weights to take if a file has both.
    pub prefer: Prefer,
}

impl AutoencoderOptions {
    fn read(&self) -> ReadOptions {
        ReadOptions {
            key: self.key.clone(),
            prefer: self.prefer,
            wanted: Some(AUTOENCODER),
            number: Some(SCALE),
            ..ReadOptions::default()
        }
    }
}

/// An autoencoder's parameters and configuration.
#[derive(Clone, Debug)]
pub struct LoadedAutoencoder {
    /// Its architecture, and the hash of both.
    pub record: AutoencoderRecord,
    /// The weights, f32 on the CPU.
    pub params: Params,
    /// The file that it was read from, or the name of an embedded one.
    pub path: PathBuf,
    /// Notes for the user about how it was read.
    pub notes: Vec<String>,
}

impl LoadedAutoencoder {
    /// The autoencoder, in f32 on the CPU.
    ///
    /// # Errors
    /// A configuration that cannot be built.
    pub fn autoencoder(&self) -> candle_core::Result<Autoencoder> {
        Autoencoder::load(&self.params, &self.record.config)
    }
}

/// Reads an autoencoder: a folder of diffusers (`vae`, `vqvae`, a repository of an autoencoder alone, or a pipeline with one), a file with
/// diffusers' or CompVis' names, also one that holds a diffusion model as well, or this project's own.
///
/// # Errors
/// The file cannot be read, is not an autoencoder, does not fit its configuration completely, or does not show its scaling factor.
pub fn load_autoencoder(
    path: &Path,
    options: &AutoencoderOptions,
) -> Result<LoadedAutoencoder, ModelError> {
    let path = &autoencoder_weights(path)?;
    let state = sdft_checkpoint::read(path, &options.read())?;
    let place = Place::of(&state);
    let found = Found::file(
        path,
        state.shapes(),
        state.metadata(),
        &options.given,
        place,
    )?;
    assemble(path, found, state)
}

/// Reads an autoencoder from bytes in memory; messages call them `name`.
///
/// # Errors
/// As [`load_autoencoder`].
pub fn load_autoencoder_bytes(
    name: &str,
    bytes: &[u8],
    options: &AutoencoderOptions,
) -> Result<LoadedAutoencoder, ModelError> {
    let state = sdft_checkpoint::read_bytes(name, bytes, &options.read())?;
    let path = Path::new(name);
    let place = Place::of(&state);
    let found = Found::bytes(
        path,
        state.shapes(),
        state.metadata(),
        &options.given,
        place,
    )?;
    assemble(path, found, state)
}

fn assemble(path: &Path, found: Found, state: StateDict) -> Result<LoadedAutoencoder, ModelError> {
    found.refuse_to_guess(path)?;
    let mut notes = state.notes();
    notes.extend(found.notes);
    let tensors = tensors(state)?.into_iter().collect();
    let specs = Autoencoder::specs(&found.config)?;
    let params = Params::fit(&specs, tensors).map_err(|mismatch| ModelError::Misfit {
        path: path.to_owned(),
        mismatch: Box::new(mismatch),
        hints: found.hint.unwrap_or_default(),
    })?;
    let mut fields = found.config.fields();
    // They change no number, and files of CompVis do not have them.
    for field in ["sample_size", "force_upcast"] {
        fields.remove(field);
    }
    Ok(LoadedAutoencoder {
        record: AutoencoderRecord {
            sha256: sha256_of(Value::Object(fields).to_string(), &params, path)?,
            config: found.config,
        },
        params,
        path: path.to_owned(),
        notes,
    })
}

/// The tensors of a file, with the names and shapes that the network has.
fn tensors(state: StateDict) -> Result<BTreeMap<String, Tensor>, ModelError> {
    let tensors = named(state.into_map()).into_iter().map(|(name, tensor)| {
        // Attention layers of older files and of CompVis' are convolutions.
        let shape = names::shape(&name, tensor.dims());
        Ok((name, tensor.reshape(shape)?))
    });
    tensors.collect()
}

/// What the file of an autoencoder becomes.
pub(crate) struct Converted {
    pub(crate) tensors: BTreeMap<String, Tensor>,
    pub(crate) metadata: BTreeMap<String, String>,
    /// Notes for the user.
    pub(crate) notes: Vec<String>,
}

/// Reads the file of an autoencoder as it will be written.
pub(crate) fn converted(
    path: &Path,
    state: StateDict,
    given: &Map<String, Value>,
) -> Result<Converted, ModelError> {
    let place = Place::of(&state);
    let found = Found::file(path, state.shapes(), state.metadata(), given, place)?;
    found.refuse_to_guess(path)?;
    if let Some(mismatch) = found.misfit {
        return Err(ModelError::Misfit {
            path: path.to_owned(),
            mismatch: Box::new(mismatch),
            hints: found.hint.unwrap_or_default(),
        });
    }
    let mut metadata = found.config.metadata();
    let kept = state.metadata().iter();
    metadata.extend(
        kept.filter(|(key, _)| key.starts_with(PROVENANCE_PREFIX))
            .map(|(key, value)| (key.clone(), value.clone())),
    );
    let mut notes = state.notes();
    notes.extend(found.notes);
    Ok(Converted {
        tensors: tensors(state)?,
        metadata,
        notes,
    })
}

/// Writes an autoencoder with its configuration and provenance; in f32 if `dtype` is `None`.
///
/// # Errors
/// The file system fails. Then the old file stays.
pub fn save_autoencoder(
    path: &Path,
    config: &AutoencoderConfig,
    params: &Params,
    provenance: &BTreeMap<String, String>,
    dtype: Option<DType>,
) -> Result<(), ModelError> {
    let metadata = autoencoder_metadata(config, provenance);
    write_safetensors(path, params.iter(), &metadata, dtype)?;
    Ok(())
}

/// The metadata of an autoencoder's file.
pub fn autoencoder_metadata(
    config: &AutoencoderConfig,
    provenance: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let mut metadata = config.metadata();
    let facts = provenance.iter();
    metadata.extend(facts.map(|(key, value)| (format!("{PROVENANCE_PREFIX}{key}"), value.clone())));
    metadata
}
