//! NVlabs/edm's networks: the architecture of their files.

use super::fields::Fields;
use super::{Found, Seen, process};
use crate::Architecture;
use crate::error::{ModelError, brief};
use sdft_adm::Origin;
use sdft_checkpoint::CONSTRUCTOR_KEY;
use sdft_diffusion::{MODEL_KEY, Precond};
use sdft_edm::{EdmConfig, from_arguments, infer};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// The field of the preconditioning, which does not follow from shapes.
const PRECOND: &str = "precond";

/// The architecture of a file in NVlabs/edm's layout: from its metadata, from the constructor of a snapshot, or from names and shapes and
/// the user's settings.
pub(super) fn find(seen: &Seen<'_>, given: &Map<String, Value>) -> Result<Found, ModelError> {
    let mut given = given.clone();
    if let Some(Value::String(name)) = given.get(PRECOND) {
        let precond = named(name).ok_or_else(|| {
            seen.problem(format!(
                "model.{PRECOND}: expected edm, vp or ve, found {}",
                brief(name)
            ))
        })?;
        given.insert(PRECOND.to_owned(), json!(precond));
    }
    let mut fields = Fields::default();
    let (metadata, snapshot) = (
        seen.metadata.get(MODEL_KEY),
        seen.metadata.get(CONSTRUCTOR_KEY),
    );
    if metadata.is_some() {
        let stated = seen.stated::<EdmConfig>()?.unwrap_or_default();
        // A file states every field.
        let config: EdmConfig = serde_json::from_value(Value::Object(stated))
            .map_err(|e| seen.bad_metadata(MODEL_KEY, e))?;
        fields.state(&Architecture::Edm(config).fields(), &seen.assumed("model"));
    } else if let Some(text) = snapshot {
        let config = constructed(seen, text)?;
        fields.state(&Architecture::Edm(config).fields(), &Default::default());
    } else {
        let inferred = infer(seen.shapes).map_err(|e| seen.problem(brief(e)))?;
        fields = Fields::new(
            Architecture::Edm(inferred.config).fields(),
            Origin::Inferred,
        );
        for field in inferred.assumed {
            let field = match fields.all.contains_key(field) {
                true => field.to_owned(),
                // A field of the network inside the preconditioning.
                false => format!("model.{field}"),
            };
            fields.origins.insert(field, Origin::Assumed);
        }
    }
    fields.give(seen.path, "model", &given, |_| false)?;
    let ask = match fields.is_assumed(PRECOND) {
        true => Some(ASK.to_owned()),
        false => None,
    };
    let config: EdmConfig =
        serde_json::from_value(Value::Object(fields.all)).map_err(|e| seen.bad_model(e))?;
    let usual = process::continuous(&config.precond);
    let architecture = Architecture::Edm(config);
    architecture
        .check()
        .map_err(|e| seen.problem(e.to_string()))?;
    Ok(Found {
        architecture,
        pool: None,
        origins: fields.origins,
        usual,
        ask_process: None,
        ask,
    })
}

/// The preconditioning that is meant by a short name, with the defaults of its class.
fn named(name: &str) -> Option<Precond> {
    match name {
        "edm" | "EDMPrecond" => Some(Precond::EDM),
        "vp" | "VPPrecond" => Some(Precond::VP),
        "ve" | "VEPrecond" => Some(Precond::VE),
        _ => None,
    }
}

const ASK: &str = "the file does not say which preconditioning its network was trained with, which changes every number; it must be given (NVIDIA's .pkl \
snapshots say it)
  --set model.precond=edm, vp or ve, as the class EDMPrecond, VPPrecond or VEPrecond of NVlabs/edm";

/// A snapshot's constructor, as [`CONSTRUCTOR_KEY`] describes it.
#[derive(Deserialize)]
struct Constructor {
    class_name: String,
    #[serde(default)]
    args: Vec<Value>,
    #[serde(default)]
    kwargs: Map<String, Value>,
}

/// Positional arguments of every preconditioning.
const POSITIONAL: [&str; 2] = ["img_resolution", "img_channels"];

fn constructed(seen: &Seen<'_>, text: &str) -> Result<EdmConfig, ModelError> {
    let bad = |problem: String| seen.problem(format!("the network's constructor: {problem}"));
    let constructor: Constructor = serde_json::from_str(text).map_err(|e| bad(brief(e)))?;
    if constructor.args.len() > POSITIONAL.len() {
        return Err(bad(format!(
            "expected keyword arguments, found {} positional ones",
            constructor.args.len()
        )));
    }
    let mut arguments = constructor.kwargs;
    for (name, value) in POSITIONAL.into_iter().zip(constructor.args) {
        arguments.insert(name.to_owned(), value);
    }
    from_arguments(&constructor.class_name, &arguments).map_err(|e| bad(brief(e)))
}
