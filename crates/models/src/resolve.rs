use crate::error::ModelError;
use crate::known::known_file;
use crate::{LoadOptions, Process};
use sdft_adm::{AdmConfig, EncoderConfig, Inferred, Origin, Pool, infer};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::Path;

/// Key of the configuration in a file's metadata.
pub(crate) const MODEL_KEY: &str = "sdft.model";
/// Key of the process in a file's metadata.
pub(crate) const PROCESS_KEY: &str = "sdft.process";
/// Prefix of everything about how a file came to be.
pub(crate) const PROVENANCE_PREFIX: &str = "sdft.provenance.";

/// What a file holds, as far as its metadata, its user and its shapes tell.
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

/// Settles the configuration: the file's metadata first, then what the user gave, then known files, then names and shapes.
///
/// # Errors
/// Not an ADM network; a value given that contradicts the file's metadata; metadata that cannot be read.
pub(crate) fn resolve(
    path: &Path,
    shapes: &BTreeMap<String, Vec<usize>>,
    metadata: &BTreeMap<String, String>,
    options: &LoadOptions,
    sha256: Option<&str>,
) -> Result<Resolved, ModelError> {
    let given = &options.given;
    let problem = |problem: String| ModelError::Problem {
        path: path.to_owned(),
        problem,
    };
    let process = process(path, metadata.get(PROCESS_KEY), &options.given_process)?;
    let image_size = given
        .get("image_size")
        .and_then(Value::as_u64)
        .and_then(|size| usize::try_from(size).ok());
    let inferred = infer(shapes, image_size).map_err(&problem);
    let Some(text) = metadata.get(MODEL_KEY) else {
        let known = sha256.and_then(known_file);
        let Inferred {
            config,
            pool,
            origins,
        } = match known {
            Some(config) => {
                let origins = inferred?
                    .origins
                    .into_keys()
                    .map(|field| (field, Origin::Known))
                    .collect();
                Inferred {
                    config,
                    pool: None,
                    origins,
                }
            }
            None => inferred?,
        };
        let mut all = fields(&config);
        let mut origins = origins;
        for (field, value) in given {
            all.insert(field.clone(), value.clone());
            if let Some(origin) = origins.iter_mut().find(|(known, _)| *known == field) {
                *origin.1 = Origin::Given;
            }
        }
        let config = serde_json::from_value(Value::Object(all))
            .map_err(|e| problem(format!("model: {e}")))?;
        return Ok(Resolved {
            config,
            pool,
            process,
            origins,
        });
    };
    let config: AdmConfig =
        serde_json::from_str(text).map_err(|e| problem(format!("metadata {MODEL_KEY}: {e}")))?;
    // Dropout belongs to the training, not to the network in the file.
    let fixed = given.iter().filter(|(field, _)| *field != "dropout");
    agree(path, "model", &fields(&config), fixed)?;
    let config = AdmConfig {
        dropout: given
            .get("dropout")
            .and_then(Value::as_f64)
            .unwrap_or(config.dropout),
        ..config
    };
    let inferred = inferred?;
    let origins = inferred
        .origins
        .into_keys()
        .map(|field| (field, Origin::Read))
        .collect();
    Ok(Resolved {
        config,
        pool: inferred.pool,
        process,
        origins,
    })
}

/// The process: that of the file, which what is given may not contradict; else the usual one with what is given.
fn process(
    path: &Path,
    stored: Option<&String>,
    given: &Map<String, Value>,
) -> Result<Process, ModelError> {
    let problem = |what: &str, e: serde_json::Error| ModelError::Problem {
        path: path.to_owned(),
        problem: format!("{what}: {e}"),
    };
    let known = match stored {
        Some(text) => serde_json::from_str(text)
            .map_err(|e| problem(&format!("metadata {PROCESS_KEY}"), e))?,
        None => Process::default(),
    };
    let Ok(Value::Object(mut all)) = serde_json::to_value(&known) else {
        return Ok(known);
    };
    if stored.is_some() {
        agree(path, "process", &all, given)?;
        return Ok(known);
    }
    all.extend(
        given
            .iter()
            .map(|(key, value)| (key.clone(), value.clone())),
    );
    serde_json::from_value(Value::Object(all)).map_err(|e| problem("process", e))
}

/// Fails if a value given is another than the one stored.
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
                    given: value.to_string(),
                    found: found.to_string(),
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

/// What would make a configuration fit the shapes, for the message about a misfit.
pub(crate) fn hints(config: &AdmConfig, shapes: &BTreeMap<String, Vec<usize>>) -> String {
    let Ok(inferred) = infer(shapes, Some(config.image_size)) else {
        return String::new();
    };
    let (want, found) = (fields(config), fields(&inferred.config));
    let visible = |field: &str| inferred.origins.get(field) == Some(&Origin::Inferred);
    let lines: Vec<String> = found
        .iter()
        .filter(|(field, value)| visible(field) && !same(&want[field.as_str()], value))
        .map(|(field, value)| {
            format!(
                "likely cause: the file has model.{field} = {value}, the configuration says {}",
                want[field.as_str()]
            )
        })
        .collect();
    lines.join("\n")
}
