//! The embedded example: digits of classes that the target set lacks, from chalk to ember.

use super::{options, refuse_unused, run};
use crate::args::TranslateArgs;
use crate::classifier::digits_classifier;
use crate::gallery::conclude;
use crate::train::train_digits;
use crate::{INTERRUPTED, console};
use anyhow::{Context, Result};
use sdft_data::{Digits, DigitsSource, ImageSource, Style};
use sdft_eval::score_kept;
use sdft_imaging::{Limits, decode_file, write_png};
use sdft_jobs::{TranslateOptions, TranslationMethod, load_judge};
use sdft_train::to_tensor;
use std::path::Path;
use std::process::ExitCode;

/// Where the example keeps its networks and inputs, apart from runs of the user's.
const HOME: &str = "runs/translate-example";
/// Classes that the target set lacks.
const ABSENT: [u8; 7] = [0, 2, 3, 5, 6, 8, 9];
/// Inputs of each.
const PER_CLASS: usize = 10;

/// The inputs: the first digits of every class that the target set lacks, in the source's style.
fn sources(per_class: usize) -> Result<DigitsSource> {
    let digits = Digits::embedded()?;
    Ok(DigitsSource::new(digits, Style::Chalk, &ABSENT, per_class)?)
}

pub(super) fn example(args: &TranslateArgs) -> Result<ExitCode> {
    let method = args.method.unwrap_or(TranslationMethod::Egsde);
    console::note("no --model and --input: the embedded digits, from chalk to ember");
    let interrupted = || Ok(ExitCode::from(INTERRUPTED));
    // Arguments are checked before anything is trained.
    refuse_unused(args, method)?;
    let options = options(args, method)?;
    options.check()?;
    options.variants(Digits::SIZE)?;
    let home = Path::new(HOME);
    let Some(model) = train_digits(&home.join("model"))? else {
        return interrupted();
    };
    let classifier = match method {
        TranslationMethod::Egsde if args.classifier.is_none() => {
            match digits_classifier(&home.join("classifier"))? {
                Some(path) => Some(path.display().to_string()),
                None => return interrupted(),
            }
        }
        _ => args.classifier.clone(),
    };
    let input = home.join("inputs");
    let digits = sources(PER_CLASS)?;
    std::fs::create_dir_all(&input)
        .with_context(|| format!("cannot make the folder {}", input.display()))?;
    let name = |i: usize| {
        format!(
            "{}-{}.png",
            digits.labels()[i],
            digits.id(i).replace("digits/", "")
        )
    };
    for i in 0..digits.len() {
        write_png(&input.join(name(i)), &digits.image(i)?)?;
    }
    let source_model = match method {
        TranslationMethod::Ddib if args.source_model.is_none() => {
            Some(sdft_jobs::DIGITS_SOURCE.to_owned())
        }
        _ => args.source_model.clone(),
    };
    let options = TranslateOptions {
        model: model.display().to_string(),
        input,
        classifier,
        source_model,
        ..options
    };
    let folders = conclude(run(&options)?, &options.out, options.overwrite)?;
    if let Some(folders) = &folders {
        let judge = load_judge()?;
        for folder in folders {
            let images = (0..digits.len())
                .map(|i| Ok(decode_file(&folder.join(name(i)), &Limits::default())?))
                .collect::<Result<Vec<_>>>()?;
            let score = score_kept(&judge, &to_tensor(&images)?, digits.labels())?;
            console::line(format_args!(
                "{}: of {} digits of classes that the target set lacks, {:.0} % keep their class, {:.0} % are in the target's style, {:.0} % both",
                folder.display(),
                score.n,
                100.0 * score.class,
                100.0 * score.style,
                100.0 * score.both
            ))?;
        }
    }
    match folders {
        Some(_) => Ok(ExitCode::SUCCESS),
        None => interrupted(),
    }
}
