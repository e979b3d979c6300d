//! The metadata that say how a file was made.

use crate::error::Result;
use sdft_diffusion::{Process, file_metadata};
use std::collections::BTreeMap;

/// Facts about how a file was made, without those that are empty.
pub fn provenance(facts: &[(&str, String)]) -> BTreeMap<String, String> {
    let known = facts.iter().filter(|(_, value)| !value.is_empty());
    known
        .map(|(key, value)| ((*key).to_owned(), value.clone()))
        .collect()
}

/// The metadata of a model's file: that of the network, its process, and how the file was made.
///
/// # Errors
/// The process cannot be written as JSON, which never happens in practice.
pub fn model_metadata(
    network: BTreeMap<String, String>,
    process: &Process,
    provenance: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>> {
    let process = serde_json::to_string(process).map_err(candle_core::Error::wrap)?;
    Ok(file_metadata(network, process, provenance))
}
