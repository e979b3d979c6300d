//! Writes a network as a folder of diffusers.

use crate::error::ModelError;
use crate::save::form_metadata;
use crate::scheduler::scheduler_config;
use crate::{
    Architecture, ArchitectureError, Classes, LoadedAutoencoder, NetworkFile, state_shape,
};
use candle_core::{DType, Tensor};
use sdft_checkpoint::write_safetensors;
use sdft_diffusion::{PROVENANCE_PREFIX, Process};
use sdft_dit::DitConfig;
use sdft_files::{parent_of, rename_synced, sync_dir, temporary_path, write_atomic};
use sdft_nn::Params;
use sdft_unet2d::{SampleSize, Unet2dConfig};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::{fs, io};

mod adm;

/// The version of diffusers whose classes the files describe.
const VERSION: &str = "0.42.1";

/// Writes a folder that diffusers loads: `model_index.json`, `unet/` or `transformer/`, `scheduler/`, and `vqvae/` or `vae/` for a network in
/// the latents of an autoencoder. It is a `DDPMPipeline`, `LDMPipeline` or `DiTPipeline`, which computes the same images from the same noise.
/// Returns notes for the user.
///
/// An ADM network becomes the `UNet2DModel` that equals it. A DiT on images has no pipeline, and no `model_index.json`. The weights are f32
/// if `dtype` is `None`; the metadata of their file keeps the names of the classes and the form of the images. The folder appears complete
/// or not at all; an older folder of a pipeline is replaced.
///
/// # Errors
/// No network or scheduler of diffusers equals it, named by the field that differs; `folder` exists and is not the folder of a pipeline; the
/// file system fails.
pub fn write_diffusers(
    folder: &Path,
    network: &NetworkFile<'_>,
    params: &Params,
    autoencoder: Option<&LoadedAutoencoder>,
    dtype: Option<DType>,
) -> Result<Vec<String>, ModelError> {
    let problem = |problem: String| ModelError::Problem {
        path: folder.to_owned(),
        problem,
    };
    let no_equal = |e: ArchitectureError| {
        problem(format!(
            "diffusers has no network that equals this one: {e}"
        ))
    };
    let NetworkFile {
        architecture,
        process,
        image,
        classes,
        provenance,
        ..
    } = *network;
    if let Some(autoencoder) = autoencoder
        && autoencoder.record.config.shift_factor() != 0.0
    {
        return Err(problem(format!(
            "diffusers' pipelines of latents do not add the autoencoder's shift_factor; expected 0, found {}",
            autoencoder.record.config.shift_factor()
        )));
    }
    let (mut equal, tensors) = written(architecture, params).map_err(|e| match e {
        NoEqual::Architecture(e) => no_equal(e),
        NoEqual::Tensor(e) => ModelError::Tensor(e),
    })?;
    let size = image.map(|image| {
        let config = autoencoder.map(|autoencoder| &autoencoder.record.config);
        let [_, height, width] = state_shape(config, image);
        [height, width]
    });
    if let (OfDiffusers::Unet2d(config), Some([height, width])) = (&mut equal, size)
        && config.sides() != size
    {
        // A pipeline makes images of this size.
        config.sample_size = Some(match height == width {
            true => SampleSize::Side(height),
            false => SampleSize::Sides([height, width]),
        });
    }
    let metadata = form_metadata(&NetworkFile {
        autoencoder: None,
        ..*network
    })?;
    let parts = Parts {
        scheduler: scheduler_config(process, architecture.learns_variance())?,
        metadata: weights_metadata(metadata, provenance),
        dtype: dtype.unwrap_or(DType::F32),
        network: equal,
        tensors,
        autoencoder,
        classes,
    };
    if folder.exists() && !is_replaceable(folder) {
        return Err(problem(
            "expected a new folder, or one with a model_index.json or transformer/config.json, found another file or folder; choose another name".into(),
        ));
    }
    let io = |action: &str, path: &Path, e: io::Error| ModelError::Problem {
        path: path.to_owned(),
        problem: format!("{action}: {e}"),
    };
    let parent = parent_of(folder);
    fs::create_dir_all(parent).map_err(|e| io("cannot create", parent, e))?;
    let temporary = temporary_path(folder).map_err(|e| io("cannot create", folder, e))?;
    let written = fill(&temporary, &parts);
    let placed = written.and_then(|()| {
        put(&temporary, folder).map_err(|e| io("cannot put the folder in place", folder, e))
    });
    if placed.is_err() {
        // The first error matters.
        let _ = fs::remove_dir_all(&temporary);
    }
    placed?;
    Ok(notes(network, autoencoder.is_some()))
}

/// Row of a label table that `DiTPipeline` takes for the null class.
const NULL_OF_DIT: u32 = 1000;

