//! Writes networks with their metadata.

use crate::Architecture;
use crate::error::ModelError;
use candle_core::DType;
use sdft_adm::EncoderConfig;
use sdft_checkpoint::write_safetensors;
use sdft_diffusion::{Process, file_metadata};
use sdft_nn::Params;
use std::collections::BTreeMap;
use std::path::Path;

/// Writes a network with its configuration and provenance; in f32 if `dtype` is none.
///
/// # Errors
/// The file system fails. Then the old file stays.
pub fn save_network(
    path: &Path,
    architecture: &Architecture,
    process: &Process,
    params: &Params,
    provenance: &BTreeMap<String, String>,
    dtype: Option<DType>,
) -> Result<(), ModelError> {
    let metadata = network_metadata(architecture, process, provenance)?;
    write_safetensors(path, params.iter(), &metadata, dtype)?;
    Ok(())
}

/// The metadata of a network's file.
///
/// # Errors
/// The process cannot be written as JSON.
pub fn network_metadata(
    architecture: &Architecture,
    process: &Process,
    provenance: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, ModelError> {
    metadata(architecture.metadata(), process, provenance)
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
    let process = serde_json::to_string(process).map_err(|e| ModelError::Problem {
        path: "metadata".into(),
        problem: e.to_string(),
    })?;
    Ok(file_metadata(network, process, provenance))
}
