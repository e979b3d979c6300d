//! guided-diffusion's networks: the architecture of their files.

use super::fields::{Fields, agrees};
use super::{Found, Seen, is_free, process};
use crate::Architecture;
use crate::error::{ModelError, brief};
use crate::known::known_file;
use crate::layout::Shapes;
use crate::section::{PRECOND, PRECOND_EDM};
use sdft_adm::{AdmConfig, Inferred, Origin, infer};
use sdft_diffusion::{MODEL_KEY, PRECOND_KEY, Precond};
use serde_json::{Map, Value};

/// The architecture of a file in guided-diffusion's layout.
pub(super) fn find(seen: &Seen<'_>, given: &Map<String, Value>) -> Result<Found, ModelError> {
    let image_size = given
        .get("image_size")
        .and_then(Value::as_u64)
        .and_then(|size| usize::try_from(size).ok());
    let inferred = infer(seen.shapes, image_size).map_err(|e| seen.problem(e.to_string()))?;
    let mut fields = Fields {
        all: Architecture::Adm(inferred.config).fields(),
        origins: inferred
            .origins
            .into_iter()
            .map(|(field, origin)| (field.to_owned(), origin))
            .collect(),
    };
    let mut pool = inferred.pool;
    let known = match seen.metadata.contains_key(MODEL_KEY) {
        true => None,
        false => seen.sha256.and_then(known_file),
    };
    if let Some(config) = &known {
        fields = Fields::new(Architecture::Adm(config.clone()).fields(), Origin::Known);
        pool = None;
    }
    let stated = seen.stated::<AdmConfig>()?;
    if let Some(stated) = &stated {
        fields.state(stated, &seen.assumed("model"));
        preconditioning(seen, given, &mut fields)?;
        // The metadata must be valid, regardless of the settings given.
        let config = Architecture::from_fields(fields.all.clone())
            .map_err(|e| seen.bad_metadata(MODEL_KEY, e))?;
        let checked = config.check();
        checked.map_err(|e| seen.bad_metadata(MODEL_KEY, e))?;
    } else if given.contains_key(PRECOND) {
        // openai/consistency_models has this order only.
        fields.set("use_new_attention_order", true.into(), Origin::Known);
    }
    fields.give(seen.path, "model", given, is_free)?;
    let architecture = Architecture::from_fields(fields.all).map_err(|e| seen.bad_model(e))?;
    let is_plain = match &architecture {
        Architecture::Adm(config) => !config.resblock_updown && config.levels() > 1,
        _ => false,
    };
    let fixed_variance =
        matches!(architecture, Architecture::Adm(_)) && !architecture.learns_variance();
    let ask_process = match (pool, is_plain, fixed_variance) {
        (None, ..) if seen.autoencoder.is_some() => Some(ASK_LATENT),
        (_, true, _) => Some(ASK_PLAIN),
        (None, false, true) => Some(ASK_FIXED_VARIANCE),
        _ => None,
    };
    let usual = match &architecture {
        Architecture::AdmEdm(_) => process::continuous(&Precond::CONSISTENCY_ADM),
        _ if known.is_some() => process::guided_diffusion(Origin::Known),
        _ => process::guided_diffusion(Origin::Assumed),
    };
    Ok(Found {
        architecture,
        pool,
        origins: fields.origins,
        usual,
        ask_process,
        ask: None,
    })
}

/// The preconditioning that the metadata states, which the user may not contradict.
fn preconditioning(
    seen: &Seen<'_>,
    given: &Map<String, Value>,
    fields: &mut Fields,
) -> Result<(), ModelError> {
    let Some(text) = seen.metadata.get(PRECOND_KEY) else {
        return match given.get(PRECOND) {
            None => Ok(()),
            Some(value) => Err(ModelError::Conflict {
                path: seen.path.to_owned(),
                field: format!("model.{PRECOND}"),
                given: brief(value),
                found: "none".to_owned(),
            }),
        };
    };
    match serde_json::from_str::<Precond>(text) {
        Ok(Precond::CONSISTENCY_ADM) => {
            fields.set(PRECOND, PRECOND_EDM.into(), Origin::Read);
            Ok(())
        }
        Ok(other) => Err(seen.bad_metadata(
            PRECOND_KEY,
            format!("expected {:?}, found {other:?}", Precond::CONSISTENCY_ADM),
        )),
        Err(e) => Err(seen.bad_metadata(PRECOND_KEY, e)),
    }
}

/// Why the process must be given: two families of networks have the same names and shapes.
const ASK_PLAIN: &str = "the file does not say which noise schedule of how many steps it was trained with, and it changes resolutions by plain convolutions, as the \
networks of improved-diffusion do and some of guided-diffusion; the process differs between them, so it must be given
  as improved-diffusion's for ImageNet-64 and CIFAR-10 (whose attention has 4 heads):
    --set process.noise_schedule=cosine --set process.diffusion_steps=4000 --set process.rescale_timesteps=true --set model.num_head_channels=0 --set model.num_heads=4
  as guided-diffusion's, and improved-diffusion's for LSUN:
    --set process.noise_schedule=linear --set process.diffusion_steps=1000";

/// The same for networks of latents. What latent diffusion calls linear are the squares of even steps.
const ASK_LATENT: &str = "the file does not say which noise schedule of how many steps its network of latents was trained with, nor how many heads its attention has; \
public models differ, so it must be given
  as latent diffusion's for FFHQ, CelebA-HQ and LSUN bedrooms:
    --set process.noise_schedule=scaled_linear --set process.beta_start=0.0015 --set process.beta_end=0.0195 --set process.diffusion_steps=1000 --set model.num_head_channels=32
  as another configuration of latent diffusion states it:
    beta_start is its linear_start, beta_end its linear_end, diffusion_steps its timesteps; model.num_head_channels as there, or 0 and model.num_heads as there";

/// The same for networks that do not predict their variance.
const ASK_FIXED_VARIANCE: &str = "the file does not say what its network is called with, and it does not predict a variance, as the networks of openai/consistency_models do and \
some of guided-diffusion; they are computed differently, so it must be given
  as openai/consistency_models' EDM networks, with EDM's preconditioning:
    --set model.precond=edm
  as guided-diffusion's:
    --set process.noise_schedule=linear --set process.diffusion_steps=1000";

/// Changes that would make a configuration fit the shapes, for the error message.
pub(crate) fn hints(config: &AdmConfig, shapes: &Shapes) -> Vec<String> {
    let Ok(Inferred {
        config: inferred,
        origins,
        ..
    }) = infer(shapes, Some(config.image_size))
    else {
        return Vec::new();
    };
    let want = Architecture::Adm(config.clone()).fields();
    let found = Architecture::Adm(inferred).fields();
    let visible = |field: &str| origins.get(field) == Some(&Origin::Inferred);
    // Fields of their default may be absent.
    let wanted = |field: &str| want.get(field).unwrap_or(&Value::Null);
    found
        .iter()
        .filter(|(field, value)| visible(field) && !agrees(wanted(field), value))
        .map(|(field, value)| {
            format!(
                "likely cause: the file has model.{field} = {}, the configuration says {}",
                brief(value),
                brief(wanted(field))
            )
        })
        .collect()
}
