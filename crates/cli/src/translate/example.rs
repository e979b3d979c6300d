//! The embedded example: digits of classes that the target set lacks, from chalk to ember.

use super::{Request, plan, run};
use crate::args::{TranslateArgs, TranslatorArg};
use crate::classifier::digits_classifier;
use crate::gallery::Ended;
use crate::train::train_digits;
use crate::{INTERRUPTED, assets, console, judge};
use anyhow::{Context, Result};
use sdft_data::{Digits, DigitsSource, ImageSource, Style};
use sdft_eval::score_kept;
use sdft_imaging::{Limits, decode_file, write_png};
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
pub(crate) fn sources(per_class: usize) -> Result<DigitsSource> {
    let digits = Digits::embedded()?;
    Ok(DigitsSource::new(digits, Style::Chalk, &ABSENT, per_class)?)
}

pub(super) fn example(args: &TranslateArgs) -> Result<ExitCode> {
    let method = args.method.unwrap_or(TranslatorArg::Egsde);
    console::note("no --model and --input: the embedded digits, from chalk to ember");
    let interrupted = || Ok(ExitCode::from(INTERRUPTED));
    // What is wrong with the arguments is said before anything is trained.
    plan::refuse_unused(args, method)?;
    plan::variants(args, method, Digits::SIZE)?;
    let home = Path::new(HOME);
    let Some(model) = train_digits(&home.join("model"))? else {
        return interrupted();
    };
    let classifier = match method {
        TranslatorArg::Egsde if args.classifier.is_none() => {
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
        TranslatorArg::Ddib if args.source_model.is_none() => {
            Some(assets::DIGITS_SOURCE.to_owned())
        }
        _ => args.source_model.clone(),
    };
    let request = Request {
        method,
        model: model.display().to_string(),
        input,
        classifier,
        source_model,
    };
    let ended = run(args, &request)?;
    if let Ended::Done { folders } = &ended {
        let judge = judge::load()?;
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
    Ok(ended.code())
}
