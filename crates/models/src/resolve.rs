//! The configuration and the process of a file, and how each field is known.

use crate::error::{ModelError, brief};
use crate::known::known_file;
use crate::siblings::Siblings;
use crate::{LoadOptions, scheduler, unet2d};
use sdft_adm::{AdmConfig, EncoderConfig, Inferred, Origin, Pool, infer};
use sdft_diffusion::{MODEL_KEY, PROCESS_KEY, PredictionType, Process};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Key of the fields that were assumed when a file was converted, as `model.FIELD` and `process.FIELD` with commas between.
pub(crate) const ASSUMED_KEY: &str = "sdft.assumed";

/// The configuration of a file from its metadata, the user's settings and its shapes.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolved {
    /// The architecture.
    pub config: AdmConfig,
    /// The head, if it is a classifier.
    pub pool: Option<Pool>,
    /// The diffusion process.
    pub process: Process,
    /// How each field of the architecture is known.
    pub origins: BTreeMap<&'static str, Origin>,
    /// How each field of the process is known.
    pub process_origins: BTreeMap<&'static str, Origin>,
    /// Settings that the user must give because public models of this kind differ; `None` if nothing is missing.
    pub ask: Option<String>,
}

/// The facts about a file.
pub(crate) struct Seen<'a> {
    pub(crate) path: &'a Path,
    /// Names and shapes as guided-diffusion has them.
    pub(crate) shapes: &'a BTreeMap<String, Vec<usize>>,
    pub(crate) metadata: &'a BTreeMap<String, String>,
    /// The file's hash, if it was computed.
    pub(crate) sha256: Option<&'a str>,
    /// The files next to it, if it is in diffusers' layout.
    pub(crate) siblings: Option<&'a Siblings>,
}

impl Seen<'_> {
    fn problem(&self, problem: impl Into<String>) -> ModelError {
        ModelError::Problem {
            path: self.path.to_owned(),
            problem: problem.into(),
        }
    }

    /// The fields of a section that were assumed when the file was written.
    fn assumed(&self, section: &str) -> BTreeSet<&str> {
        let all = self.metadata.get(ASSUMED_KEY).map_or("", String::as_str);
        let fields = all.split(',').filter_map(|field| field.split_once('.'));
        fields
            .filter(|(of, _)| *of == section)
            .map(|(_, field)| field)
            .collect()
    }
}

impl Resolved {
    /// The classifier's architecture, if it is one.
    pub fn encoder(&self) -> Option<EncoderConfig> {
        self.pool.map(|pool| EncoderConfig {
            net: self.config.clone(),
            pool,
        })
    }
}

/// All fields of a configuration, as they are named in TOML.
fn fields(config: &AdmConfig) -> Map<String, Value> {
    match serde_json::to_value(config) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    }
}

/// Resolves the configuration: the file's metadata first, or the settings next to it, then what the user gave, then known files, then names
/// and shapes.
///
/// # Errors
/// Not an ADM network; a value given that contradicts the file; metadata or settings that cannot be read or belong to another kind of
/// network.
pub(crate) fn resolve(seen: &Seen<'_>, options: &LoadOptions) -> Result<Resolved, ModelError> {
    let image_size = options
        .given
        .get("image_size")
        .and_then(Value::as_u64)
        .and_then(|size| usize::try_from(size).ok());
    let inferred = infer(seen.shapes, image_size).map_err(|e| seen.problem(e.to_string()));
    let known = seen.sha256.and_then(known_file);
    let is_known = known.is_some();
    let Inferred {
        config,
        pool,
        origins,
    } = match (seen.metadata.get(MODEL_KEY), seen.siblings) {
        (Some(text), _) => stored(seen, text, &options.given, inferred?)?,
        (None, Some(siblings)) => of_unet2d(seen, siblings, &options.given, inferred?)?,
        (None, None) => {
            let mut inferred = inferred?;
            if let Some(config) = known {
                for origin in inferred.origins.values_mut() {
                    *origin = Origin::Known;
                }
                inferred.pool = None;
                inferred.config = config;
            }
            with_given(seen, &options.given, inferred)?
        }
    };
    let (process, process_origins) = process(seen, options, &config, is_known)?;
    let unknown = ["noise_schedule", "diffusion_steps"]
        .iter()
        .any(|field| process_origins.get(field) == Some(&Origin::Assumed));
    let plain = !config.resblock_updown && config.levels() > 1 && seen.siblings.is_none();
    let ask = unknown && plain && options.process_otherwise.is_none();
    Ok(Resolved {
        config,
        pool,
        process,
        origins,
        process_origins,
        ask: ask.then(|| ASK.to_owned()),
    })
}

/// Why the process must be given: two families of networks have the same names and shapes.
const ASK: &str = "the file does not say which noise schedule of how many steps it was trained with, and it changes resolutions by plain convolutions, as the \
networks of improved-diffusion do and some of guided-diffusion; the process differs between them, so it must be given
  as improved-diffusion's for ImageNet-64 and CIFAR-10 (whose attention has 4 heads):
    --set process.noise_schedule=cosine --set process.diffusion_steps=4000 --set process.rescale_timesteps=true --set model.num_head_channels=0 --set model.num_heads=4
  as guided-diffusion's, and improved-diffusion's for LSUN:
    --set process.noise_schedule=linear --set process.diffusion_steps=1000";

