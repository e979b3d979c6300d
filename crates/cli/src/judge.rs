use crate::args::JudgeArgs;
use crate::gallery::refusal::check_new_file;
use crate::{assets, console};
use anyhow::{Context, Result};
use candle_core::DType;
use sdft_eval::{Extractor, JudgeReport, View};
use sdft_features::DigitsJudge;
use sdft_models::read_params_bytes;
use sdft_nn::Params;
use std::collections::BTreeMap;
use std::path::Path;

/// Trains the judge and writes it.
pub(crate) fn judge(args: &JudgeArgs) -> Result<()> {
    check_new_file("--out", &args.out, args.overwrite.into())?;
    let report = train(&args.out, args.seed)?;
    console::line(format_args!(
        "{}: class accuracy {:.3}, style accuracy {:.3} on {} held-out images",
        args.out.display(),
        report.class_accuracy,
        report.style_accuracy,
        report.n
    ))?;
    Ok(())
}

fn train(path: &Path, seed: u64) -> Result<JudgeReport> {
    let (params, report) = sdft_eval::train_judge(seed, |step, steps, loss| {
        if step % 100 == 0 {
            console::note(&format!("judge step {step}/{steps} loss {loss:.4}"));
        }
    })?;
    let metadata = BTreeMap::from([
        ("sdft.kind".to_owned(), "digits-judge".to_owned()),
        ("sdft.provenance.seed".to_owned(), seed.to_string()),
        (
            "sdft.provenance.class_accuracy".to_owned(),
            format!("{:.4}", report.class_accuracy),
        ),
    ]);
    sdft_checkpoint::write_safetensors(path, params.iter(), &metadata, Some(DType::F16))?;
    Ok(report)
}

/// A second judge, and its features, trained from another seed into `path` unless it is there: for images that were made to please the
/// first.
pub(crate) fn second(path: &Path) -> Result<(DigitsJudge, Extractor)> {
    const SEED: u64 = 1;
    if !path.is_file() {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)
                .with_context(|| format!("cannot make the folder {}", parent.display()))?;
        }
        train(path, SEED)?;
    }
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let specs = DigitsJudge::specs()?;
    let params = read_params_bytes(&path.display().to_string(), &bytes, &specs)?;
    let hash = sdft_checkpoint::sha256_bytes(&bytes);
    let features = Extractor::new(View::Digits, &params, hash)?;
    Ok((DigitsJudge::load(&params)?, features))
}

/// The judge's features for sets of digits.
pub(crate) fn extractor() -> Result<Extractor> {
    let hash = sdft_checkpoint::sha256_bytes(assets::DIGITS_JUDGE_WEIGHTS);
    Ok(Extractor::new(View::Digits, &params()?, hash)?)
}

fn params() -> Result<Params> {
    Ok(read_params_bytes(
        "digits-judge",
        assets::DIGITS_JUDGE_WEIGHTS,
        &DigitsJudge::specs()?,
    )?)
}

/// The judge that the program carries with it.
pub(crate) fn load() -> Result<DigitsJudge> {
    Ok(DigitsJudge::load(&params()?)?)
}
