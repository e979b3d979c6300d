//! `inspect`: a weights file -> its architecture, parameters and metadata as text or JSON.

use crate::args::InspectArgs;
use crate::console::{line, plural, size};
use crate::model::model_path;
use anyhow::Result;
use sdft_autoencoder::AutoencoderConfig;
use sdft_checkpoint::NonFinite;
use sdft_models::{Inspected, LoadOptions, Resolved, inspect_file, scan_file};
use serde_json::{Map, Value, json};
use std::path::Path;

pub(crate) fn inspect(args: &InspectArgs) -> Result<()> {
    let located = model_path(&args.file)?;
    let (file, shown) = (&located.file, located.shown(&args.file));
    let options = LoadOptions {
        key: args.key.clone(),
        autoencoder: located.autoencoder.clone(),
        ..LoadOptions::default()
    };
    let found = inspect_file(file, &options)?;
    if args.json {
        let odd = scan_file(file, &options)?;
        let all = as_json(shown, &found, &odd, args.tensors);
        return line(serde_json::to_string_pretty(&all)?);
    }
    let summary = &found.summary;
    line(format_args!(
        "{}: {}, {}",
        shown.display(),
        summary.container,
        size(summary.file_size)
    ))?;
    if let Some(key) = &summary.nested_under {
        line(format_args!("weights under {key:?}"))?;
    }
    for other in summary.alternatives.iter().filter(|key| !key.is_empty()) {
        line(format_args!("also there: {other:?} (--key {other})"))?;
    }
    for note in &found.notes {
        line(format_args!("note: {note}"))?;
    }
    let types: Vec<String> = summary
        .dtypes
        .iter()
        .map(|(dtype, count)| format!("{count} {dtype}"))
        .collect();
    line(format_args!(
        "{} ({}), {} parameters",
        plural(summary.tensors.len(), "tensor", "tensors"),
        types.join(", "),
        summary.n_parameters
    ))?;
    match (&found.autoencoder, &found.resolved) {
        (Some((config, ask)), _) => {
            line(format_args!("{}:", autoencoder(config)))?;
            print(&fields(config.fields(), |_| None))?;
            if let Some(ask) = ask {
                line(format_args!("unknown: {ask}"))?;
            }
        }
        (None, Ok(resolved)) => {
            line(format_args!("{}:", kind(resolved)))?;
            print(&fields_of_architecture(resolved))?;
            match &resolved.ask {
                Some(ask) => line(format_args!("process: unknown; {ask}"))?,
                None => {
                    line(format_args!("process:"))?;
                    print(&fields_of_process(resolved))?;
                }
            }
        }
        (None, Err(problem)) => line(format_args!(
            "no network that this program knows: {problem}"
        ))?,
    }
    if let Some(misfit) = &found.misfit {
        line(format_args!("does not fit this architecture:\n{misfit}"))?;
    }
    finite(&scan_file(file, &options)?)?;
    for (key, value) in &summary.metadata {
        line(format_args!("metadata {key} = {value}"))?;
    }
    if args.tensors {
        for tensor in &summary.tensors {
            line(format_args!(
                "{:48} {:20} {}",
                tensor.name,
                format!("{:?}", tensor.shape),
                tensor.dtype
            ))?;
        }
    }
    Ok(())
}

/// The kind of a network, in words.
fn kind(resolved: &Resolved) -> String {
    match resolved.pool {
        Some(pool) => format!("ADM classifier, {pool:?} pool"),
        None => resolved.architecture.title().to_owned(),
    }
}

/// The kind of an autoencoder, in words.
fn autoencoder(config: &AutoencoderConfig) -> String {
    let (class, channels, factor) = (
        config.class_name(),
        config.latent_channels(),
        config.factor(),
    );
    format!("autoencoder ({class}), {factor}x{factor} pixels to {channels} latent channels")
}

/// A field with its value and how the value is known.
struct Field {
    name: String,
    value: Value,
    origin: String,
}

fn fields_of_architecture(resolved: &Resolved) -> Vec<Field> {
    let origin = |field: &str| resolved.origins.get(field).map(ToString::to_string);
    fields(resolved.architecture.fields(), origin)
}

