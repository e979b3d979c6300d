//! The embedded example of training: one source model, fine-tuned with and without distillation, in one picture.

use crate::digits::form;
use crate::table::GAP;
use candle_core::Tensor;
use sdft_eval::score_digits;
use sdft_files::write_atomic;
use sdft_imaging::{Rgb8, encode_sheet, is_sheet, side_by_side};
use sdft_jobs::{
    Context, DIGITS_SOURCE, Error, Result, ResultExt, SamplePlan, Sampler, load_judge, load_model,
    train_preset,
};
use sdft_models::LoadOptions;
use sdft_train::{contact_sheet, to_screens};
use std::path::{Path, PathBuf};

/// The models next to the source model: titles and presets.
const MODELS: [(&str, &str); 2] = [("naive", "digits-naive"), ("SDFT", "digits-sdft")];
/// Classes of the target set.
const PRESENT: [u8; 3] = [1, 4, 7];
/// Seed of the noise, the same for every model.
const NOISE_SEED: u64 = 1000;
/// Number of samples to classify, and how many of them are in the picture.
const JUDGED: usize = 96;
const SHOWN: usize = 36;

/// The result of [`fine_tuning_example`].
#[derive(Clone, Debug)]
pub struct FineTuningExample {
    /// The model that was fine-tuned with SDFT.
    pub model: PathBuf,
    /// Samples of the source model, naive fine-tuning and SDFT from the same noise.
    pub picture: PathBuf,
    /// For each fine-tuned model, the share of samples of classes that the target set lacks, in its style.
    pub shares: Vec<(&'static str, f64)>,
    /// Samples of each model.
    pub judged: usize,
}

/// Fine-tunes the embedded model on 90 digits of three classes in another style, naively and with SDFT, into `out`. Existing models
/// are not trained again. `assignments` override the presets' settings. Returns `None` if the job was interrupted.
///
/// # Errors
/// - [`Error::Usage`] for a folder whose `example.png` is another picture
/// - an error of training or sampling
pub fn fine_tuning_example(
    out: &Path,
    assignments: &[&str],
    context: &mut Context<'_>,
) -> Result<Option<FineTuningExample>> {
    let picture = out.join("example.png");
    if std::fs::symlink_metadata(&picture).is_ok() && !is_sheet(&picture) {
        return Err(Error::Usage(format!(
            "--out {}: the example would replace {}, which is another picture; move it away or name another folder",
            out.display(),
            picture.display()
        )));
    }
    let source = samples(DIGITS_SOURCE, context)?;
    let mut sheets = vec![shown(&source, "source")?];
    let judge = load_judge()?;
    let mut shares = Vec::new();
    let mut model = PathBuf::new();
    for (title, preset) in MODELS {
        let root = out.join(format!("example-{}", title.to_lowercase()));
        if root.join("final.safetensors").is_file() {
            context.progress.note(&format!(
                "{} exists already; remove it to train it again",
                root.display()
            ));
        }
        let Some(trained) = train_preset(preset, assignments, &root, context)? else {
            return Ok(None);
        };
        let drawn = samples(&trained.display().to_string(), context)?;
        shares.push((title, score_digits(&judge, &drawn, &PRESENT)?.coverage));
        sheets.push(shown(&drawn, title)?);
        model = trained;
    }
    let png = encode_sheet(&side_by_side(&sheets, 8, GAP))?;
    write_atomic(&picture, &png).with_context(|| format!("cannot write {}", picture.display()))?;
    Ok(Some(FineTuningExample {
        model,
        picture,
        shares,
        judged: JUDGED,
    }))
}

fn shown(samples: &Tensor, title: &str) -> Result<Rgb8> {
    let first = to_screens(&samples.narrow(0, 0, SHOWN)?, &form())?;
    Ok(contact_sheet(&first, title))
}

/// The samples of a model.
fn samples(name: &str, context: &mut Context<'_>) -> Result<Tensor> {
    let model = load_model(name, &LoadOptions::default())?;
    let plan = SamplePlan::paper(&model, name, NOISE_SEED, context)?;
    let sampler = Sampler::new(plan, &model, context)?;
    Ok(sampler.draw(NOISE_SEED, 0, JUDGED, &mut |_| Ok(()))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;
    use sdft_imaging::{Limits, decode_file};
    use sdft_train::NoopProgress;
    use std::sync::atomic::AtomicBool;

    #[test]
    fn the_example_ends_with_one_picture_of_the_source_model_and_both_ways_to_fine_tune_it() {
        let dir = tempfile::tempdir().unwrap();
        let (stop, mut progress) = (AtomicBool::new(false), NoopProgress);
        let mut context = Context::new(Device::Cpu, &stop, &mut progress);
        let set = [
            "loop.steps=2",
            "loop.batch=2",
            "output.samples=1",
            "output.sampler=ddim2",
        ];
        let made = fine_tuning_example(dir.path(), &set, &mut context).unwrap();
        assert_eq!(made.unwrap().shares.len(), 2);
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
        fine_tuning_example(dir.path(), &set, &mut context).unwrap();
        assert_eq!(before, (made("example-naive"), made("example-sdft")));
        assert_eq!(decode_file(&path, &Limits::default()).unwrap(), picture);
        // A picture of the user's is not replaced.
        std::fs::write(&path, b"precious").unwrap();
        let error = fine_tuning_example(dir.path(), &set, &mut context)
            .unwrap_err()
            .to_string();
        assert!(error.contains("another picture"), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    }
}
