//! `train`: arguments -> options -> run.

use crate::args::TrainArgs;
use crate::console::causes;
use crate::device::{check_gpus, world};
use crate::job::job;
use crate::launcher;
use crate::runs::{conclude, describe, list};
use anyhow::Result;
use sdft_jobs::{Context, TRAINING, TrainJob};
use sdft_runtime::usage;
use std::process::ExitCode;

mod example;

pub(crate) fn train(args: &TrainArgs) -> Result<ExitCode> {
    if args.run.list {
        return list(&TRAINING);
    }
    let world = world()?;
    if is_example(args) && world.is_none() {
        if args.run.dry_run {
            return Err(usage(
                "--dry-run: `train` without a model and images is the example of the README, which trains two models in one to three minutes; give --config emoji-sdft for a plan like that of one of them, or --data DIR",
            ));
        }
        return example::example(&args.run.out);
    }
    if let Some(n) = args.gpus.filter(|&n| n > 1)
        && world.is_none()
        && !args.run.dry_run
    {
        check_gpus(n)?;
        return launcher::launch(n);
    }
    let options = args.options();
    let prepare = |context: &mut Context<'_>| match &args.run.resume {
        Some(folder) => TrainJob::resume(folder, &options, context),
        None => TrainJob::new(&options, context),
    };
    if args.run.dry_run {
        return describe(&job("train", prepare)?);
    }
    // The other processes wait for the plan, or for the reason why there is none.
    let group = launcher::join(world.as_ref())?;
    if !group.is_leader() {
        return launcher::follow(group);
    }
    let told = |error: &anyhow::Error| group.fail(&causes(error));
    let run = job("train", prepare)
        .inspect_err(told)?
        .with_group(group.clone());
    let (name, root) = (run.plan().name.clone(), run.root().to_owned());
    conclude(
        job(&name, |context| run.run(context)).inspect_err(told),
        &root,
        "train",
        "samples",
    )
}

/// Whether at most the folder of runs and `--dry-run` were given.
fn is_example(args: &TrainArgs) -> bool {
    let run = &args.run;
    let chosen = [&args.source, &args.source_key, &args.data, &run.name];
    chosen.iter().all(|choice| choice.is_none())
        && args.method.is_none()
        && args.gpus.is_none()
        && args.size.is_none()
        && args.classes.is_none()
        && run.config.is_empty()
        && run.set.is_empty()
        && [run.steps, run.batch, run.seed].iter().all(Option::is_none)
        && run.resume.is_none()
        && !(run.strict || run.list)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Verb};
    use clap::Parser;

    fn args(more: &[&str]) -> TrainArgs {
        match Cli::try_parse_from([&["sdft", "train"], more].concat())
            .unwrap()
            .verb
        {
            Verb::Train(args) => args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_a_command_without_arguments_is_the_example() {
        assert!(is_example(&args(&[])) && is_example(&args(&["--out", "here"])));
        for more in [
            &["--steps", "3"][..],
            &["--data", "digits"],
            &["--size", "24x16"],
            &["--classes", "folders"],
            &["--config", "digits-sdft"],
            &["--name", "x"],
            &["--set", "seed=1"],
            &["--resume", "runs/x"],
        ] {
            assert!(!is_example(&args(more)), "{more:?}");
        }
    }
}
