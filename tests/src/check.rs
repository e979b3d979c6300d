//! Computes cases and compares them.

use crate::kinds::{BUILT, compute};
use anyhow::Result;
use rayon::prelude::*;
use sdft_testing::{Case, compare, device, find_cases, kind_of};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// The result of a case.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Every expected tensor agrees; the largest error as a share of its tolerance (0 for equality), and the name of that tensor.
    Passed {
        /// Error over tolerance.
        worst: f64,
        /// The tensor.
        tensor: String,
    },
    /// A tensor does not agree, or the case cannot be read or computed.
    Failed(String),
    /// The kind is not in [`BUILT`].
    NotBuilt,
}

/// A case and its result.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// Its folder.
    pub dir: PathBuf,
    /// The kind; `?` if it could not be read.
    pub kind: String,
    /// Its result.
    pub outcome: Outcome,
}

/// Runs every case below `root` whose kind `wanted` accepts, in parallel; the verdicts are in the order of the folders.
///
/// A case whose kind cannot be read always runs.
///
/// # Errors
/// A folder cannot be read, or no folder holds a case.
pub fn walk(root: &Path, wanted: impl Fn(&str) -> bool + Sync) -> Result<Vec<Verdict>> {
    let dirs = find_cases(root)?;
    let one = |dir: &PathBuf| match kind_of(dir) {
        Ok(kind) if !wanted(&kind) => None,
        _ => Some(run(dir)),
    };
    // A GPU runs one case at a time.
    let verdicts: Vec<Option<Verdict>> = if device().is_cpu() {
        dirs.par_iter().map(one).collect()
    } else {
        dirs.iter().map(one).collect()
    };
    Ok(verdicts.into_iter().flatten().collect())
}

/// Computes a case and compares it.
pub fn run(dir: &Path) -> Verdict {
    let (kind, outcome) = match kind_of(dir) {
        Ok(kind) if !BUILT.contains(&kind.as_str()) => (kind, Outcome::NotBuilt),
        Ok(kind) => (kind, judge(dir)),
        Err(error) => ("?".to_owned(), Outcome::Failed(one_line(&error))),
    };
    Verdict {
        dir: dir.to_owned(),
        kind,
        outcome,
    }
}

/// A message on one line, without the backtrace that candle adds if `RUST_BACKTRACE` is set.
fn one_line(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    let lines = text.lines().map(str::trim);
    let message: Vec<&str> = lines.take_while(|line| !line.starts_with("0: ")).collect();
    message.join(" ")
}

fn judge(dir: &Path) -> Outcome {
    // A case that panics must not hide the verdicts of all others.
    let verdict = catch_unwind(AssertUnwindSafe(|| {
        let case = Case::read(dir)?;
        compare(&case, &compute(&case)?, |_, expected| expected)
    }));
    match verdict {
        Ok(Ok((worst, tensor))) => Outcome::Passed { worst, tensor },
        Ok(Err(error)) => Outcome::Failed(one_line(&error)),
        Err(_) => Outcome::Failed("panicked; this is a bug".to_owned()),
    }
}
