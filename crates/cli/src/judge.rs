//! `judge`: trains the small classifier that judges digits.

use crate::args::JudgeArgs;
use crate::console;
use crate::job::job_on_cpu;
use anyhow::Result;
use sdft_gallery::check_new_file;
use sdft_jobs::train_judge;

pub(crate) fn judge(args: &JudgeArgs) -> Result<()> {
    check_new_file(&args.out, args.overwrite).map_err(sdft_jobs::Error::from)?;
    let report = job_on_cpu("judge", |context| {
        train_judge(&args.out, args.seed, context)
    })?;
    console::line(format_args!(
        "{}: class accuracy {:.3}, style accuracy {:.3} on {} held-out images",
        args.out.display(),
        report.class_accuracy,
        report.style_accuracy,
        report.n
    ))
}
