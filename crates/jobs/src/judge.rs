//! The small classifier that judges digits: the embedded one, and others trained from another seed.

use crate::context::Context;
use crate::error::{Result, ResultExt as _};
use candle_core::DType;
use sdft_assets::DIGITS_JUDGE_WEIGHTS;
use sdft_eval::{Extractor, JudgeReport, View};
use sdft_features::DigitsJudge;
use sdft_models::read_params_bytes;
use sdft_nn::Params;
use std::collections::BTreeMap;
use std::path::Path;

/// The seed of [`second_judge`]; the embedded judge has 0.
const SECOND_SEED: u64 = 1;

/// Trains a judge from `seed` and writes it to `path`.
///
/// # Errors
/// The file cannot be written.
pub fn train_judge(path: &Path, seed: u64, context: &mut Context<'_>) -> Result<JudgeReport> {
    let (params, report) = sdft_eval::train_judge(seed, |step, steps, loss| {
        if step % 100 == 0 {
            let text = format!("judge step {step}/{steps} loss {loss:.4}");
            context.progress.note(&text);
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

/// A second judge and its features, trained into `path` unless that exists: for images that were optimised against the embedded one.
///
/// # Errors
/// The file cannot be written or read.
pub fn second_judge(path: &Path, context: &mut Context<'_>) -> Result<(DigitsJudge, Extractor)> {
    if !path.is_file() {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)
                .with_context(|| format!("cannot make the folder {}", parent.display()))?;
        }
        train_judge(path, SECOND_SEED, context)?;
    }
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let specs = DigitsJudge::specs()?;
    let params = read_params_bytes(&path.display().to_string(), &bytes, &specs)?;
    let hash = sdft_files::sha256_bytes(&bytes);
    let features = Extractor::new(View::Digits, &params, hash)?;
    Ok((DigitsJudge::load(&params)?, features))
}

/// The embedded judge's features, for sets of digits.
///
/// # Errors
/// A tensor operation fails.
pub fn judge_features() -> Result<Extractor> {
    let hash = sdft_files::sha256_bytes(DIGITS_JUDGE_WEIGHTS);
    Ok(Extractor::new(View::Digits, &params()?, hash)?)
}

/// The embedded judge.
///
/// # Errors
/// A tensor operation fails.
pub fn load_judge() -> Result<DigitsJudge> {
    Ok(DigitsJudge::load(&params()?)?)
}

fn params() -> Result<Params> {
    Ok(read_params_bytes(
        "digits-judge",
        DIGITS_JUDGE_WEIGHTS,
        &DigitsJudge::specs()?,
    )?)
}
