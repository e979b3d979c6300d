//! Documented experiments, one command each.

pub(crate) mod args;
mod digits;
mod editing;
mod edits;
mod figures;
mod paper;
mod table;
mod translation;

use crate::args::{Experiment, ReproduceArgs};
use anyhow::Result;
use std::process::ExitCode;

pub(crate) fn reproduce(args: &ReproduceArgs) -> Result<ExitCode> {
    match args.experiment {
        Experiment::Digits => digits::digits(args),
        Experiment::Table1 => paper::pairs_table(args, &figures::TABLE_1),
        Experiment::Table2 => edits::edits_table(args, &figures::TABLE_2),
        Experiment::Table3 => paper::samples_table(args, &figures::TABLE_3),
        Experiment::Table4 => paper::samples_table(args, &figures::TABLE_4),
    }
}
