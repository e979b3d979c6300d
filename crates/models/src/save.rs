//! Writes networks with their metadata.

use crate::error::ModelError;
use crate::stage::decoded_image;
use crate::{Architecture, Classes};
use candle_core::DType;
use sdft_adm::EncoderConfig;
use sdft_autoencoder::AutoencoderRecord;
use sdft_checkpoint::write_safetensors;
use sdft_diffusion::{AUTOENCODER_KEY, CLASSES_KEY, IMAGE_KEY, Process, file_metadata};
use sdft_imaging::ImageSpec;
use sdft_nn::Params;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;

/// Everything that the file of a network states in addition to its weights.
#[derive(Clone, Copy, Debug)]
pub struct NetworkFile<'a> {
    /// The architecture.
    pub architecture: &'a Architecture,
    /// The diffusion process.
    pub process: &'a Process,
    /// The form of the images; `None` is [`Architecture::image`], or what the autoencoder makes of it.
    pub image: Option<&'a ImageSpec>,
    /// The autoencoder in whose latents the network works; `None` if it works on images.
    pub autoencoder: Option<&'a AutoencoderRecord>,
    /// The classes; `None` is [`Architecture::classes`].
    pub classes: Option<&'a Classes>,
    /// How the network was made.
    pub provenance: &'a BTreeMap<String, String>,
}

static NO_PROVENANCE: BTreeMap<String, String> = BTreeMap::new();

impl<'a> NetworkFile<'a> {
    /// A network whose images and classes are the architecture's own, without provenance.
    pub fn new(architecture: &'a Architecture, process: &'a Process) -> Self {
        Self {
            architecture,
            process,
            image: None,
            autoencoder: None,
            classes: None,
            provenance: &NO_PROVENANCE,
        }
    }
}

/// Writes a network with its metadata; in f32 if `dtype` is `None`.
///
/// # Errors
/// The file system fails. Then the old file stays.
pub fn save_network(
    path: &Path,
    network: &NetworkFile<'_>,
    params: &Params,
    dtype: Option<DType>,
) -> Result<(), ModelError> {
    let metadata = network_metadata(network)?;
    write_safetensors(path, params.iter(), &metadata, dtype)?;
    Ok(())
}

/// The metadata of a network's file.
///
/// # Errors
/// The process cannot be written as JSON.
pub fn network_metadata(network: &NetworkFile<'_>) -> Result<BTreeMap<String, String>, ModelError> {
    let mut fields = network.architecture.metadata();
    fields.extend(form_metadata(network)?);
    metadata(fields, network.process, network.provenance)
}

/// The metadata of a network's file about its images, latents and classes: only what differs from the architecture's own.
///
/// # Errors
/// A value cannot be written as JSON.
pub fn form_metadata(network: &NetworkFile<'_>) -> Result<BTreeMap<String, String>, ModelError> {
    let NetworkFile {
        architecture,
        autoencoder,
        ..
    } = *network;
    let mut fields = BTreeMap::new();
    let own = match autoencoder {
        Some(autoencoder) => decoded_image(architecture, &autoencoder.config),
        None => architecture.image(),
    };
    if let Some(image) = network.image.filter(|image| **image != own) {
        fields.insert(IMAGE_KEY.to_owned(), json(image)?);
    }
    if let Some(autoencoder) = autoencoder {
        fields.insert(AUTOENCODER_KEY.to_owned(), json(autoencoder)?);
    }
    let own = architecture.classes();
    if let Some(classes) = network
        .classes
        .filter(|classes| Some(*classes) != own.as_ref())
    {
        fields.insert(CLASSES_KEY.to_owned(), json(classes)?);
    }
    Ok(fields)
}

/// The metadata of a file of a classifier; the names of its tensors determine its pool.
///
/// # Errors
/// The process cannot be written as JSON.
pub fn encoder_metadata(
    config: &EncoderConfig,
    process: &Process,
    provenance: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, ModelError> {
    metadata(config.net.metadata("classifier"), process, provenance)
}

fn metadata(
    network: BTreeMap<String, String>,
    process: &Process,
    provenance: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, ModelError> {
    Ok(file_metadata(network, json(process)?, provenance))
}

fn json(value: &impl Serialize) -> Result<String, ModelError> {
    serde_json::to_string(value).map_err(|e| ModelError::Problem {
        path: "metadata".into(),
        problem: e.to_string(),
    })
}
