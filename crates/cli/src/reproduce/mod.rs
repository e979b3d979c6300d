//! Documented experiments, one command each.

pub(crate) mod args;
mod digits;
mod editing;
mod edits;
mod figures;
mod paper;
mod table;
mod translation;

use crate::args::{Experiment, ReproduceArgs, TargetArg};
use crate::usage;
use anyhow::Result;
use sdft_features::InceptionResize;
use sdft_gallery::Outputs;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::process::ExitCode;

/// What decides the folder of an experiment; its runs and samples have plans of their own.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExperimentPlan {
    experiment: String,
    /// Tables only.
    target: Option<String>,
}

/// Takes the folder of an experiment, whose tables and pictures are replaced by later ones.
fn claim(args: &ReproduceArgs, out: &Path) -> Result<Outputs> {
    let digits = matches!(args.experiment, Experiment::Digits);
    let target = match args.target {
        TargetArg::Metfaces => "metfaces",
        TargetArg::Aahq => "aahq",
    };
    let plan = ExperimentPlan {
        experiment: format!("{:?}", args.experiment).to_lowercase(),
        target: (!digits).then(|| target.to_owned()),
    };
    Ok(Outputs::open(out, &plan, false).map_err(sdft_jobs::Error::from)?)
}

/// Fails on options that the experiment has no use for.
fn refuse_unused(args: &ReproduceArgs) -> Result<()> {
    use Experiment::{Digits, Table1, Table2, Table3, Table4};
    let (all, tables) = (args.experiment, !matches!(args.experiment, Digits));
    let options = [
        ("--seeds", args.seeds != 3, !tables),
        ("--target", args.target != TargetArg::Metfaces, tables),
        (
            "--source",
            args.source.is_some(),
            matches!(all, Table3 | Table4),
        ),
        ("--inputs", args.inputs.is_some(), matches!(all, Table1)),
        ("--data", args.data.is_some(), tables),
        ("--row", !args.row.is_empty(), tables),
        ("--limit", args.limit.is_some(), tables),
        (
            "--resize",
            args.resize != InceptionResize::default(),
            tables && !matches!(all, Table2),
        ),
        ("--weights", !args.weights.is_empty(), tables),
    ];
    match options.iter().find(|(_, given, used)| *given && !used) {
        Some((option, ..)) => Err(usage(format!(
            "{option} has no effect on {}",
            format!("{all:?}").to_lowercase()
        ))),
        None => Ok(()),
    }
}

pub(crate) fn reproduce(args: &ReproduceArgs) -> Result<ExitCode> {
    refuse_unused(args)?;
    match args.experiment {
        Experiment::Digits => digits::digits(args),
        Experiment::Table1 => paper::pairs_table(args, &figures::TABLE_1),
        Experiment::Table2 => edits::edits_table(args, &figures::TABLE_2),
        Experiment::Table3 => paper::samples_table(args, &figures::TABLE_3),
        Experiment::Table4 => paper::samples_table(args, &figures::TABLE_4),
    }
}
