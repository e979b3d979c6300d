//! The contents of a file of a network.

use crate::autoencoder::{Found, Place, is_autoencoder};
use crate::error::ModelError;
use crate::folder::weights_of;
use crate::known::SMALLEST_KNOWN;
use crate::layout::EITHER;
use crate::opened::Opened;
use crate::resolve::Resolved;
use crate::stage::Stated;
use crate::{LoadOptions, notes};
use sdft_autoencoder::AutoencoderConfig;
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
    /// The configuration of an autoencoder, and the setting that loading it needs in addition; `None` for other files.
    pub autoencoder: Option<(AutoencoderConfig, Option<String>)>,
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
    let sha256 = match summary.file_size >= SMALLEST_KNOWN {
        true => Some(sha256_weights(path)?),
        false => None,
    };
    let autoencoder = match is_autoencoder(&shapes, &summary.metadata) {
        true => Some(Found::file(
            path,
            shapes.clone(),
            &summary.metadata,
            &options.given,
            Place::Alone,
        )?),
        false => None,
    };
    let opened = Opened::file(path, shapes, sha256)?;
    let stated = Stated::of(&opened, &summary.metadata, &summary)?;
    let config = stated.config(&opened, options);
    let resolved =
        config.and_then(|config| opened.resolve(&summary.metadata, config.as_ref(), options));
    let misfit = resolved
        .as_ref()
        .ok()
        .and_then(|found| opened.misfit(found));
    let mut notes = opened.notes(&summary);
    notes.extend(notes::latents(&stated));
    if let Ok(resolved) = &resolved {
        notes.extend(notes::assumed(resolved, false));
    }
    let (autoencoder, misfit) = match autoencoder {
        None => (None, misfit),
        Some(found) => {
            notes.extend(found.notes);
            (Some((found.config, found.ask)), found.misfit)
        }
    };
    Ok(Inspected {
        summary,
        resolved,
        autoencoder,
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
