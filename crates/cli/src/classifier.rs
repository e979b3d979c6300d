//! `train-classifier`: arguments -> options -> run.

use crate::args::ClassifierArgs;
use crate::job::job;
use crate::runs::{conclude, describe, list};
use anyhow::Result;
use sdft_jobs::{CLASSIFIERS, ClassifierJob};
use std::process::ExitCode;

pub(crate) fn train_classifier(args: &ClassifierArgs) -> Result<ExitCode> {
    if args.run.list {
        return list(&CLASSIFIERS);
    }
    let options = args.options();
    let run = job("train-classifier", |context| match &args.run.resume {
        Some(folder) => ClassifierJob::resume(folder, &options, context),
        None => ClassifierJob::new(&options, context),
    })?;
    if args.run.dry_run {
        return describe(&run);
    }
    let (name, root) = (run.plan().name.clone(), run.root().to_owned());
    let ending = job(&name, |context| run.run(context));
    conclude(ending, &root, "train-classifier", "accuracy")
}
