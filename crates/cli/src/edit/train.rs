//! `edit train`: arguments -> options -> run of the method.

use super::args::EditTrainArgs;
use crate::job::job;
use crate::runs::{conclude, describe, list};
use anyhow::Result;
use sdft_directions::EditMethod;
use sdft_jobs::{Context, DIRECTIONS, DirectionJob, Run, Training, TuningJob, method_of_run};
use std::process::ExitCode;

pub(super) fn train(args: &EditTrainArgs) -> Result<ExitCode> {
    if args.run.list {
        return list(&DIRECTIONS);
    }
    let options = args.options()?;
    let method = match &args.run.resume {
        Some(folder) => method_of_run(folder),
        None => options.method()?,
    };
    match method {
        EditMethod::Asyrp => run(args, |context| match &args.run.resume {
            Some(folder) => DirectionJob::resume(folder, &options, context),
            None => DirectionJob::new(&options, args.run.dry_run, context),
        }),
        EditMethod::DiffusionClip => run(args, |context| match &args.run.resume {
            Some(folder) => TuningJob::resume(folder, &options, context),
            None => TuningJob::new(&options, context),
        }),
    }
}

fn run<T: Training>(
    args: &EditTrainArgs,
    make: impl FnOnce(&mut Context<'_>) -> sdft_jobs::Result<Run<T>>,
) -> Result<ExitCode> {
    let mut run = job("edit train", make)?;
    if args.run.dry_run {
        return describe(&run);
    }
    let (name, root) = (run.name().to_owned(), run.root().to_owned());
    let ending = job(&name, |context| run.run(context));
    conclude(ending, &root, "edit train", "samples")
}
