//! `edit apply`: files or folders of images -> a folder of edited images under the same names.

use super::args::EditApplyArgs;
use crate::gallery::exit_code;
use crate::job::job;
use crate::launcher::share_images;
use anyhow::Result;
use sdft_jobs::{EditOptions, edit_folder, serve_edits};
use std::process::ExitCode;

pub(crate) fn apply(args: &EditApplyArgs) -> Result<ExitCode> {
    let options = EditOptions {
        model: args.model.clone(),
        load: args.file.options()?,
        edits: args.edit.clone(),
        strengths: args.strength.clone(),
        sweep: args.sweep.clone(),
        input: args.input.clone(),
        only: None,
        out: args.out.clone(),
        settings: args.settings.clone(),
        steps: args.steps,
        inversion: args.inversion,
        t_edit: args.t_edit,
        t_boost: args.t_boost,
        seed: args.seed,
        frames: args.frames,
        class: args.class.clone(),
        size: args.size,
        batch: args.batch,
        overwrite: args.overwrite,
        cache: args.cache.location(),
    };
    let lead = || {
        let outcome = job("edit", |context| edit_folder(&options, context))?;
        exit_code(outcome, &options.out, options.overwrite)
    };
    share_images(args.gpus, lead, |context| serve_edits(&options, context))
}