/// The configuration in a file's metadata, which the user may not contradict. Missing fields are resolved as without metadata.
fn stored(
    seen: &Seen<'_>,
    text: &str,
    given: &Map<String, Value>,
    mut inferred: Inferred,
) -> Result<Inferred, ModelError> {
    let bad = |e: String| seen.problem(format!("metadata {MODEL_KEY}: {}", brief(e)));
    let stated = parse_stated::<AdmConfig>(text).map_err(|e| bad(e.to_string()))?;
    let assumed = seen.assumed("model");
    let is_read = |field: &str| stated.contains_key(field) && !assumed.contains(field);
    for (field, origin) in &mut inferred.origins {
        if stated.contains_key(*field) {
            *origin = match assumed.contains(field) {
                true => Origin::Assumed,
                false => Origin::Read,
            };
        }
    }
    let mut all = fields(&inferred.config);
    all.extend(stated.clone());
    let config: AdmConfig =
        serde_json::from_value(Value::Object(all)).map_err(|e| bad(e.to_string()))?;
    config.validate().map_err(|e| bad(e.to_string()))?;
    let is_fixed = |field: &str| is_fixed(field) && is_read(field);
    let fixed = given.iter().filter(|(field, _)| is_fixed(field));
    agree(seen.path, "model", &fields(&config), fixed)?;
    inferred.config = config;
    let given = given.iter().filter(|(field, _)| !is_fixed(field));
    let given = given.map(|(field, value)| (field.clone(), value.clone()));
    with_given(seen, &given.collect(), inferred)
}

/// The fields that a text of metadata states, without defaults; each must be a valid field of `T`.
fn parse_stated<T: DeserializeOwned>(text: &str) -> serde_json::Result<Map<String, Value>> {
    // `T` refuses unknown and duplicate fields.
    serde_json::from_str::<T>(text).and_then(|_| serde_json::from_str(text))
}

/// Dropout belongs to the training, not to the network in the file.
fn is_fixed(field: &str) -> bool {
    field != "dropout"
}

/// The configuration in the `config.json` next to a file in diffusers' layout.
fn of_unet2d(
    seen: &Seen<'_>,
    siblings: &Siblings,
    given: &Map<String, Value>,
    mut inferred: Inferred,
) -> Result<Inferred, ModelError> {
    let Some(settings) = &siblings.config else {
        return Err(seen.problem(
            "diffusers' layout without its config.json, which says how the network is computed (order of sines and cosines, groups and epsilon of \
             the norms, heads, padding); expected it in the same folder",
        ));
    };
    let says_size = unet2d::says_size(settings);
    let config = unet2d::config(settings, &inferred)?;
    let free = |field: &str| !is_fixed(field) || (field == "image_size" && !says_size);
    let fixed = given.iter().filter(|(field, _)| !free(field));
    agree(&settings.path, "model", &fields(&config), fixed)?;
    for (field, origin) in &mut inferred.origins {
        if *field != "image_size" || says_size {
            *origin = Origin::Read;
        }
    }
    inferred.config = config;
    let given = given.iter().filter(|(field, _)| free(field));
    let given = given.map(|(field, value)| (field.clone(), value.clone()));
    with_given(seen, &given.collect(), inferred)
}

/// The configuration with the fields that the user gave.
fn with_given(
    seen: &Seen<'_>,
    given: &Map<String, Value>,
    mut inferred: Inferred,
) -> Result<Inferred, ModelError> {
    if given.is_empty() {
        return Ok(inferred);
    }
    let mut all = fields(&inferred.config);
    for (field, value) in given {
        all.insert(field.clone(), value.clone());
        if let Some(origin) = inferred.origins.get_mut(field.as_str()) {
            *origin = Origin::Given;
        }
    }
    inferred.config = serde_json::from_value(Value::Object(all))
        .map_err(|e| seen.problem(format!("model: {}", brief(e))))?;
    Ok(inferred)
}

/// The fields of a process.
const PROCESS_FIELDS: [&str; 10] = [
    "noise_schedule",
    "diffusion_steps",
    "sigma_small",
    "rescale_timesteps",
    UNWRITTEN[0],
    UNWRITTEN[1],
    UNWRITTEN[2],
    UNWRITTEN[3],
    UNWRITTEN[4],
    SAMPLING,
];
/// The fields that are not written if their value is the default.
pub(crate) const UNWRITTEN: [&str; 6] = [
    "prediction_type",
    "beta_start",
    "beta_end",
    "trained_betas",
    "rescale_betas_zero_snr",
    SAMPLING,
];
/// How a process is sampled, which a file may not fix.
const SAMPLING: &str = "sampling";

