//! The process of a file, and how each field is known.

use super::fields::Fields;
use super::{Found, SAMPLING, Seen, parse_stated};
use crate::error::{ModelError, brief};
use crate::folder::Settings;
use crate::{LoadOptions, scheduler};
use sdft_adm::Origin;
use sdft_diffusion::{Continuous, PROCESS_KEY, Precond, PredictionType, Process};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// The fields that are written only if they differ from their default.
fn unwritten() -> [(&'static str, Value); 8] {
    [
        ("prediction_type", PredictionType::Epsilon.name().into()),
        ("beta_start", Value::Null),
        ("beta_end", Value::Null),
        ("trained_betas", json!([])),
        ("rescale_betas_zero_snr", false.into()),
        ("unbounded", false.into()),
        (SAMPLING, Value::Null),
        ("continuous", Value::Null),
    ]
}

/// Every field of a process.
fn all(process: &Process) -> Map<String, Value> {
    let mut fields = match serde_json::to_value(process) {
        Ok(Value::Object(fields)) => fields,
        // A process is a struct of numbers, texts and lists.
        _ => Map::new(),
    };
    for (field, default) in unwritten() {
        fields.entry(field).or_insert(default);
    }
    fields
}

/// guided-diffusion's usual process.
pub(super) fn guided_diffusion(origin: Origin) -> Fields {
    Fields::new(all(&Process::default()), origin)
}

/// The process of a model whose `DDPMScheduler` has every default.
pub(super) fn diffusers(learns_variance: bool) -> Result<Fields, ModelError> {
    let mut fields = guided_diffusion(Origin::Assumed);
    let class = json!({"_class_name": "DDPMScheduler"});
    let settings = Settings {
        path: "scheduler_config.json".into(),
        fields: class.as_object().cloned().unwrap_or_default(),
    };
    for (field, value) in scheduler::process(&settings, learns_variance)? {
        fields.set(&field, value, Origin::Assumed);
    }
    Ok(fields)
}

/// The process of a network with this preconditioning; steps count its discrete view.
pub(super) fn continuous(precond: &Precond) -> Fields {
    let process = Process {
        prediction_type: PredictionType::Sample,
        continuous: Some(Continuous::of(precond)),
        ..Process::default()
    };
    Fields::new(all(&process), Origin::Inferred)
}

/// The process: fields that the file states, which the user may not contradict; other fields from the user, the caller, or the usual
/// process of such files.
pub(super) fn find(
    seen: &Seen<'_>,
    options: &LoadOptions,
    found: &Found,
) -> Result<(Process, BTreeMap<String, Origin>), ModelError> {
    let mut fields = match &options.process_otherwise {
        Some(process) if found.usual.is_assumed("noise_schedule") => {
            Fields::new(all(process), Origin::Assumed)
        }
        _ => found.usual.clone(),
    };
    let mut path = seen.path;
    if let Some(text) = seen.metadata.get(PROCESS_KEY) {
        let mut stated =
            parse_stated::<Process>(text).map_err(|e| seen.bad_metadata(PROCESS_KEY, e))?;
        let assumed = seen.assumed("process");
        let written = all(&Process::default());
        let is_unwritten = |field: &str| unwritten().iter().any(|(name, _)| *name == field);
        let mut others = written.keys().filter(|field| !is_unwritten(field));
        // A complete process has the default of every field that is not written.
        if others.all(|field| stated.contains_key(field) && !assumed.contains(field.as_str())) {
            for (field, default) in unwritten() {
                stated.entry(field).or_insert(default);
            }
        }
        fields.state(&stated, &assumed);
    } else if let Some(settings) = &seen.siblings.scheduler {
        let learns_variance = found.architecture.learns_variance();
        let stated = scheduler::process(settings, learns_variance)?;
        fields.state(&stated, &Default::default());
        path = &settings.path;
    }
    // How a process is sampled is not fixed by the file.
    fields.give(path, "process", &options.given_process, |field| {
        field == SAMPLING
    })?;
    let process: Process = serde_json::from_value(Value::Object(fields.all))
        .map_err(|e| seen.problem(format!("process: {}", brief(e))))?;
    process.check().map_err(|e| ModelError::Problem {
        path: path.to_owned(),
        problem: e.to_string(),
    })?;
    let architecture = &found.architecture;
    match (architecture.precond(), process.continuous) {
        (Some(precond), Some(continuous)) if continuous.fits(&precond) => {
            Ok((process, fields.origins))
        }
        (Some(precond), found) => Err(seen.problem(format!(
            "process.continuous: the network has the preconditioning {}, which needs {}, found {}",
            precond.name(),
            match Continuous::of(&precond) {
                Continuous::Edm(_) => "a continuous process",
                Continuous::Flow(_) => "a flow (process_type = \"flow\")",
            },
            match found {
                None => "none",
                Some(Continuous::Edm(_)) => "EDM's",
                Some(Continuous::Flow(_)) => "a flow",
            }
        ))),
        (None, Some(_)) => Err(seen
            .problem("process.continuous: expected none, as the network has no preconditioning")),
        (None, None) => Ok((process, fields.origins)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_of_a_process_is_known() {
        let fields = all(&Process::default());
        let again: Process = serde_json::from_value(Value::Object(fields.clone())).unwrap();
        assert_eq!(again, Process::default());
        let unknown = serde_json::from_value::<Process>(json!({"no such field": 1}));
        let text = unknown.unwrap_err().to_string();
        let (_, known) = text.split_once("expected one of").unwrap();
        for field in known.split(',') {
            let field = field.trim_matches(|c: char| !c.is_alphanumeric() && c != '_');
            let field = field.split('`').next().unwrap();
            assert!(fields.contains_key(field), "{field}: {text}");
        }
    }
}
