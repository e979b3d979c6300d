//! DiT: the architecture of its files.

use super::fields::Fields;
use super::{Found, Seen, is_free, process};
use crate::Architecture;
use crate::error::{ModelError, brief, cut};
use crate::section::PRECOND;
use sdft_adm::Origin;
use sdft_diffusion::{MODEL_KEY, PRECOND_KEY, Precond};
use sdft_dit::{DitConfig, infer};
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// Heads and their channels, whose product is the width.
const HEADS: &str = "num_attention_heads";
const HEAD_DIM: &str = "attention_head_dim";
/// The field of the images' size.
const SIZE: &str = "sample_size";

/// The longest message about a field.
const MOST: usize = 600;

/// The architecture of a DiT: from its metadata, from the `config.json` next to a file of diffusers, or from the names and shapes of an
/// official file.
pub(super) fn find(seen: &Seen<'_>, given: &Map<String, Value>) -> Result<Found, ModelError> {
    let is_shared = seen
        .shapes
        .contains_key("emb.timestep_embedder.linear_1.weight");
    let (mut fields, mut path) = (Fields::default(), seen.path);
    let mut is_official = false;
    if let Some(text) = seen.metadata.get(MODEL_KEY) {
        let stated: Map<String, Value> =
            serde_json::from_str(text).map_err(|e| seen.bad_metadata(MODEL_KEY, e))?;
        let config = DitConfig::from_json(&stated).map_err(|e| seen.bad_metadata(MODEL_KEY, e))?;
        let architecture = match preconditioning(seen, given)? {
            Some(Precond::Flow { convention }) => Architecture::DitFlow(config, convention),
            _ => Architecture::Dit(config),
        };
        fields.state(&architecture.fields(), &seen.assumed("model"));
    } else if is_shared {
        let tokens = seen.positions.and_then(|shape| shape.get(1).copied());
        let inferred = infer(seen.shapes, tokens).map_err(|e| seen.problem(cut(e, MOST)))?;
        let all = Architecture::Dit(inferred.config).fields();
        fields = Fields::new(all, Origin::Inferred);
        for field in inferred.assumed {
            fields.origins.insert(field.to_owned(), Origin::Assumed);
        }
        is_official = true;
    } else if let Some(settings) = &seen.siblings.config {
        path = &settings.path;
        let config = DitConfig::from_json(&settings.fields);
        let config = config.map_err(|e| ModelError::Problem {
            path: settings.path.clone(),
            problem: cut(e, MOST),
        })?;
        fields.state(&Architecture::Dit(config).fields(), &BTreeSet::new());
    } else {
        return Err(seen.problem(
            "a DiT in diffusers' layout without its config.json, which says how the network is computed (heads, epsilon of the norms, size); \
             expected it in the same folder",
        ));
    }
    let width = product(&fields.all);
    fields.give(path, "model", given, is_free)?;
    if given.contains_key(HEADS) && !given.contains_key(HEAD_DIM) {
        let heads = fields.all.get(HEADS).and_then(Value::as_u64);
        let head_dim = heads.and_then(|heads| width.filter(|_| heads > 0).map(|w| w / heads));
        if let Some(head_dim) = head_dim {
            fields.set(HEAD_DIM, head_dim.into(), Origin::Given);
        }
    }
    let ask = [(HEADS, ASK_HEADS), (SIZE, ASK_SIZE)]
        .into_iter()
        .find(|(field, _)| is_official && fields.is_assumed(field));
    let is_ours = seen.metadata.contains_key(MODEL_KEY);
    let mut all = fields.all;
    all.insert(Architecture::TAG.to_owned(), "dit".into());
    let architecture = Architecture::from_fields(all).map_err(|e| seen.bad_model(cut(e, MOST)))?;
    let channels = architecture.in_channels();
    Ok(Found {
        usual: match (architecture.precond(), is_shared) {
            (Some(precond), _) => process::continuous(&precond),
            (None, true) => process::guided_diffusion(Origin::Assumed),
            (None, false) => process::diffusers(architecture.learns_variance())?,
        },
        architecture,
        pool: None,
        origins: fields.origins,
        ask_process: is_official.then_some(ASK_PROCESS),
        ask: match ask {
            Some((_, text)) => Some(text.to_owned()),
            None if !is_ours && channels == LATENT_CHANNELS && seen.autoencoder.is_none() => {
                Some(ASK_AUTOENCODER.to_owned())
            }
            None => None,
        },
    })
}

/// The preconditioning that the metadata states, which the user may not contradict.
fn preconditioning(
    seen: &Seen<'_>,
    given: &Map<String, Value>,
) -> Result<Option<Precond>, ModelError> {
    let Some(text) = seen.metadata.get(PRECOND_KEY) else {
        return match given.get(PRECOND) {
            None => Ok(None),
            Some(value) => Err(ModelError::Conflict {
                path: seen.path.to_owned(),
                field: format!("model.{PRECOND}"),
                given: brief(value),
                found: "none".to_owned(),
            }),
        };
    };
    match serde_json::from_str::<Precond>(text) {
        Ok(precond @ Precond::Flow { .. }) => Ok(Some(precond)),
        Ok(other) => Err(seen.bad_metadata(
            PRECOND_KEY,
            format!("expected a flow, found {}", other.name()),
        )),
        Err(e) => Err(seen.bad_metadata(PRECOND_KEY, e)),
    }
}

/// The width of the tokens.
fn product(fields: &Map<String, Value>) -> Option<u64> {
    let number = |field| fields.get(field).and_then(Value::as_u64);
    number(HEADS)?.checked_mul(number(HEAD_DIM)?)
}

/// Channels of the latents of the public DiTs.
const LATENT_CHANNELS: usize = 4;

const ASK_AUTOENCODER: &str = "the file does not say what it works on; public DiTs of 4 channels make latents of Stable Diffusion's autoencoder, which must be \
given
  --autoencoder sd-vae-ft-ema, or the file or folder of another autoencoder";

const ASK_HEADS: &str = "the file does not show the number of attention heads, and its width is not that of DiT-S, B, L or XL; it must be given
  --set model.num_attention_heads=HEADS";

const ASK_SIZE: &str =
    "the file has no positions (pos_embed), which show the size of the images; it must be given
  --set model.sample_size=SIDE, 32 for latents of 256x256 images";

const ASK_PROCESS: &str = "the file does not say which process it was trained with: DiT, which predicts noise, and SiT, which predicts a velocity, have the same names and \
shapes, so it must be given
  as facebookresearch/DiT's:
    --set process.noise_schedule=linear --set process.diffusion_steps=1000
  as willisma/SiT's, with its linear path and velocity:
    --set model.precond=sit";