/// What a user of the folder should know.
fn notes(network: &NetworkFile<'_>, has_autoencoder: bool) -> Vec<String> {
    let mut notes = Vec::new();
    let null = network.classes.and_then(|classes| classes.null);
    if let Architecture::Dit(config) = network.architecture {
        if !has_autoencoder {
            notes.push(
                "transformer/ is loaded by DiTTransformer2DModel.from_pretrained; there is no model_index.json, because diffusers' pipeline of \
                 it needs an autoencoder"
                    .to_owned(),
            );
        }
        if config.shared_embedder {
            notes.push(format!(
                "the embedder of time and class is written {} times, once for each block, because diffusers' blocks have their own",
                config.num_layers
            ));
        }
        if has_autoencoder && null != Some(NULL_OF_DIT) {
            notes.push(format!(
                "DiTPipeline guides away from class {NULL_OF_DIT}, which this model does not have as its null class; use it with guidance_scale=1"
            ));
        }
        return notes;
    }
    let n_classes = network.architecture.n_classes();
    if n_classes > 0 {
        let pipeline = if has_autoencoder {
            "LDMPipeline"
        } else {
            "DDPMPipeline"
        };
        notes.push(format!(
            "{pipeline} does not pass labels; call the UNet2DModel with class_labels"
        ));
    }
    if let Some(null) = null {
        notes.push(format!(
            "row {null} of class_embedding is the null class of classifier-free guidance; the classes are rows 0 to {}",
            null.saturating_sub(1)
        ));
    }
    notes
}

/// Fails unless [`write_diffusers`] can write networks of this kind.
///
/// # Errors
/// No network or scheduler of diffusers equals it, named by the field that differs.
pub fn check_diffusers(architecture: &Architecture, process: &Process) -> Result<(), ModelError> {
    equal(architecture).map_err(|e| ModelError::Problem {
        path: "diffusers".into(),
        problem: format!("there is no network that equals this one: {e}"),
    })?;
    scheduler_config(process, architecture.learns_variance()).map(drop)
}

/// Why a network cannot be written.
enum NoEqual {
    Architecture(ArchitectureError),
    Tensor(candle_core::Error),
}

impl From<ArchitectureError> for NoEqual {
    fn from(error: ArchitectureError) -> Self {
        Self::Architecture(error)
    }
}

impl From<candle_core::Error> for NoEqual {
    fn from(error: candle_core::Error) -> Self {
        Self::Tensor(error)
    }
}

/// A network of diffusers.
enum OfDiffusers {
    Unet2d(Unet2dConfig),
    Dit(DitConfig),
}

impl OfDiffusers {
    /// Its folder in a pipeline.
    fn folder(&self) -> &'static str {
        match self {
            Self::Unet2d(_) => "unet",
            Self::Dit(_) => "transformer",
        }
    }

    /// Its class.
    fn class(&self) -> &'static str {
        match self {
            Self::Unet2d(_) => "UNet2DModel",
            Self::Dit(_) => "DiTTransformer2DModel",
        }
    }

    /// Its `config.json`.
    fn fields(&self) -> Result<Map<String, Value>, ArchitectureError> {
        match self {
            Self::Unet2d(config) => {
                let mut fields = Architecture::Unet2d(config.clone()).fields();
                fields.insert("_class_name".to_owned(), self.class().into());
                Ok(fields)
            }
            Self::Dit(config) => Ok(config.to_diffusers()?),
        }
    }
}

/// The equal network and its weights.
fn written(
    architecture: &Architecture,
    params: &Params,
) -> Result<(OfDiffusers, Vec<(String, Tensor)>), NoEqual> {
    let config = equal(architecture)?;
    let tensors = match architecture {
        Architecture::Adm(config) => adm::tensors(config, params)?,
        Architecture::Dit(config) => config.diffusers_tensors(params.iter()),
        _ => {
            let all = params.iter();
            let all = all.map(|(name, tensor)| (name.to_owned(), tensor.clone()));
            all.collect()
        }
    };
    Ok((config, tensors))
}

/// The equal network.
fn equal(architecture: &Architecture) -> Result<OfDiffusers, ArchitectureError> {
    if architecture.time_adapter_rank().is_some() {
        return Err(ArchitectureError {
            field: "time_adapter_rank".to_owned(),
            problem: "expected a network without time-aware adapters, which UNet2DModel does not have; this project's format keeps them"
                .to_owned(),
        });
    }
    match architecture {
        Architecture::Unet2d(config) => Ok(OfDiffusers::Unet2d(config.clone())),
        Architecture::Adm(config) => adm::config(config).map(OfDiffusers::Unet2d),
        Architecture::Dit(config) => {
            let equal = OfDiffusers::Dit(config.clone());
            equal.fields().map(|_| equal)
        }
        Architecture::AdmEdm(_) | Architecture::Edm(_) | Architecture::DitFlow(..) => {
            let found = match architecture {
                Architecture::DitFlow(..) => "a flow",
                _ => "EDM's preconditioning",
            };
            Err(ArchitectureError {
                field: "precond".to_owned(),
                problem: format!("expected a network that is called with steps, found {found}"),
            })
        }
    }
}

/// Whether a folder may be replaced: it is empty, or one that [`write_diffusers`] writes.
fn is_replaceable(folder: &Path) -> bool {
    let known = ["model_index.json", "transformer/config.json"];
    let is_empty = || fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none());
    folder.is_dir() && (known.iter().any(|name| folder.join(name).is_file()) || is_empty())
}

