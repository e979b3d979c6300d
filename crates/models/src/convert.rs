//! Converts any readable file to `.safetensors`, or to a folder of diffusers.

use crate::autoencoder::{Converted, converted, is_autoencoder};
use crate::error::ModelError;
use crate::export::write_diffusers;
use crate::folder::weights_of;
use crate::layout::EITHER;
use crate::opened::Opened;
use crate::resolve::{ASSUMED_KEY, Resolved};
use crate::save::network_metadata;
use crate::stage::Stated;
use crate::{
    LoadOptions, LoadedAutoencoder, NetworkFile, load_network, notes, save_autoencoder,
    save_network,
};
use candle_core::{DType, Tensor};
use sdft_adm::Origin;
use sdft_checkpoint::{ReadOptions, sha256_weights, write_safetensors};
use sdft_diffusion::PROVENANCE_PREFIX;
use std::collections::BTreeMap;
use std::path::Path;

/// Converts any readable file to `.safetensors`, with the configuration in its metadata if the network is recognised. Returns notes for
/// the user.
///
/// # Errors
/// A file cannot be read or written, values are NaN or infinite, or settings are required.
pub fn convert_file(
    input: &Path,
    output: &Path,
    options: &LoadOptions,
    dtype: Option<DType>,
) -> Result<Vec<String>, ModelError> {
    if !options.adapters.is_empty() {
        return convert_adapted(input, output, options, dtype);
    }
    let input = &weights_of(input)?;
    let state = sdft_checkpoint::read(
        input,
        &ReadOptions {
            keep_dtype: true,
            ..options.read(EITHER)
        },
    )?;
    if is_autoencoder(&state.shapes(), state.metadata()) {
        let Converted {
            tensors: entries,
            mut metadata,
            notes,
        } = converted(input, state, &options.given)?;
        let made = provenance(input, sha256_weights(input)?, options);
        metadata.extend(made.map(|(key, value)| (format!("{PROVENANCE_PREFIX}{key}"), value)));
        if dtype == Some(DType::F16) {
            check_range(output, &entries)?;
        }
        let entries = entries.iter().map(|(name, tensor)| (name.as_str(), tensor));
        write_safetensors(output, entries, &metadata, dtype)?;
        return Ok(notes);
    }
    let opened = Opened::file(input, state.shapes(), Some(sha256_weights(input)?))?;
    let mut notes = opened.notes(&state.summary);
    let mut found = None;
    let stated = Stated::of(&opened, state.metadata(), &state.summary)?;
    let autoencoder = stated.load(&opened, options)?;
    let record = autoencoder.as_ref().map(|stage| &stage.record);
    let config = record.map(|record| &record.config);
    let mut all = match opened.resolve(state.metadata(), config, options) {
        Ok(resolved) if resolved.pool.is_none() && opened.misfit(&resolved).is_none() => {
            opened.refuse_to_guess(&resolved)?;
            notes.extend(notes::assumed(&resolved, false));
            let mut metadata = network_metadata(&NetworkFile {
                image: Some(&resolved.image),
                autoencoder: record,
                classes: resolved.classes.as_ref(),
                ..NetworkFile::new(&resolved.architecture, &resolved.process)
            })?;
            metadata.extend(assumed(&resolved));
            found = Some(resolved);
            metadata
        }
        Ok(_) => {
            notes.push("no configuration written: the tensors are not those of a U-Net".to_owned());
            BTreeMap::new()
        }
        Err(conflict @ ModelError::Conflict { .. }) => return Err(conflict),
        Err(problem) => {
            notes.push(format!("no configuration written: {problem}"));
            BTreeMap::new()
        }
    };
    let resolved = found.is_some();
    for (key, value) in state.metadata() {
        // A field that was assumed before may be known now.
        if !(resolved && key.starts_with("sdft.") && !key.starts_with(PROVENANCE_PREFIX)) {
            all.insert(key.clone(), value.clone());
        }
    }
    let made = provenance(input, opened.sha256(), options);
    all.extend(made.map(|(key, value)| (format!("{PROVENANCE_PREFIX}{key}"), value)));
    let entries = opened.tensors(found.as_ref(), state.into_map())?;
    if dtype == Some(DType::F16) {
        check_range(output, &entries)?;
    }
    let entries = entries.iter().map(|(name, tensor)| (name.as_str(), tensor));
    write_safetensors(output, entries, &all, dtype)?;
    if let Some(autoencoder) = autoencoder.as_deref().filter(|_| resolved) {
        notes.extend(keep_autoencoder(output, autoencoder)?);
    }
    Ok(notes)
}

