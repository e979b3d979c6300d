//! The small classifiers that judge images of the embedded sets: the embedded ones, and others trained from another seed.

use crate::context::Context;
use crate::error::{Result, ResultExt as _, failed};
use candle_core::{DType, Device};
use sdft_assets::{DIGITS_JUDGE_WEIGHTS, EMOJI_JUDGE_2_WEIGHTS, EMOJI_JUDGE_WEIGHTS};
use sdft_eval::{EmojiJudgeReport, Extractor, JudgeReport, View};
use sdft_features::{AttributeJudge, DigitsJudge};
use sdft_models::read_params_bytes;
use std::collections::BTreeMap;
use std::path::Path;

/// The seed of [`second_judge`]; the embedded judge has 0. The embedded judges of the emoji have 0 and 1, too.
const SECOND_SEED: u64 = 1;

/// Trains a judge of the digits from `seed` and writes it to `path`.
///
/// # Errors
/// The file cannot be written.
pub fn train_judge(path: &Path, seed: u64, context: &mut Context<'_>) -> Result<JudgeReport> {
    let (params, report) = sdft_eval::train_judge(seed, noted(context))?;
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

/// Trains a judge of the emoji from `seed` and writes it to `path`.
///
/// # Errors
/// The file cannot be written.
pub fn train_emoji_judge(
    path: &Path,
    seed: u64,
    context: &mut Context<'_>,
) -> Result<EmojiJudgeReport> {
    let (config, params, report) = sdft_eval::train_emoji_judge(seed, noted(context))?;
    let mut metadata = config.metadata()?;
    metadata.insert("sdft.provenance.seed".to_owned(), seed.to_string());
    let accuracies = report.heads.iter().map(|head| (&*head.name, head.accuracy));
    for (name, accuracy) in accuracies.chain([("style", report.style)]) {
        let key = format!("sdft.provenance.{name}_accuracy");
        metadata.insert(key, format!("{accuracy:.4}"));
    }
    sdft_checkpoint::write_safetensors(path, params.iter(), &metadata, Some(DType::F16))?;
    Ok(report)
}

/// Notes the loss of the training now and then.
fn noted(context: &mut Context<'_>) -> impl FnMut(u64, u64, f64) {
    let progress = &mut context.progress;
    |step, steps, loss| {
        if step % 100 == 0 {
            let text = format!("judge step {step}/{steps} loss {loss:.4}");
            progress.note(&text);
        }
    }
}

/// A second judge of the digits and its features, trained into `path` unless that exists: for images that were optimised against the embedded
/// one.
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
    digits_judge(&path.display().to_string(), &bytes)
}

/// The features of the embedded judge of the digits, for sets of digits.
///
/// # Errors
/// A tensor operation fails.
pub fn judge_features() -> Result<Extractor> {
    Ok(digits_judge("digits-judge", DIGITS_JUDGE_WEIGHTS)?.1)
}

/// The embedded judge of the digits.
///
/// # Errors
/// A tensor operation fails.
pub fn load_judge() -> Result<DigitsJudge> {
    let specs = DigitsJudge::specs()?;
    let params = read_params_bytes("digits-judge", DIGITS_JUDGE_WEIGHTS, &specs)?;
    Ok(DigitsJudge::load(&params)?)
}

fn digits_judge(name: &str, bytes: &[u8]) -> Result<(DigitsJudge, Extractor)> {
    let params = read_params_bytes(name, bytes, &DigitsJudge::specs()?)?;
    let judge = DigitsJudge::load(&params)?;
    let features = Extractor::of_judge(View::Digits, &judge, sdft_files::sha256_bytes(bytes))?;
    Ok((judge, features))
}

/// The first embedded judge of the emoji, which guides edits.
///
/// # Errors
/// A tensor operation fails.
pub(crate) fn load_emoji_judge() -> Result<AttributeJudge> {
    emoji_judge("emoji-judge", EMOJI_JUDGE_WEIGHTS)
}

/// The features of the embedded judge of the emoji, for sets of emoji.
///
/// # Errors
/// A tensor operation fails.
pub fn emoji_judge_features() -> Result<Extractor> {
    features_of_emoji(&load_emoji_judge()?, EMOJI_JUDGE_WEIGHTS)
}

