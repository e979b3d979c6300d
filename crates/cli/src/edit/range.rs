//! `edit range`: finds the steps at which an edit begins and is sharpened.

use super::args::EditRangeArgs;
use crate::console;
use crate::job::job;
use anyhow::Result;
use sdft_gallery::check_new_file;
use sdft_jobs::{RangeOptions, Weights, find_range, write_file};
use serde_json::json;
use std::process::ExitCode;

pub(super) fn range(args: &EditRangeArgs) -> Result<ExitCode> {
    if let Some(path) = &args.out {
        check_new_file(path, false).map_err(sdft_jobs::Error::from)?;
    }
    let options = RangeOptions {
        model: args.model.clone(),
        load: args.file.options()?,
        data: args.data.clone(),
        from: args.from.clone(),
        to: args.to.clone(),
        class: args.class.clone(),
        images: args.images,
        inversion: args.inversion,
        weights: Weights::parse(&args.weights)?,
        cache: args.cache.location(),
    };
    let report = job("range", |context| find_range(&options, context))?;
    let cosine = report.cosine;
    if let Some(path) = &args.out {
        let text = json!({
            "images": report.images,
            "cosine": cosine,
            "predicted": report.curves.predicted,
            "states": report.curves.states,
        });
        let text = serde_json::to_string_pretty(&text)? + "\n";
        write_file(path, text.as_bytes())?;
        console::line(format_args!("curves   {}", path.display()))?;
    }
    console::line(format_args!(
        "t_edit   {} (predicted images are {:.2} x {cosine:.4} = {:.4} away)",
        report.t_edit()?,
        report.edit_distance / cosine,
        report.edit_distance
    ))?;
    console::line(format_args!(
        "t_boost  {} (states are {} away)",
        report.t_boost()?,
        report.boost_distance
    ))?;
    Ok(ExitCode::SUCCESS)
}
