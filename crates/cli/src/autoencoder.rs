//! `train-autoencoder`: arguments -> options -> run.

use crate::args::AutoencoderArgs;
use crate::job::job;
use crate::runs::{conclude, describe, list};
use anyhow::Result;
use sdft_jobs::{AUTOENCODERS, AutoencoderJob};
use std::process::ExitCode;

pub(crate) fn train_autoencoder(args: &AutoencoderArgs) -> Result<ExitCode> {
    if args.run.list {
        return list(&AUTOENCODERS);
    }
    let options = args.options();
    let run = job("train-autoencoder", |context| match &args.run.resume {
        Some(folder) => AutoencoderJob::resume(folder, &options, context),
        None => AutoencoderJob::new(&options, context),
    })?;
    if args.run.dry_run {
        return describe(&run);
    }
    let (name, root) = (run.plan().name.clone(), run.root().to_owned());
    let ending = job(&name, |context| run.run(context));
    conclude(ending, &root, "train-autoencoder", "samples")
}