/// Both embedded judges of the emoji, for images that were optimised against neither.
///
/// # Errors
/// A tensor operation fails.
pub fn load_emoji_judges() -> Result<[AttributeJudge; 2]> {
    Ok([load_emoji_judge()?, second_emoji_judge()?.0])
}

/// The second embedded judge of the emoji and its features, trained from another seed: for images that were optimised against the first.
///
/// # Errors
/// A tensor operation fails.
pub fn second_emoji_judge() -> Result<(AttributeJudge, Extractor)> {
    let bytes = EMOJI_JUDGE_2_WEIGHTS;
    let judge = emoji_judge("emoji-judge-2", bytes)?;
    let features = features_of_emoji(&judge, bytes)?;
    Ok((judge, features))
}

fn emoji_judge(name: &str, bytes: &[u8]) -> Result<AttributeJudge> {
    judge_on(name, bytes, &Device::Cpu)
}

fn judge_on(name: &str, bytes: &[u8], device: &Device) -> Result<AttributeJudge> {
    AttributeJudge::read_bytes(name, bytes, device).map_err(|error| failed(error.to_string()))
}

/// The embedded judge of the emoji or of the digits on the device of a training, and the SHA-256 of its file.
///
/// # Errors
/// The device has no memory left.
pub(crate) fn training_judge(is_emoji: bool, device: &Device) -> Result<(AttributeJudge, String)> {
    let (judge, bytes) = match is_emoji {
        true => {
            let bytes = EMOJI_JUDGE_WEIGHTS;
            (judge_on("emoji-judge", bytes, device)?, bytes)
        }
        false => {
            let bytes = DIGITS_JUDGE_WEIGHTS;
            let params = read_params_bytes("digits-judge", bytes, &DigitsJudge::specs()?)?;
            let params = params.to(DType::F32, device)?;
            (
                AttributeJudge::load(&DigitsJudge::config(), &params)?,
                bytes,
            )
        }
    };
    Ok((judge, sdft_files::sha256_bytes(bytes)))
}

fn features_of_emoji(judge: &AttributeJudge, bytes: &[u8]) -> Result<Extractor> {
    let hash = sdft_files::sha256_bytes(bytes);
    Ok(Extractor::of_judge(View::Emoji, judge, hash)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sdft_eval::{EMOJI_ATTRIBUTES, emoji_judge_config, evaluate_emoji_judges};

    #[test]
    fn both_judges_know_the_styles_and_attributes_of_the_emoji() {
        let judges = load_emoji_judges().unwrap();
        for judge in &judges {
            assert_eq!(judge.config(), &emoji_judge_config());
        }
        let report = evaluate_emoji_judges(&judges).unwrap();
        assert_eq!(report.n, 3287 + 2895);
        // Samples of diffusion models are soft, and soft Noto must not count as Fluent.
        assert!(
            report.style > 0.99 && report.soft_style > 0.99,
            "{report:#?}"
        );
        for (name, least) in [
            ("kind", 0.95),
            ("tone", 0.95),
            ("gender", 0.9),
            ("glasses", 0.99),
            ("hat", 0.98),
            ("mood", 0.95),
        ] {
            let head = report.heads.iter().find(|head| head.name == name).unwrap();
            assert!(head.accuracy > least, "{name}: {}", head.accuracy);
        }
        for (attribute, counted) in EMOJI_ATTRIBUTES.iter().zip(&report.counted) {
            assert_eq!(attribute.name, counted.value);
            assert!(
                counted.precision() > 0.9 && counted.recall() > 0.8,
                "{counted:?}"
            );
        }
        let style = |judge: &AttributeJudge| {
            let x =
                candle_core::Tensor::zeros((1, 3, 32, 32), DType::F32, &candle_core::Device::Cpu);
            let seen = judge.classify(&x.unwrap()).unwrap();
            seen.style.to_vec1::<f32>().unwrap()
        };
        assert_ne!(style(&judges[0]), style(&judges[1]));
        for attribute in EMOJI_ATTRIBUTES {
            let heads = &judges[0].config().heads;
            let head = &heads[judges[0].head(attribute.column).unwrap()];
            let known = |value: &&str| head.position(value).is_some();
            assert!(attribute.values.iter().all(known), "{}", attribute.name);
        }
    }
}
