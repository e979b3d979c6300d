//! `edit apply`: files or folders of images -> a folder of edited images under the same names.

use super::args::EditApplyArgs;
use crate::job::job_on_cpu;
use anyhow::Result;
use sdft_gallery::Outcome;
use sdft_jobs::{EditOptions, edit_folder};

pub(crate) fn apply(args: &EditApplyArgs) -> Result<Outcome> {
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
    job_on_cpu("edit", |context| edit_folder(&options, context))
}
