//! The embedded example: digits of a class that the target set lacks become those of another, in the target's style.

use super::apply::apply;
use super::train::{DIGITS, Job, assemble};
use super::typed;
use crate::bridge::judge;
use crate::gallery::conclude;
use crate::runs::STOP;
use crate::train::train_digits;
use crate::{INTERRUPTED, config, console};
use anyhow::{Context, Result};
use sdft_data::{Digits, DigitsSource, ImageSource, Style};
use sdft_eval::score_kept;
use sdft_imaging::{Limits, decode_file, write_png};
use sdft_train::to_tensor;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::Ordering;

/// Where the example keeps its model, its direction and its inputs, apart from runs of the user's.
const HOME: &str = "runs/edit-example";
/// The class that is edited, and what becomes of it.
pub(crate) const FROM: u8 = 3;
pub(crate) const TO: u8 = 2;
/// Digits that the direction learns from; others are edited.
pub(crate) const TRAINED: usize = 20;
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
    let out = home.join("edited");
    let [direction, input, out] = [&direction, &input, &out].map(|path| path.display().to_string());
    let args = typed::apply(&[
        "--model", &model, "--edit", &direction, "--input", &input, "--out", &out, "--sweep", SWEEP,
    ])?;
    let Some(folders) = conclude(apply(&args)?, &args.out, args.overwrite)? else {
        return interrupted();
    };
    // Not the one that led the direction, which may please it in ways that nobody else sees.
    let (judge, _) = judge::second(&home.join("judge.safetensors"))?;
    if STOP.load(Ordering::Relaxed) {
        return interrupted();
    }
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
            "{}: to a classifier that did not lead, of {} threes that the direction has not seen, {:.0} % are a 2 now, {:.0} % still a 3, {:.0} % in the target's style",
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
    let args = typed::train(&["--config", DIGITS, "--model", model])?;
    let mut table = assemble(&args)?;
    let name = root.file_name().unwrap_or_default().to_string_lossy();
    config::put(&mut table, "name", name.into_owned());
    config::put(&mut table, "data.style", "ember");
    Job::from_table(table, &args)?.run_in(root, &args)
}
