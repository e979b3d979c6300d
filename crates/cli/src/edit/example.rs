//! `edit` without arguments: the embedded example.

use crate::gallery::conclude;
use crate::job::job;
use crate::{ART, INTERRUPTED, console};
use anyhow::Result;
use sdft_experiments::{ExampleOptions, edit_example};
use sdft_gallery::Outcome;
use std::process::ExitCode;

pub(super) fn example() -> Result<ExitCode> {
    console::note(
        "no arguments: the embedded emoji; a direction from men to women on the SDFT model of `cargo xtask train`, which was fine-tuned \
         without women, and is trained first unless it exists",
    );
    let made = job("example", |context| {
        edit_example(&ExampleOptions::default(), context)
    })?;
    let Some(made) = made else {
        console::line("interrupted; the same command continues from here")?;
        return Ok(ExitCode::from(INTERRUPTED));
    };
    conclude(Outcome::Done(made.filled), &made.out, false)?;
    for (folder, score) in made.folders {
        console::line(format_args!(
            "{}: to a judge that did not guide, of {} men that the direction has not seen, {:.0} % are a woman now, {:.0} % still a man, {:.0} % in the target's style",
            folder.display(),
            score.n,
            100.0 * score.edited,
            100.0 * score.unchanged,
            100.0 * score.style
        ))?;
    }
    console::line(ART)?;
    Ok(ExitCode::SUCCESS)
}
