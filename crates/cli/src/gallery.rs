//! Prints the results of commands that fill folders.

use crate::report::write_for;
use crate::{INTERRUPTED, console};
use anyhow::Result;
use sdft_gallery::{Outcome, shown_of};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Prints how a folder was filled. Returns the folder of each variant, or `None` if the user interrupted.
///
/// # Errors
/// Inputs failed.
pub(crate) fn conclude(
    outcome: Outcome,
    out: &Path,
    overwrite: bool,
) -> Result<Option<Vec<PathBuf>>> {
    let filled = match outcome {
        Outcome::Done(filled) => filled,
        Outcome::Interrupted { complete, all } => {
            interrupted(complete, all, overwrite)?;
            return Ok(None);
        }
    };
    console::line(format_args!("images   {}", out.display()))?;
    if let Some((path, shown)) = &filled.sheet {
        let share = share(*shown, filled.inputs, "inputs");
        console::line(format_args!("grid     {}{share}", path.display()))?;
    }
    write_for(&[out.to_owned()], None)?;
    filled.check().map_err(sdft_jobs::Error::from)?;
    Ok(Some(filled.folders))
}

/// [`conclude`] with the exit code.
pub(crate) fn exit_code(outcome: Outcome, out: &Path, overwrite: bool) -> Result<ExitCode> {
    Ok(match conclude(outcome, out, overwrite)? {
        Some(_) => ExitCode::SUCCESS,
        None => ExitCode::from(INTERRUPTED),
    })
}

/// ` (64 of 100 images)` where a sheet shows a part of all.
pub(crate) fn share(shown: usize, all: usize, what: &str) -> String {
    shown_of(shown, all).map_or(String::new(), |share| format!(" ({share} {what})"))
}

/// Prints how to continue a folder that is not complete.
pub(crate) fn interrupted(complete: Option<usize>, all: usize, overwrite: bool) -> Result<()> {
    let how = match overwrite {
        true => " without --overwrite",
        false => "",
    };
    let complete = complete.map_or(String::new(), |complete| {
        format!("{complete} of {all} images are complete, ")
    });
    console::line(format_args!(
        "interrupted; {complete}the same command{how} continues from here"
    ))
}
