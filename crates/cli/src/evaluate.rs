//! `evaluate`: sets or pairs of images -> a table, and a folder of reports.

use crate::args::EvaluateArgs;
use crate::console;
use crate::job::job;
use crate::launcher::share_images;
use crate::report::write_for;
use anyhow::Result;
use sdft_eval::SetFeatures;
use sdft_features::{InceptionResize, LpipsNet};
use sdft_jobs::{
    CacheLocation, EMBEDDED_IMAGES, EvaluateOptions, Evaluation, PairPart, PairsOptions,
    SetsOptions, Weights, evaluate_pairs, evaluate_sets, serve_pairs, serve_sets,
};
use sdft_runtime::usage;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

pub(crate) fn evaluate(args: &EvaluateArgs) -> Result<ExitCode> {
    refuse_unused(args)?;
    let common = EvaluateOptions {
        weights: Weights::parse(&args.weights)?,
        cache: cache_location(args.cache.as_ref(), args.no_cache),
        out: args.out.clone(),
        overwrite: args.overwrite,
        range: args.range,
    };
    match (&args.real, &args.fake, args.pairs.as_deref()) {
        (Some(real), Some(fake), None) => {
            let options = SetsOptions {
                real: real.clone(),
                fake: fake.clone(),
                features: args.features,
                resize: args.resize,
                intra_lpips: args.intra_lpips.clone(),
                kid_subsets: args.kid_subsets,
                kid_size: args.kid_size,
                kid_seed: args.kid_seed,
                neighbours: args.neighbours,
                save_real: args.save_real.clone(),
                save_fake: args.save_fake.clone(),
                common,
            };
            let lead = || conclude(&job("evaluate", |c| evaluate_sets(&options, c))?, args.json);
            share_images(args.gpus, lead, |context| serve_sets(&options, context))
        }
        (None, None, Some([input, output])) => {
            let options = PairsOptions {
                input: input.clone(),
                output: output.clone(),
                text: match args.text.as_deref() {
                    Some([from, to]) => Some([from.clone(), to.clone()]),
                    _ => None,
                },
                size: args.size,
                pair_by: args.pair_by,
                without: args.without.clone(),
                lpips: args.lpips,
                clip: args.clip,
                common,
            };
            let lead = || {
                conclude(
                    &job("evaluate", |c| evaluate_pairs(&options, c))?,
                    args.json,
                )
            };
            share_images(args.gpus, lead, |context| serve_pairs(&options, context))
        }
        _ => Err(usage(
            "nothing to measure: give --real DIR --fake DIR, or --pairs INPUT OUTPUT (see --help)",
        )),
    }
}

/// Prints the table, and writes the folder of reports.
fn conclude(evaluation: &Evaluation, as_json: bool) -> Result<ExitCode> {
    let report = &evaluation.report;
    if as_json {
        console::line(serde_json::to_string_pretty(&report.json())?)?;
    } else {
        console::line(report.text().trim_end())?;
    }
    if let Some(out) = evaluation.write()? {
        console::note(format!("written to {}", out.display()));
        // The standard output may be the JSON text.
        if !as_json {
            write_for(&[out.to_owned()], None)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The cache that `--cache` and `--no-cache` select.
pub(crate) fn cache_location(cache: Option<&PathBuf>, no_cache: bool) -> CacheLocation {
    match cache {
        _ if no_cache => CacheLocation::Nowhere,
        Some(folder) => CacheLocation::Folder(folder.clone()),
        None => CacheLocation::User,
    }
}

/// Fails on options that have no effect on this comparison.
fn refuse_unused(args: &EvaluateArgs) -> Result<()> {
    let judged = EMBEDDED_IMAGES
        .iter()
        .find(|name| args.real.as_deref() == Some(Path::new(name)));
    let is_resized = args.resize != InceptionResize::default();
    if let (Some(name), true) = (judged, is_resized) {
        return Err(usage(format!(
            "--resize has no effect on --real {name}, whose embedded judge does not resize images"
        )));
    }
    if args.features == SetFeatures::Dinov2 {
        if let Some(name) = judged {
            return Err(usage(format!(
                "--features has no effect on --real {name}, which its embedded judge measures"
            )));
        }
        if is_resized {
            return Err(usage(
                "--resize is for Inception; --features dinov2 has one method of resizing",
            ));
        }
    }
    if args.without.contains(&PairPart::Lpips) && args.lpips != LpipsNet::Alex {
        return Err(usage("--lpips has no effect with --without lpips"));
    }
    if args.overwrite && args.out.is_none() && args.save_real.is_none() && args.save_fake.is_none()
    {
        return Err(usage(
            "--overwrite: nothing is written without --out, --save-real or --save-fake",
        ));
    }
    Ok(())
}
