//! The embedded example: one source model, fine-tuned with and without distillation, in one picture.

use super::{load_model, train_preset};
use crate::bridge::judge;
use crate::job::job;
use crate::{INTERRUPTED, assets, console, usage};
use anyhow::{Context, Result};
use candle_core::Tensor;
use sdft_eval::score_digits;
use sdft_files::write_atomic;
use sdft_imaging::{encode_sheet, is_sheet, side_by_side};
use sdft_jobs::{SamplePlan, Sampler};
use sdft_models::LoadOptions;
use sdft_train::{contact_sheet, to_images};
use std::path::Path;
use std::process::ExitCode;

/// The models next to the source model: titles and presets. The last one trained is what `sample` draws from.
const MODELS: [(&str, &str); 2] = [("naive", "digits-naive"), ("SDFT", "digits-sdft")];
/// Classes of the target set.
const PRESENT: [u8; 3] = [1, 4, 7];
/// Seed of the noise, the same for every model.
const NOISE_SEED: u64 = 1000;
/// Samples that are judged, and how many of them are in the picture.
const JUDGED: usize = 96;
const SHOWN: usize = 36;
/// Grey between the models.
const GAP: [u8; 3] = [24, 24, 24];

/// Trains the models into `out` unless they are there, and draws the picture next to them.
pub(super) fn example(out: &Path) -> Result<ExitCode> {
    compare(out, &[])
}

/// The example, with these settings on top of its presets'.
fn compare(out: &Path, set: &[&str]) -> Result<ExitCode> {
    console::note(
        "no arguments: the embedded example. A model that draws all ten digits in chalk is fine-tuned on 90 digits, 1, 4 and 7 only, in \
         another style: first naively, then with SDFT",
    );
    let picture = out.join("example.png");
    if std::fs::symlink_metadata(&picture).is_ok() && !is_sheet(&picture) {
        return Err(usage(format!(
            "--out {}: the example would replace {}, which is something else; move that away or name another folder",
            out.display(),
            picture.display()
        )));
    }
    let source = samples(assets::DIGITS_SOURCE)?;
    let mut sheets = vec![contact_sheet(
        &to_images(&source.narrow(0, 0, SHOWN)?)?,
        "source",
    )];
    let judge = judge::load()?;
    let mut shares = Vec::new();
    let mut last = None;
    for (title, preset) in MODELS {
        let root = out.join(format!("example-{}", title.to_lowercase()));
        if root.join("final.safetensors").is_file() {
            console::note(&format!(
                "{} is there already; remove it to train it again",
                root.display()
            ));
        }
        let Some(model) = train_preset(preset, set, &root)? else {
            console::line("interrupted; the same command goes on from here")?;
            return Ok(ExitCode::from(INTERRUPTED));
        };
        let drawn = samples(&model.display().to_string())?;
        let share = 100.0 * score_digits(&judge, &drawn, &PRESENT)?.coverage;
        shares.push(format!("{title} {share:.0} %"));
        sheets.push(contact_sheet(
            &to_images(&drawn.narrow(0, 0, SHOWN)?)?,
            title,
        ));
        last = Some(model);
    }
    let png = encode_sheet(&side_by_side(&sheets, 8, GAP))?;
    write_atomic(&picture, &png).with_context(|| format!("cannot write {}", picture.display()))?;
    if let Some(model) = last {
        console::line(format_args!("model    {}", model.display()))?;
    }
    console::line(format_args!(
        "unseen   {} of {JUDGED} samples are one of the other seven digits, in the new style",
        shares.join(", ")
    ))?;
    console::line(format_args!(
        "picture  {} (from the same noise: the source model, naive fine-tuning, SDFT)",
        picture.display()
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// The samples of a model.
fn samples(name: &str) -> Result<Tensor> {
    let model = load_model(name, &LoadOptions::default())?;
    job("sample", |context| {
        let plan = SamplePlan::paper(&model, name, NOISE_SEED, context)?;
        let sampler = Sampler::new(plan, &model, context)?;
        Ok(sampler.draw(NOISE_SEED, 0, JUDGED, &mut |_| Ok(()))?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use sdft_imaging::{Limits, decode_file};

    #[test]
    fn the_example_ends_with_one_picture_of_the_source_model_and_both_ways_to_fine_tune_it() {
        let dir = tempfile::tempdir().unwrap();
        let set = [
            "loop.steps=2",
            "loop.batch=2",
            "output.samples=1",
            "output.sampler=ddim2",
        ];
        assert_eq!(compare(dir.path(), &set).unwrap(), ExitCode::SUCCESS);
        let path = dir.path().join("example.png");
        let picture = decode_file(&path, &Limits::default()).unwrap();
        // Three grids of six by six images of 64 pixels under a title.
        let grid = 6 * 66 + 2;
        assert_eq!(
            (picture.width, picture.height),
            (3 * grid + 2 * 8, grid + 22)
        );
        let panel = |i: usize| picture.crop(i * (grid + 8), 22, grid, grid).unwrap();
        assert!(panel(0) != panel(1) && panel(1) != panel(2));
        // The same again trains nothing and draws the same.
        std::fs::remove_file(&path).unwrap();
        let made = |run: &str| {
            let model = dir.path().join(run).join("final.safetensors");
            model.metadata().unwrap().modified().unwrap()
        };
        let before = (made("example-naive"), made("example-sdft"));
        compare(dir.path(), &set).unwrap();
        assert_eq!(before, (made("example-naive"), made("example-sdft")));
        assert_eq!(decode_file(&path, &Limits::default()).unwrap(), picture);
        // A picture of the user's is not replaced.
        std::fs::write(&path, b"precious").unwrap();
        let error = compare(dir.path(), &set).unwrap_err().to_string();
        assert!(error.contains("something else"), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    }
}
