//! Writes networks with their metadata.

use crate::error::ModelError;
use candle_core::DType;
use sdft_adm::{AdmConfig, EncoderConfig};
use sdft_checkpoint::write_safetensors;
use sdft_diffusion::{Process, file_metadata};
use sdft_nn::Params;
use std::collections::BTreeMap;
use std::path::Path;

/// Writes a U-Net with its configuration and provenance; in f32 if `dtype` is none.
///
/// # Errors
/// The file system fails. Then the old file stays.
pub fn save_unet(
    path: &Path,
    config: &AdmConfig,
    process: &Process,
    params: &Params,
    provenance: &BTreeMap<String, String>,
    dtype: Option<DType>,
) -> Result<(), ModelError> {
    let metadata = unet_metadata(config, process, provenance)?;
    write_safetensors(path, params.iter(), &metadata, dtype)?;
    Ok(())
}

/// The metadata of a file of a U-Net.
///
/// # Errors
/// The process cannot be written as JSON.
pub fn unet_metadata(
    config: &AdmConfig,
    process: &Process,
    provenance: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, ModelError> {
    metadata("unet", config, process, provenance)
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
    metadata("classifier", &config.net, process, provenance)
}

fn metadata(
    kind: &str,
    config: &AdmConfig,
    process: &Process,
    provenance: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, ModelError> {
    let process = serde_json::to_string(process).map_err(|e| ModelError::Problem {
        path: "metadata".into(),
        problem: e.to_string(),
    })?;
    Ok(file_metadata(config.metadata(kind), process, provenance))
}