fn fields_of_process(resolved: &Resolved) -> Vec<Field> {
    let origin = |field: &str| resolved.process_origins.get(field).map(ToString::to_string);
    match serde_json::to_value(&resolved.process) {
        Ok(Value::Object(all)) => fields(all, origin),
        // A process is a struct.
        _ => Vec::new(),
    }
}

/// The fields of a section. Those of an inner section have dotted names and, unless they have their own, the origin of that section.
fn fields(section: Map<String, Value>, origin: impl Fn(&str) -> Option<String>) -> Vec<Field> {
    fn collect(
        prefix: &str,
        section: Map<String, Value>,
        above: &str,
        origin: &dyn Fn(&str) -> Option<String>,
        out: &mut Vec<Field>,
    ) {
        for (field, value) in section {
            let name = format!("{prefix}{field}");
            let origin_here = origin(&name).unwrap_or_else(|| above.to_owned());
            match value {
                Value::Object(inner) => {
                    collect(&format!("{name}."), inner, &origin_here, origin, out);
                }
                value => out.push(Field {
                    name,
                    value,
                    origin: origin_here,
                }),
            }
        }
    }
    let mut out = Vec::new();
    collect("", section, "", &origin, &mut out);
    out
}

/// One line for each field, in columns.
fn print(fields: &[Field]) -> Result<()> {
    let names = fields.iter().map(|field| field.name.len());
    let width = names.max().unwrap_or(0).max(24);
    for Field {
        name,
        value,
        origin,
    } in fields
    {
        line(format_args!(
            "  {name:width$} {:28} {origin}",
            value.to_string()
        ))?;
    }
    Ok(())
}

/// Everything that the text says, for programs.
fn as_json(file: &Path, found: &Inspected, odd: &[NonFinite], with_tensors: bool) -> Value {
    let summary = &found.summary;
    let dtypes = summary.dtypes.iter();
    let dtypes: Map<String, Value> = dtypes
        .map(|(dtype, n)| (dtype.to_string(), json!(n)))
        .collect();
    let mut all = json!({
        "file": file,
        "container": summary.container.to_string(),
        "bytes": summary.file_size,
        "key": summary.nested_under,
        "keys": summary.alternatives,
        "notes": found.notes,
        "n_tensors": summary.tensors.len(),
        "dtypes": dtypes,
        "n_parameters": summary.n_parameters,
        "not_finite": odd.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "metadata": summary.metadata,
    });
    match (&found.autoencoder, &found.resolved) {
        (Some((config, ask)), _) => {
            all["kind"] = autoencoder(config).into();
            all["architecture"] = AutoencoderConfig::KIND.into();
            all["model"] = section(fields(config.fields(), |_| None));
            all["missing"] = json!(ask);
        }
        (None, Ok(resolved)) => {
            all["kind"] = kind(resolved).into();
            all["architecture"] = resolved.architecture.name().into();
            all["model"] = section(fields_of_architecture(resolved));
            all["process"] = section(fields_of_process(resolved));
            all["missing"] = json!(resolved.ask);
        }
        (None, Err(problem)) => all["problem"] = problem.to_string().into(),
    }
    if found.autoencoder.is_some() || found.resolved.is_ok() {
        all["misfit"] = json!(found.misfit.as_ref().map(ToString::to_string));
    }
    if with_tensors {
        let tensors = summary.tensors.iter().map(
            |tensor| json!({ "name": tensor.name, "shape": tensor.shape, "dtype": tensor.dtype.to_string() }),
        );
        all["tensors"] = tensors.collect();
    }
    all
}

fn section(fields: Vec<Field>) -> Value {
    let fields = fields.into_iter().map(|field| {
        let known = json!({ "value": field.value, "origin": field.origin });
        (field.name, known)
    });
    Value::Object(fields.collect())
}

/// Tensors with values that are not finite.
fn finite(odd: &[NonFinite]) -> Result<()> {
    const MOST: usize = 20;
    if odd.is_empty() {
        return line(format_args!("every number is finite"));
    }
    line(format_args!(
        "{} with NaN or infinite values, which every command refuses:",
        plural(odd.len(), "tensor", "tensors")
    ))?;
    for tensor in odd.iter().take(MOST) {
        line(format_args!("  {tensor}"))?;
    }
    if odd.len() > MOST {
        line(format_args!("  and {} more tensors", odd.len() - MOST))?;
    }
    Ok(())
}
