//! Documented experiments, one command each.

mod digits;
mod editing;
mod edits;
mod figures;
mod paper;
mod table;
mod translation;

use crate::args::{Experiment, ReproduceArgs, TargetArg};
use crate::gallery::outputs::Outputs;
use crate::gallery::refusal::Overwrite;
use anyhow::Result;
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
    Outputs::open(out, &plan, Overwrite::Never)
}

pub(crate) fn reproduce(args: &ReproduceArgs) -> Result<ExitCode> {
    match args.experiment {
        Experiment::Digits => digits::digits(args),
        Experiment::Table1 => paper::pairs_table(args, &figures::TABLE_1),
        Experiment::Table2 => edits::edits_table(args, &figures::TABLE_2),
        Experiment::Table3 => paper::samples_table(args, &figures::TABLE_3),
        Experiment::Table4 => paper::samples_table(args, &figures::TABLE_4),
    }
}
