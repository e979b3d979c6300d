//! The example of training: one source model, fine-tuned with and without distillation, in one picture.

use super::{ExampleOptions, read_pictures, refill, tensor};
use crate::emoji::training_set;
use crate::marked::{legend, marked_sheet};
use crate::table::GAP;
use sdft_eval::{judge_emoji, retained_emoji};
use sdft_files::write_atomic;
use sdft_imaging::{Rgb8, encode_sheet, is_sheet, stacked};
use sdft_jobs::{
    Context, EMOJI_SOURCE, Error, Result, ResultExt, SampleOptions, SamplerKind, load_emoji_judges,
    sample_to_folder,
};
use std::path::{Path, PathBuf};

/// The fine-tuned models: names, titles and presets.
const MODELS: [(&str, &str, &str); 2] = [
    ("naive", "naive fine-tuning", "emoji-naive"),
    ("sdft", "SDFT", "emoji-sdft"),
];
/// Seed of the noise, the same for every model.
const NOISE_SEED: u64 = 1000;
/// Columns of the picture, and rows of samples of each model.
const COLUMNS: usize = 12;
const ROWS: usize = 2;
/// Pixels between its parts.
const BETWEEN: usize = 6;

/// The result of [`fine_tuning_example`].
#[derive(Clone, Debug)]
pub struct FineTuningExample {
    /// The model that was fine-tuned with SDFT.
    pub model: PathBuf,
    /// Samples of the source model, naive fine-tuning and SDFT from the same noise.
    pub picture: PathBuf,
    /// Number of pictures in the target set.
    pub target: usize,
    /// Number of the source's samples with attributes that the target set lacks.
    pub counted: usize,
    /// For each fine-tuned model, how many of these have a counterpart from the same noise with one of the attributes, in the target's style.
    pub kept: Vec<(&'static str, usize)>,
    /// The folder of each run.
    pub runs: Vec<PathBuf>,
    /// Samples of each model.
    pub samples: usize,
}

/// Fine-tunes the embedded model of Noto's emoji on portraits in Fluent's style, all of them light-skinned men or persons drawn neutrally,
/// naively and with SDFT, and draws samples of all three models. Existing models and samples are not made again. Returns `None` if the job
/// was interrupted.
///
/// # Errors
/// - [`Error::Usage`] for a folder whose `example.png` is another picture
/// - an error of training or sampling
pub fn fine_tuning_example(
    options: &ExampleOptions,
    context: &mut Context<'_>,
) -> Result<Option<FineTuningExample>> {
    let out = &options.out;
    let picture = out.join("example.png");
    if std::fs::symlink_metadata(&picture).is_ok() && !is_sheet(&picture) {
        return Err(Error::Usage(format!(
            "--out {}: the example would replace {}, which is another picture; move it away or name another folder",
            out.display(),
            picture.display()
        )));
    }
    let Some(source) = samples(EMOJI_SOURCE, "source", options, context)? else {
        return Ok(None);
    };
    let target = training_set("emoji-sdft", context)?;
    let n = target.len();
    let some: Vec<Rgb8> = (0..COLUMNS.min(n))
        .map(|i| target[i * n / COLUMNS.min(n)].clone())
        .collect();
    let title = format!("fine-tuned on {n} pictures such as these, in another style");
    let judges = load_emoji_judges()?;
    let judged_source = judge_emoji(&judges, &tensor(&source)?)?;
    let counts = retained_emoji(&judged_source, &judged_source)?;
    let counted = counts.iter().flatten().count();
    let order = shown(&counts);
    let mut parts = vec![
        rows(
            &source,
            &order,
            &[],
            &format!("source model: all kinds of emoji in one style, the first {counted} count"),
        ),
        marked_sheet(&some, &[], COLUMNS, &title),
    ];
    let (mut kept, mut runs) = (Vec::new(), Vec::new());
    let mut model = PathBuf::new();
    for (name, title, preset) in MODELS {
        let Some(trained) = options.model(name, preset, context)? else {
            return Ok(None);
        };
        let file = trained.display().to_string();
        let Some(drawn) = samples(&file, name, options, context)? else {
            return Ok(None);
        };
        let judged = judge_emoji(&judges, &tensor(&drawn)?)?;
        let retained = retained_emoji(&judged_source, &judged)?;
        let marks: Vec<bool> = retained.iter().map(|kept| *kept == Some(true)).collect();
        let n_kept = marks.iter().filter(|&&kept| kept).count();
        let line = format!("{title}, same noise: {n_kept} of {counted} are kept");
        parts.push(rows(&drawn, &order, &marks, &line));
        kept.push((title, n_kept));
        runs.extend(trained.parent().map(Path::to_owned));
        model = trained;
    }
    parts.push(legend(&format!(
        "kept: what the source draws and the {n} lack, in the new style"
    )));
    let png = encode_sheet(&stacked(&parts, BETWEEN, GAP))?;
    write_atomic(&picture, &png).with_context(|| format!("cannot write {}", picture.display()))?;
    Ok(Some(FineTuningExample {
        model,
        picture,
        target: n,
        counted,
        kept,
        runs,
        samples: options.samples,
    }))
}

/// The samples that are shown: first those that count.
fn shown(counts: &[Option<bool>]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..counts.len()).collect();
    order.sort_by_key(|&i| counts[i].is_none());
    order.truncate(ROWS * COLUMNS);
    order
}

/// These samples and their marks, row by row under a title.
fn rows(samples: &[Rgb8], order: &[usize], marks: &[bool], title: &str) -> Rgb8 {
    let shown: Vec<Rgb8> = order.iter().map(|&i| samples[i].clone()).collect();
    let marks: Vec<bool> = order
        .iter()
        .filter_map(|&i| marks.get(i).copied())
        .collect();
    marked_sheet(&shown, &marks, COLUMNS, title)
}

/// The samples of a model, or `None` if drawing them was interrupted.
fn samples(
    model: &str,
    name: &str,
    options: &ExampleOptions,
    context: &mut Context<'_>,
) -> Result<Option<Vec<Rgb8>>> {
    let drawn = SampleOptions {
        model: model.to_owned(),
        n: options.samples,
        batch: COLUMNS,
        seed: NOISE_SEED,
        sampler: Some(SamplerKind::Ddim),
        steps: Some(format!("ddim{}", options.steps)),
        out: options.folder("samples").join(name),
        ..SampleOptions::default()
    };
    let report = refill(context, |overwrite, context| {
        let drawn = SampleOptions {
            overwrite,
            ..drawn.clone()
        };
        sample_to_folder(&drawn, context)
    })?;
    if report.complete < report.all {
        return Ok(None);
    }
    let names = (0..options.samples).map(|i| format!("{i:05}.png"));
    Ok(Some(read_pictures(&drawn.out, names)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_that_count_are_shown_first_and_in_their_order() {
        assert_eq!(shown(&[None, Some(false), None, Some(true)]), [1, 3, 0, 2]);
        assert_eq!(shown(&[None; 100]).len(), ROWS * COLUMNS);
    }
}
