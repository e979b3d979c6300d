//! `translate` without a model: the embedded example.

use super::{options, refuse_unused};
use crate::args::TranslateArgs;
use crate::gallery::conclude;
use crate::job::job;
use crate::{INTERRUPTED, console};
use anyhow::Result;
use sdft_experiments::translation_example;
use sdft_jobs::TranslationMethod;
use std::path::Path;
use std::process::ExitCode;

/// The folder of the example's networks and inputs, separate from the user's runs.
const HOME: &str = "runs/translate-example";

pub(super) fn example(args: &TranslateArgs) -> Result<ExitCode> {
    let method = args.method.unwrap_or(TranslationMethod::Egsde);
    console::note("no --model and --input: the embedded digits, from chalk to ember");
    refuse_unused(args, method)?;
    let options = options(args, method)?;
    let home = Path::new(HOME);
    let made = job("example", |context| {
        translation_example(&options, home, context)
    })?;
    let Some(made) = made else {
        return Ok(ExitCode::from(INTERRUPTED));
    };
    if conclude(made.outcome, &options.out, options.overwrite)?.is_none() {
        return Ok(ExitCode::from(INTERRUPTED));
    }
    for (folder, score) in made.folders {
        console::line(format_args!(
            "{}: of {} digits of classes that the target set lacks, {:.0} % keep their class, {:.0} % are in the target's style, {:.0} % both",
            folder.display(),
            score.n,
            100.0 * score.class,
            100.0 * score.style,
            100.0 * score.both
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}