/// The contents of a folder.
struct Parts<'a> {
    network: OfDiffusers,
    tensors: Vec<(String, Tensor)>,
    scheduler: Map<String, Value>,
    /// Metadata of the file of weights.
    metadata: BTreeMap<String, String>,
    /// The type of the weights.
    dtype: DType,
    autoencoder: Option<&'a LoadedAutoencoder>,
    classes: Option<&'a Classes>,
}

/// The metadata of the file of weights. The configuration and the process are in files of their own.
fn weights_metadata(
    mut metadata: BTreeMap<String, String>,
    provenance: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    // Python's readers look for it.
    metadata.insert("format".to_owned(), "pt".to_owned());
    let facts = provenance.iter();
    metadata.extend(facts.map(|(key, value)| (format!("{PROVENANCE_PREFIX}{key}"), value.clone())));
    metadata
}

/// Writes the files.
fn fill(folder: &Path, parts: &Parts<'_>) -> Result<(), ModelError> {
    let (own, sampling) = (
        folder.join(parts.network.folder()),
        folder.join("scheduler"),
    );
    let failed = |path: &Path, e: io::Error| ModelError::Problem {
        path: path.to_owned(),
        problem: format!("cannot be written: {e}"),
    };
    let is_dit = matches!(parts.network, OfDiffusers::Dit(_));
    let stage = folder.join(if is_dit { "vae" } else { "vqvae" });
    let mut all = vec![folder, &own, &sampling];
    all.extend(parts.autoencoder.map(|_| stage.as_path()));
    for inside in &all {
        fs::create_dir(inside).map_err(|e| failed(inside, e))?;
    }
    let write = |path: &Path, settings: Value| {
        let text = serde_json::to_string_pretty(&settings).map_err(io::Error::from);
        text.and_then(|text| write_atomic(path, format!("{text}\n").as_bytes()))
            .map_err(|e| failed(path, e))
    };
    let entries = parts.tensors.iter();
    let entries = entries.map(|(name, tensor)| (name.as_str(), tensor));
    let weights = own.join("diffusion_pytorch_model.safetensors");
    write_safetensors(&weights, entries, &parts.metadata, Some(parts.dtype))?;
    let mut fields = parts.network.fields().map_err(|e| ModelError::Problem {
        path: own.clone(),
        problem: e.to_string(),
    })?;
    fields.insert("_diffusers_version".to_owned(), VERSION.into());
    write(&own.join("config.json"), Value::Object(fields))?;
    let class = parts
        .scheduler
        .get("_class_name")
        .cloned()
        .unwrap_or_default();
    let mut fields = parts.scheduler.clone();
    fields.insert("_diffusers_version".to_owned(), VERSION.into());
    write(
        &sampling.join("scheduler_config.json"),
        Value::Object(fields),
    )?;
    let mut index = json!({
        "_diffusers_version": VERSION,
        "scheduler": ["diffusers", class],
        parts.network.folder(): ["diffusers", parts.network.class()],
    });
    if let Some(LoadedAutoencoder { record, params, .. }) = parts.autoencoder {
        let metadata = weights_metadata(BTreeMap::new(), &BTreeMap::new());
        let weights = stage.join("diffusion_pytorch_model.safetensors");
        write_safetensors(&weights, params.iter(), &metadata, Some(parts.dtype))?;
        let mut fields = record.config.fields();
        fields.insert("_diffusers_version".to_owned(), VERSION.into());
        write(&stage.join("config.json"), Value::Object(fields))?;
        let name = if is_dit { "vae" } else { "vqvae" };
        index[name] = json!(["diffusers", record.config.class_name()]);
    }
    if let (true, Some(classes)) = (is_dit, parts.classes) {
        let names = classes.names.iter().enumerate();
        let labels = names.map(|(number, name)| (number.to_string(), name.as_str().into()));
        index["id2label"] = Value::Object(labels.collect());
    }
    let pipeline = match (is_dit, parts.autoencoder) {
        (true, None) => None,
        (true, Some(_)) => Some("DiTPipeline"),
        (false, Some(_)) => Some("LDMPipeline"),
        (false, None) if class == "DDIMScheduler" => Some("DDIMPipeline"),
        (false, None) => Some("DDPMPipeline"),
    };
    if let Some(pipeline) = pipeline {
        index["_class_name"] = pipeline.into();
        write(&folder.join("model_index.json"), index)?;
    }
    for inside in all.iter().rev() {
        sync_dir(inside).map_err(|e| failed(inside, e))?;
    }
    Ok(())
}

/// Renames the folder; an older one is moved aside first, and removed at the end.
fn put(temporary: &Path, folder: &Path) -> io::Result<()> {
    if !folder.exists() {
        return rename_synced(temporary, folder);
    }
    let old = temporary_path(folder)?;
    fs::rename(folder, &old)?;
    if let Err(error) = rename_synced(temporary, folder) {
        // Back in place; the first error matters.
        let _ = fs::rename(&old, folder);
        return Err(error);
    }
    fs::remove_dir_all(&old)
}
