//! `edit train`: arguments -> options -> run.

use super::args::EditTrainArgs;
use crate::job::job_on_cpu;
use crate::runs::{conclude, describe, list};
use anyhow::Result;
use sdft_jobs::{DIRECTIONS, DirectionJob};
use std::process::ExitCode;

pub(super) fn train(args: &EditTrainArgs) -> Result<ExitCode> {
    if args.run.list {
        return list(&DIRECTIONS);
    }
    let options = args.options()?;
    let run = job_on_cpu("edit train", |context| match &args.run.resume {
        Some(folder) => DirectionJob::resume(folder, &options, context),
        None => DirectionJob::new(&options, args.run.dry_run, context),
    })?;
    if args.run.dry_run {
        return describe(&run);
    }
    let (name, root) = (run.plan().name.clone(), run.root().to_owned());
    let ending = job_on_cpu(&name, |context| run.run(context));
    conclude(ending, &root, "edit train", "samples")
}
