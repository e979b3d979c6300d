//! `inspect`: a weights file -> its architecture, parameters and metadata as text.

use crate::args::InspectArgs;
use crate::console::{line, size};
use crate::model::model_path;
use anyhow::Result;
use sdft_checkpoint::NonFinite;
use sdft_models::{LoadOptions, Resolved, inspect_file, scan_file};

pub(crate) fn inspect(args: &InspectArgs) -> Result<()> {
    let options = LoadOptions {
        key: args.key.clone(),
        ..LoadOptions::default()
    };
    let file = model_path(&args.file)?;
    let found = inspect_file(&file, &options)?;
    let summary = &found.summary;
    line(format_args!(
        "{}: {}, {}",
        file.display(),
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
        "{} tensors ({}), {} parameters",
        summary.tensors.len(),
        types.join(", "),
        summary.n_parameters
    ))?;
    match &found.resolved {
        Ok(resolved) => {
            let kind = match resolved.pool {
                Some(pool) => format!("ADM classifier, {pool:?} pool"),
                None => resolved.architecture.title().to_owned(),
            };
            line(format_args!("{kind}:"))?;
            for (field, value) in resolved.architecture.fields() {
                let origin = resolved
                    .origins
                    .get(field.as_str())
                    .map_or_else(String::new, ToString::to_string);
                line(format_args!(
                    "  {field:24} {:28} {origin}",
                    value.to_string()
                ))?;
            }
            process(resolved)?;
            if let Some(misfit) = &found.misfit {
                line(format_args!("does not fit this architecture:\n{misfit}"))?;
            }
        }
        Err(problem) => line(format_args!("architecture not recognised: {problem}"))?,
    }
    finite(&scan_file(&file, &options)?)?;
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

/// The process and the origin of each field, or what the user has to give.
fn process(resolved: &Resolved) -> Result<()> {
    if let Some(ask) = &resolved.ask {
        return line(format_args!("process: unknown; {ask}"));
    }
    line(format_args!("process:"))?;
    let Ok(serde_json::Value::Object(fields)) = serde_json::to_value(&resolved.process) else {
        return Ok(());
    };
    for (field, value) in fields {
        let origin = resolved
            .process_origins
            .get(field.as_str())
            .map_or_else(String::new, ToString::to_string);
        line(format_args!(
            "  {field:24} {:28} {origin}",
            value.to_string()
        ))?;
    }
    Ok(())
}

/// Tensors with values that are not finite.
fn finite(odd: &[NonFinite]) -> Result<()> {
    const MOST: usize = 20;
    if odd.is_empty() {
        return line(format_args!("every number is finite"));
    }
    let tensors = if odd.len() == 1 { "tensor" } else { "tensors" };
    line(format_args!(
        "{} {tensors} with NaN or infinite values, which every command refuses:",
        odd.len()
    ))?;
    for tensor in odd.iter().take(MOST) {
        line(format_args!("  {tensor}"))?;
    }
    if odd.len() > MOST {
        line(format_args!("  and {} more tensors", odd.len() - MOST))?;
    }
    Ok(())
}
