//! The embedded example: digits of a class that the target set lacks become those of another, in the target's style.

use super::apply::apply;
use super::args::{EditApplyArgs, EditArgs, EditTrainArgs, EditVerb};
use super::train::{DIGITS, Job, assemble};
use crate::args::{Cli, Verb};
use crate::gallery::Ended;
use crate::train::train_digits;
use crate::{INTERRUPTED, config, console, judge};
use anyhow::{Context, Result, bail};
use clap::Parser;
use sdft_data::{Digits, DigitsSource, ImageSource, Style};
use sdft_eval::score_kept;
use sdft_imaging::{Limits, decode_file, write_png};
use sdft_train::to_tensor;
use std::path::Path;
use std::process::ExitCode;

/// Where the example keeps its model, its direction and its inputs, apart from runs of the user's.
const HOME: &str = "runs/edit-example";
/// Where the edited digits go.
const OUT: &str = "edited";
/// The class that is edited, and what becomes of it.
const FROM: u8 = 3;
const TO: u8 = 2;
/// Digits that the direction learns from; the example edits others.
const TRAINED: usize = 20;
/// Digits that are edited.
const EDITED: usize = 24;
/// Strengths of the strips.
const SWEEP: &str = "0,0.5,1,1.5";

pub(super) fn example() -> Result<ExitCode> {
    console::note(
        "no arguments: the embedded digits; a direction from 3 to 2 on a model that was fine-tuned on 1, 4 and 7",
    );
    let interrupted = || Ok(ExitCode::from(INTERRUPTED));
    let home = Path::new(HOME);
    let Some(model) = train_digits(&home.join("model"))? else {
        return interrupted();
    };
    let model = model.display().to_string();
    let Some(direction) = train_direction(&home.join("direction"), &model)? else {
        return interrupted();
    };
    let digits = Digits::embedded()?;
    let threes = DigitsSource::new(digits, Style::Ember, &[FROM], TRAINED + EDITED)?;
    let input = home.join("inputs");
    std::fs::create_dir_all(&input)
        .with_context(|| format!("cannot make the folder {}", input.display()))?;
    let name = |i: usize| format!("{}.png", threes.id(i).replace(['/', ' '], "-"));
    for i in TRAINED..threes.len() {
        write_png(&input.join(name(i)), &threes.image(i)?)?;
    }
    let args = applied(&model, &direction.display().to_string(), &input)?;
    let Ended::Done { folders } = apply(&args)? else {
        return interrupted();
    };
    let judge = judge::load()?;
    for folder in folders {
        let images = (TRAINED..threes.len())
            .map(|i| Ok(decode_file(&folder.join(name(i)), &Limits::default())?))
            .collect::<Result<Vec<_>>>()?;
        let x = to_tensor(&images)?;
        let (now, before) = (
            score_kept(&judge, &x, &vec![TO; images.len()])?,
            score_kept(&judge, &x, &vec![FROM; images.len()])?,
        );
        console::line(format_args!(
            "{}: of {} threes that the direction has not seen, {:.0} % are a 2 now, {:.0} % still a 3, {:.0} % in the target's style",
            folder.display(),
            now.n,
            100.0 * now.class,
            100.0 * before.class,
            100.0 * now.style
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The direction of a model, trained into `root` unless it is there.
pub(crate) fn train_direction(root: &Path, model: &str) -> Result<Option<std::path::PathBuf>> {
    let args = train_args(&["--config", DIGITS, "--model", model])?;
    let mut table = assemble(&args)?;
    let name = root.file_name().unwrap_or_default().to_string_lossy();
    config::put(&mut table, "name", name.into_owned());
    config::put(&mut table, "data.style", "ember");
    Job::from_table(table, &args)?.run_in(root, &args)
}

/// Arguments of `edit train`, as if they were typed.
fn train_args(words: &[&str]) -> Result<Box<EditTrainArgs>> {
    match parsed("train", words)? {
        Some(EditVerb::Train(args)) => Ok(args),
        _ => bail!("edit train: other arguments were expected"),
    }
}

fn applied(model: &str, direction: &str, input: &Path) -> Result<Box<EditApplyArgs>> {
    let input = input.display().to_string();
    let words = [
        "--model", model, "--edit", direction, "--input", &input, "--out", OUT, "--sweep", SWEEP,
    ];
    match parsed("apply", &words)? {
        Some(EditVerb::Apply(args)) => Ok(args),
        _ => bail!("edit apply: other arguments were expected"),
    }
}

fn parsed(verb: &str, words: &[&str]) -> Result<Option<EditVerb>> {
    let all = ["sdft", "edit", verb]
        .into_iter()
        .chain(words.iter().copied());
    match Cli::try_parse_from(all)?.verb {
        Verb::Edit(EditArgs { verb }) => Ok(verb),
        _ => bail!("edit: other arguments were expected"),
    }
}