/// All fields of a process, those at their default too.
fn process_fields(process: &Process) -> Map<String, Value> {
    let mut fields = match serde_json::to_value(process) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    };
    let defaults = [
        PredictionType::Epsilon.name().into(),
        Value::Null,
        Value::Null,
        Value::Array(Vec::new()),
        false.into(),
        Value::Null,
    ];
    for (field, default) in UNWRITTEN.into_iter().zip(defaults) {
        fields.entry(field).or_insert(default);
    }
    fields
}

/// The process: fields that the file states, which the user may not contradict; other fields from the user, the caller, or the default.
fn process(
    seen: &Seen<'_>,
    options: &LoadOptions,
    config: &AdmConfig,
    is_known: bool,
) -> Result<(Process, BTreeMap<&'static str, Origin>), ModelError> {
    let scheduler = seen
        .siblings
        .and_then(|siblings| siblings.scheduler.as_ref());
    let stated = match (seen.metadata.get(PROCESS_KEY), scheduler) {
        (Some(text), _) => {
            let mut fields = parse_stated::<Process>(text)
                .map_err(|e| seen.problem(format!("metadata {PROCESS_KEY}: {}", brief(e))))?;
            // A complete process without such a field has its default.
            let assumed = seen.assumed("process");
            let written = PROCESS_FIELDS
                .iter()
                .filter(|field| !UNWRITTEN.contains(field));
            let mut known =
                written.map(|field| fields.contains_key(*field) && !assumed.contains(field));
            if known.all(|is_known| is_known) {
                let mut all = process_fields(&Process::default());
                all.extend(fields);
                fields = all;
            }
            fields
        }
        (None, Some(settings)) => scheduler::process(settings, config.learns_variance())?,
        (None, None) => Map::new(),
    };
    let (usual, origin) = match &options.process_otherwise {
        _ if is_known => (Process::default(), Origin::Known),
        Some(process) => (process.clone(), Origin::Assumed),
        None => (Process::default(), Origin::Assumed),
    };
    let mut all = process_fields(&usual);
    all.extend(stated.clone());
    let given = &options.given_process;
    let assumed = seen.assumed("process");
    let origin_of = |field: &str| match (stated.contains_key(field), assumed.contains(field)) {
        (false, _) => origin,
        (true, true) => Origin::Assumed,
        (true, false) => Origin::Read,
    };
    let mut origins: BTreeMap<&'static str, Origin> = PROCESS_FIELDS
        .iter()
        .map(|field| (*field, origin_of(field)))
        .collect();
    let is_read = |field: &str| field != SAMPLING && origins.get(field) == Some(&Origin::Read);
    let fixed = given.iter().filter(|(field, _)| is_read(field));
    agree(seen.path, "process", &all, fixed)?;
    for (field, value) in given {
        match (all.get_mut(field), value) {
            // Single settings of the sampler.
            (Some(Value::Object(stated)), Value::Object(given)) => stated.extend(given.clone()),
            _ => {
                all.insert(field.clone(), value.clone());
            }
        }
        if let Some(origin) = origins.get_mut(field.as_str())
            && (*origin != Origin::Read || field == SAMPLING)
        {
            *origin = Origin::Given;
        }
    }
    let process: Process = serde_json::from_value(Value::Object(all))
        .map_err(|e| seen.problem(format!("process: {}", brief(e))))?;
    process.check().map_err(|e| seen.problem(e.to_string()))?;
    Ok((process, origins))
}

/// Fails if a given value differs from the stored one.
fn agree<'a>(
    path: &Path,
    section: &str,
    stored: &Map<String, Value>,
    given: impl IntoIterator<Item = (&'a String, &'a Value)>,
) -> Result<(), ModelError> {
    for (field, value) in given {
        match stored.get(field) {
            Some(found) if same(found, value) => {}
            Some(found) => {
                return Err(ModelError::Conflict {
                    path: path.to_owned(),
                    field: format!("{section}.{field}"),
                    given: brief(value),
                    found: brief(found),
                });
            }
            None => {
                return Err(ModelError::Problem {
                    path: path.to_owned(),
                    problem: format!("there is no field {section}.{field}"),
                });
            }
        }
    }
    Ok(())
}

/// Equal, whether a number is written with or without a fraction.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        _ => a == b || a.as_f64().is_some_and(|a| Some(a) == b.as_f64()),
    }
}

/// Changes that would make a configuration fit the shapes, for the error message.
pub(crate) fn hints(config: &AdmConfig, shapes: &BTreeMap<String, Vec<usize>>) -> Vec<String> {
    let Ok(inferred) = infer(shapes, Some(config.image_size)) else {
        return Vec::new();
    };
    let (want, found) = (fields(config), fields(&inferred.config));
    let visible = |field: &str| inferred.origins.get(field) == Some(&Origin::Inferred);
    found
        .iter()
        .filter(|(field, value)| visible(field) && !same(&want[field.as_str()], value))
        .map(|(field, value)| {
            format!(
                "likely cause: the file has model.{field} = {}, the configuration says {}",
                brief(value),
                brief(&want[field.as_str()])
            )
        })
        .collect()
}
