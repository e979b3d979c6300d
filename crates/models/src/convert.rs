//! Converts any readable file to `.safetensors`.

use crate::diffusers::Layout;
use crate::error::ModelError;
use crate::load::{refuse_to_guess, weights_of, whole_sha256};
use crate::official::{EITHER, official_shapes, tensors};
use crate::resolve::{ASSUMED_KEY, Resolved, Seen, UNWRITTEN, resolve};
use crate::save::unet_metadata;
use crate::siblings::Siblings;
use crate::{LoadOptions, notes};
use candle_core::{DType, Tensor};
use sdft_adm::{Origin, Unet};
use sdft_checkpoint::{ReadOptions, sha256_weights, write_safetensors};
use sdft_diffusion::PROVENANCE_PREFIX;
use sdft_nn::Mismatch;
use std::collections::BTreeMap;
use std::path::Path;

/// Converts any readable file to `.safetensors`, with the configuration in its metadata if the network is recognised. Returns notes for
/// the user.
///
/// # Errors
/// A file cannot be read or written, values are NaN or infinite, or the process is required.
pub fn convert_file(
    input: &Path,
    output: &Path,
    options: &LoadOptions,
    dtype: Option<DType>,
) -> Result<Vec<String>, ModelError> {
    let input = &weights_of(input)?;
    let state = sdft_checkpoint::read(
        input,
        &ReadOptions {
            keep_dtype: true,
            ..options.read(EITHER)
        },
    )?;
    let sha256 = sha256_weights(input)?;
    let mut notes = state.notes();
    let siblings = match Layout::of(&state.shapes()) {
        Some(_) => Some(Siblings::of(input)?),
        None => None,
    };
    let shapes = official_shapes(state.shapes());
    let seen = Seen {
        path: input,
        shapes: &shapes,
        metadata: state.metadata(),
        sha256: Some(&sha256),
        siblings: siblings.as_ref(),
    };
    let mut as_adm = None;
    let mut all = match resolve(&seen, options) {
        Ok(resolved) => {
            let fits = match Unet::specs(&resolved.config) {
                Ok(specs) if resolved.pool.is_none() => {
                    Mismatch::between(&specs, &shapes).is_empty()
                }
                _ => false,
            };
            if fits {
                refuse_to_guess(input, &resolved)?;
                notes.extend(notes::diffusers(siblings.as_ref()));
                notes.extend(notes::assumed(&resolved, false));
                as_adm = Some(resolved.config.clone());
                let mut metadata =
                    unet_metadata(&resolved.config, &resolved.process, &BTreeMap::new())?;
                metadata.extend(assumed(&resolved));
                metadata
            } else {
                notes.push(
                    "no configuration written: the tensors are not those of a U-Net".to_owned(),
                );
                BTreeMap::new()
            }
        }
        Err(conflict @ ModelError::Conflict { .. }) => return Err(conflict),
        Err(problem) => {
            notes.push(format!("no configuration written: {problem}"));
            BTreeMap::new()
        }
    };
    let resolved = !all.is_empty();
    for (key, value) in state.metadata() {
        // A field that was assumed before may be known now.
        if !(resolved && key.starts_with("sdft.") && !key.starts_with(PROVENANCE_PREFIX)) {
            all.insert(key.clone(), value.clone());
        }
    }
    all.insert(
        format!("{PROVENANCE_PREFIX}converted_from"),
        input
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned(),
    );
    all.insert(
        format!("{PROVENANCE_PREFIX}converted_sha256"),
        whole_sha256(sha256, siblings.as_ref()),
    );
    let mut entries = state.into_map();
    if let (Some(_), Some(config)) = (&siblings, as_adm) {
        entries = tensors(input, entries, &config)?.into_iter().collect();
    }
    if dtype == Some(DType::F16) {
        check_range(output, &entries)?;
    }
    let entries = entries.iter().map(|(name, tensor)| (name.as_str(), tensor));
    write_safetensors(output, entries, &all, dtype)?;
    Ok(notes)
}

/// The assumed fields, which the metadata of the result lists.
fn assumed(resolved: &Resolved) -> Option<(String, String)> {
    let of = |section: &'static str, origins: &BTreeMap<&'static str, Origin>| {
        let assumed = origins
            .iter()
            // Fields that files leave out at their default are not marked.
            .filter(|(field, origin)| **origin == Origin::Assumed && !UNWRITTEN.contains(field));
        let fields = assumed.map(move |(field, _)| format!("{section}.{field}"));
        fields.collect::<Vec<_>>()
    };
    let mut fields = of("model", &resolved.origins);
    fields.extend(of("process", &resolved.process_origins));
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
