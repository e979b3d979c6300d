//! `judge`: trains the small classifier that judges digits or emoji.

use crate::args::{JudgeArgs, JudgedSet};
use crate::console;
use crate::job::job_on_cpu;
use anyhow::Result;
use sdft_eval::EmojiJudgeReport;
use sdft_gallery::check_new_file;
use sdft_jobs::{train_emoji_judge, train_judge};
use std::path::{Path, PathBuf};

pub(crate) fn judge(args: &JudgeArgs) -> Result<()> {
    let default = match args.set {
        JudgedSet::Digits => "digits-judge.safetensors",
        JudgedSet::Emoji => "emoji-judge.safetensors",
    };
    let out = args.out.clone().unwrap_or_else(|| PathBuf::from(default));
    check_new_file(&out, args.overwrite).map_err(sdft_jobs::Error::from)?;
    match args.set {
        JudgedSet::Digits => {
            let report = job_on_cpu("judge", |context| train_judge(&out, args.seed, context))?;
            console::line(format_args!(
                "{}: class accuracy {:.3}, style accuracy {:.3} on {} held-out images",
                out.display(),
                report.class_accuracy,
                report.style_accuracy,
                report.n
            ))
        }
        JudgedSet::Emoji => {
            let report = job_on_cpu("judge", |context| {
                train_emoji_judge(&out, args.seed, context)
            })?;
            print(&out, &report)
        }
    }
}

fn print(out: &Path, report: &EmojiJudgeReport) -> Result<()> {
    console::line(format_args!(
        "{}: style accuracy {:.3} on {} held-out images, {:.3} after blur and noise",
        out.display(),
        report.style,
        report.n,
        report.soft_style
    ))?;
    for head in &report.heads {
        console::line(format_args!(
            "  {}: accuracy {:.3} on {}",
            head.name, head.accuracy, head.n
        ))?;
        for value in head.values.iter().filter(|value| value.n > 0) {
            console::line(format_args!(
                "    {}: precision {:.2} of {}, recall {:.2} of {}",
                value.value,
                value.precision(),
                value.found,
                value.recall(),
                value.n
            ))?;
        }
    }
    Ok(())
}
