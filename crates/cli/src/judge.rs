//! `judge`: trains the small classifier that judges digits or emoji.

use crate::args::{JudgeArgs, JudgedSet};
use crate::console;
use crate::job::job_on_cpu;
use anyhow::Result;
use sdft_eval::{EmojiJudgeReport, ValueReport};
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
        "{}: trained on all emoji. A judge that was trained in the same way without every tenth emoji, on the {} pictures of these: style accuracy {:.3}, {:.3} after blur and noise",
        out.display(),
        report.n,
        report.style,
        report.soft_style
    ))?;
    for head in &report.heads {
        console::line(format_args!(
            "  {}: accuracy {:.3} on {}",
            head.name, head.accuracy, head.n
        ))?;
        for value in head.values.iter().filter(|value| value.n > 0) {
            line(value)?;
        }
    }
    console::line("  as tables count them:")?;
    for attribute in report.counted.iter().filter(|counted| counted.n > 0) {
        line(attribute)?;
    }
    Ok(())
}

/// How well a value is found.
fn line(value: &ValueReport) -> Result<()> {
    let precision = match value.found {
        0 => "none found".to_owned(),
        found => format!("precision {:.2} of {found}", value.precision()),
    };
    console::line(format_args!(
        "    {}: {precision}, recall {:.2} of {}",
        value.value,
        value.recall(),
        value.n
    ))
}