/// Writes the autoencoder of a network's file next to it, unless it is there.
fn keep_autoencoder(
    output: &Path,
    autoencoder: &LoadedAutoencoder,
) -> Result<Option<String>, ModelError> {
    let LoadedAutoencoder { record, params, .. } = autoencoder;
    let path = sdft_files::parent_of(output).join(record.file_name());
    if path.exists() {
        return Ok(None);
    }
    save_autoencoder(&path, &record.config, params, &BTreeMap::new(), None)?;
    let note = format!("its autoencoder is {}; keep them together", path.display());
    Ok(Some(note))
}

/// Writes a network with its adapters merged.
fn convert_adapted(
    input: &Path,
    output: &Path,
    options: &LoadOptions,
    dtype: Option<DType>,
) -> Result<Vec<String>, ModelError> {
    let model = load_network(input, options)?;
    if dtype == Some(DType::F16) {
        let entries = model.params.iter();
        check_range(
            output,
            &entries.map(|(n, t)| (n.to_owned(), t.clone())).collect(),
        )?;
    }
    let provenance = provenance(&weights_of(input)?, model.sha256.clone(), options).collect();
    let network = NetworkFile {
        provenance: &provenance,
        ..model.file()
    };
    save_network(output, &network, &model.params, dtype)?;
    let mut notes = model.notes;
    if let Some(autoencoder) = &model.autoencoder {
        notes.extend(keep_autoencoder(output, autoencoder)?);
    }
    Ok(notes)
}

/// Converts the network in any readable file to a folder that diffusers' `DDPMPipeline.from_pretrained` loads. Returns notes for the user.
///
/// # Errors
/// The file cannot be read, or diffusers has no network that equals this one; see [`write_diffusers`].
pub fn convert_to_diffusers(
    input: &Path,
    folder: &Path,
    options: &LoadOptions,
    dtype: Option<DType>,
) -> Result<Vec<String>, ModelError> {
    let model = load_network(input, options)?;
    let provenance = provenance(&weights_of(input)?, model.sha256.clone(), options).collect();
    let network = NetworkFile {
        provenance: &provenance,
        ..model.file()
    };
    let mut notes = write_diffusers(
        folder,
        &network,
        &model.params,
        model.autoencoder.as_deref(),
        dtype,
    )?;
    notes.splice(0..0, model.notes);
    Ok(notes)
}

/// How a converted file was made.
fn provenance(
    input: &Path,
    sha256: String,
    options: &LoadOptions,
) -> impl Iterator<Item = (String, String)> {
    let name = |path: &Path| {
        let name = path.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    };
    let mut facts = vec![
        ("converted_from".to_owned(), name(input)),
        ("converted_sha256".to_owned(), sha256),
    ];
    let adapters = options.adapters.iter();
    let adapters: Vec<String> = adapters
        .map(|adapter| format!("{}={}", name(&adapter.path), adapter.strength))
        .collect();
    if !adapters.is_empty() {
        facts.push(("adapters".to_owned(), adapters.join(", ")));
    }
    facts.into_iter()
}

/// The assumed fields, which the metadata of the result lists.
fn assumed(resolved: &Resolved) -> Option<(String, String)> {
    let of = |section: &'static str,
              written: serde_json::Map<String, serde_json::Value>,
              origins: &BTreeMap<String, Origin>| {
        let is_assumed = |field: &String| origins.get(field) == Some(&Origin::Assumed);
        let fields = written.keys().filter(|field| is_assumed(field));
        let fields = fields.map(|field| format!("{section}.{field}"));
        fields.collect::<Vec<_>>()
    };
    let process = match serde_json::to_value(&resolved.process) {
        Ok(serde_json::Value::Object(fields)) => fields,
        // A process is a struct of numbers, texts and lists.
        _ => serde_json::Map::new(),
    };
    let mut fields = of("model", resolved.architecture.fields(), &resolved.origins);
    fields.extend(of("process", process, &resolved.process_origins));
    (!fields.is_empty()).then(|| (ASSUMED_KEY.to_owned(), fields.join(",")))
}

/// Fails if a value is beyond the range of f16.
fn check_range(output: &Path, entries: &BTreeMap<String, Tensor>) -> Result<(), ModelError> {
    for (name, tensor) in entries
        .iter()
        .filter(|(_, t)| t.dtype().is_float() && t.elem_count() > 0)
    {
        let largest = tensor
            .to_dtype(DType::F64)?
            .abs()?
            .max_all()?
            .to_scalar::<f64>()?;
        if largest > f64::from(half::f16::MAX) {
            let problem =
                format!("{name} holds {largest:e}, beyond the range of f16; take bf16 or f32");
            return Err(ModelError::Problem {
                path: output.to_owned(),
                problem,
            });
        }
    }
    Ok(())
}
