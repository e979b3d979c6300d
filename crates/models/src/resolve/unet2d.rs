//! diffusers' `UNet2DModel`: the architecture of its files.

use super::fields::Fields;
use super::{Found, Seen, is_free, process};
use crate::Architecture;
use crate::error::{ModelError, cut};
use sdft_diffusion::MODEL_KEY;
use sdft_unet2d::Unet2dConfig;
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// The field of the images' size, which a `config.json` may leave open.
const SIZE: &str = "sample_size";

/// The longest message about a field.
const MOST: usize = 600;

/// The architecture of a file in diffusers' layout: from its metadata, or the `config.json` next to it.
pub(super) fn find(seen: &Seen<'_>, given: &Map<String, Value>) -> Result<Found, ModelError> {
    let (config, path, assumed) = match (seen.metadata.get(MODEL_KEY), &seen.siblings.config) {
        (Some(text), _) => {
            let fields: Map<String, Value> =
                serde_json::from_str(text).map_err(|e| seen.bad_metadata(MODEL_KEY, e))?;
            let config =
                Unet2dConfig::from_json(&fields).map_err(|e| seen.bad_metadata(MODEL_KEY, e))?;
            (config, seen.path, seen.assumed("model"))
        }
        (None, Some(settings)) => {
            let config = Unet2dConfig::from_json(&settings.fields);
            let config = config.map_err(|e| ModelError::Problem {
                path: settings.path.clone(),
                problem: cut(e, MOST),
            })?;
            (config, settings.path.as_path(), BTreeSet::new())
        }
        (None, None) => {
            return Err(seen.problem(
                "diffusers' layout without its config.json, which says how the network is computed (order of sines and cosines, groups and \
                 epsilon of the norms, heads, padding); expected it in the same folder",
            ));
        }
    };
    let mut fields = Fields::default();
    fields.state(&Architecture::Unet2d(config).fields(), &assumed);
    let is_open = fields.all.get(SIZE).is_none_or(Value::is_null);
    fields.give(path, "model", given, |field| {
        is_free(field) || (field == SIZE && is_open)
    })?;
    let config = Unet2dConfig::from_json(&fields.all).map_err(|e| seen.bad_model(e))?;
    let ask = match is_open && !given.contains_key(SIZE) {
        true => Some(format!(
            "{}: {SIZE}: expected the size of the images, found null; give it with --set model.{SIZE}=PIXELS",
            path.display()
        )),
        false => None,
    };
    let architecture = Architecture::Unet2d(config);
    Ok(Found {
        usual: process::diffusers(architecture.learns_variance())?,
        architecture,
        pool: None,
        origins: fields.origins,
        ask_process: None,
        ask,
    })
}
