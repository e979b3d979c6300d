//! `translate` without a model: the embedded example.

use super::{options, refuse_unused};
use crate::args::TranslateArgs;
use crate::gallery::conclude;
use crate::job::job;
use crate::{ART, INTERRUPTED, console};
use anyhow::Result;
use sdft_experiments::{ExampleOptions, translation_example};
use sdft_jobs::TranslationMethod;
use std::process::ExitCode;

pub(super) fn example(args: &TranslateArgs) -> Result<ExitCode> {
    let method = args.method.unwrap_or(TranslationMethod::Sdedit);
    console::note(
        "no --model and --input: the embedded emoji, from the flat style to the other, by the SDFT model of `cargo xtask train`, which is \
         trained first unless it exists",
    );
    refuse_unused(args, method)?;
    let options = options(args, method)?;
    let made = job("example", |context| {
        translation_example(&options, &ExampleOptions::default(), context)
    })?;
    let Some(made) = made else {
        console::line("interrupted; the same command continues from here")?;
        return Ok(ExitCode::from(INTERRUPTED));
    };
    if conclude(made.outcome, &options.out, options.overwrite)?.is_none() {
        return Ok(ExitCode::from(INTERRUPTED));
    }
    for (folder, score) in made.folders {
        console::line(format_args!(
            "{}: of {} emoji unlike the target set, {:.0} % keep kind, skin tone, gender, glasses and hat, {:.0} % are in the target's style, {:.0} % both",
            folder.display(),
            score.n,
            100.0 * score.kept,
            100.0 * score.style,
            100.0 * score.both
        ))?;
    }
    console::line(ART)?;
    Ok(ExitCode::SUCCESS)
}
