//! `train` without arguments: the embedded example.

use crate::job::job;
use crate::{INTERRUPTED, console};
use anyhow::Result;
use sdft_experiments::fine_tuning_example;
use std::path::Path;
use std::process::ExitCode;

pub(super) fn example(out: &Path) -> Result<ExitCode> {
    console::note(
        "no arguments: the embedded example. A model that draws all ten digits in chalk is fine-tuned on 90 digits, 1, 4 and 7 only, in \
         another style: first naively, then with SDFT",
    );
    let Some(made) = job("example", |context| fine_tuning_example(out, &[], context))? else {
        console::line("interrupted; the same command continues from here")?;
        return Ok(ExitCode::from(INTERRUPTED));
    };
    let shares = made.shares.iter();
    let shares: Vec<String> = shares
        .map(|(title, share)| format!("{title} {:.0} %", 100.0 * share))
        .collect();
    console::line(format_args!("model    {}", made.model.display()))?;
    console::line(format_args!(
        "unseen   {} of {} samples are one of the other seven digits, in the new style",
        shares.join(", "),
        made.judged
    ))?;
    console::line(format_args!(
        "picture  {} (from the same noise: the source model, naive fine-tuning, SDFT)",
        made.picture.display()
    ))?;
    Ok(ExitCode::SUCCESS)
}
