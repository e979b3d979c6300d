//! The contents of a file of a network.

use crate::diffusers::Layout;
use crate::error::ModelError;
use crate::known::SMALLEST_KNOWN;
use crate::load::weights_of;
use crate::official::{EITHER, official_shapes};
use crate::resolve::{Resolved, Seen, resolve};
use crate::siblings::Siblings;
use crate::{LoadOptions, notes};
use sdft_adm::{Encoder, Unet};
use sdft_checkpoint::{NonFinite, Summary, sha256_weights};
use sdft_nn::Mismatch;
use std::collections::BTreeMap;
use std::path::Path;

/// The contents of a file, without its numbers.
#[derive(Debug)]
pub struct Inspected {
    /// Container, tensors, metadata.
    pub summary: Summary,
    /// The network, or why it is not recognised.
    pub resolved: Result<Resolved, ModelError>,
    /// The tensors that do not fit the network, if there are any.
    pub misfit: Option<Mismatch>,
    /// Notes for the user about how it was read.
    pub notes: Vec<String>,
}

/// Describes a file without reading its numbers. A folder means the weights that diffusers keeps in it.
///
/// # Errors
/// The file is not a container of weights.
pub fn inspect_file(path: &Path, options: &LoadOptions) -> Result<Inspected, ModelError> {
    let path = &weights_of(path)?;
    let summary = sdft_checkpoint::describe(path, &options.read(EITHER))?;
    let tensors = summary.tensors.iter();
    let shapes: BTreeMap<_, _> = tensors.map(|t| (t.name.clone(), t.shape.clone())).collect();
    let siblings = match Layout::of(&shapes) {
        Some(_) => Some(Siblings::of(path)?),
        None => None,
    };
    let shapes = official_shapes(shapes);
    let sha256 = if summary.file_size >= SMALLEST_KNOWN {
        Some(sha256_weights(path)?)
    } else {
        None
    };
    let seen = Seen {
        path,
        shapes: &shapes,
        metadata: &summary.metadata,
        sha256: sha256.as_deref(),
        siblings: siblings.as_ref(),
    };
    let resolved = resolve(&seen, options);
    let misfit = resolved.as_ref().ok().and_then(|resolved| {
        let specs = match resolved.encoder() {
            Some(encoder) => Encoder::specs(&encoder),
            None => Unet::specs(&resolved.config),
        };
        let mismatch = Mismatch::between(&specs.ok()?, &shapes);
        (!mismatch.is_empty()).then_some(mismatch)
    });
    let mut notes = summary.notes.clone();
    notes.extend(notes::latents(&summary));
    notes.extend(notes::diffusers(siblings.as_ref()));
    Ok(Inspected {
        summary,
        resolved,
        misfit,
        notes,
    })
}

/// Reads all numbers of a file once: compares checksums where it has them, and returns the tensors with values that are NaN or infinite.
///
/// # Errors
/// The file cannot be read or is damaged.
pub fn scan_file(path: &Path, options: &LoadOptions) -> Result<Vec<NonFinite>, ModelError> {
    let path = &weights_of(path)?;
    Ok(sdft_checkpoint::scan(path, &options.read(EITHER))?)
}
