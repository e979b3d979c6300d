//! `edit` without arguments: the embedded example.

use crate::gallery::conclude;
use crate::job::job_on_cpu;
use crate::{INTERRUPTED, console};
use anyhow::Result;
use sdft_experiments::edit_example;
use sdft_gallery::Outcome;
use std::path::Path;
use std::process::ExitCode;

/// The folder of the example's model, direction and inputs, separate from the user's runs.
const HOME: &str = "runs/edit-example";

pub(super) fn example() -> Result<ExitCode> {
    console::note(
        "no arguments: the embedded digits; a direction from 3 to 2 on a model that was fine-tuned on 1, 4 and 7",
    );
    let made = job_on_cpu("example", |context| edit_example(Path::new(HOME), context))?;
    let Some(made) = made else {
        console::line("interrupted; the same command continues from here")?;
        return Ok(ExitCode::from(INTERRUPTED));
    };
    conclude(Outcome::Done(made.filled), &made.out, false)?;
    for folder in made.folders {
        console::line(format_args!(
            "{}: to a classifier that did not guide, of {} threes that the direction has not seen, {:.0} % are a 2 now, {:.0} % still a 3, {:.0} % in the target's style",
            folder.folder.display(),
            folder.n,
            100.0 * folder.edited,
            100.0 * folder.unchanged,
            100.0 * folder.style
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}
