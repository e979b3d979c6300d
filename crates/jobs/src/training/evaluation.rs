//! The networks that judge samples while a model is trained.

use super::networks::TrainPlan;
use crate::error::{Result, failed, usage};
use crate::judge::{emoji_judge_features, judge_features, load_emoji_judges, load_judge};
use crate::weights::Weights;
use candle_core::Device;
use sdft_eval::Extractor;
use sdft_features::InceptionResize;
use sdft_files::similar_path;
use sdft_train::{Evaluator, SampleJudge};
use std::path::{Path, PathBuf};

/// The evaluator of samples: the embedded judge for digits and emoji, otherwise the network of the plan, on `device`.
pub(super) fn evaluator(plan: &TrainPlan, device: &Device) -> Result<Evaluator> {
    if plan.data.is_digits() {
        let present = match plan.data.chosen_digits() {
            [] => (0..10).collect(),
            digits => digits.to_vec(),
        };
        return Ok(Evaluator {
            extractor: judge_features()?,
            judge: Some(SampleJudge::Digits(load_judge()?, present)),
        });
    }
    if plan.data.is_emoji() {
        return Ok(Evaluator {
            extractor: emoji_judge_features()?,
            judge: Some(SampleJudge::Emoji(load_emoji_judges()?.into())),
        });
    }
    let extractor = extractor(plan, device)?;
    if extractor.weights() != plan.eval.weights_sha256 {
        return Err(failed(format!(
            "{}: the weights changed since the run began: their SHA-256 was {}, now it is {}",
            plan.eval.weights,
            plan.eval.weights_sha256,
            extractor.weights()
        )));
    }
    Ok(Evaluator {
        extractor,
        judge: None,
    })
}

fn extractor(plan: &TrainPlan, device: &Device) -> Result<Extractor> {
    let files = [PathBuf::from(&plan.eval.weights)];
    let view = plan.eval.features.view(InceptionResize::default());
    Ok(Extractor::read(view, &files, device)?)
}

/// Finds and checks the weights for a run that evaluates.
pub(super) fn locate_eval_weights(plan: &mut TrainPlan) -> Result<()> {
    if plan.eval.every == 0 || plan.data.is_digits() || plan.data.is_emoji() {
        return Ok(());
    }
    if plan.eval.weights.is_empty() {
        let otherwise =
            "give --set eval.weights=FILE, or turn the evaluation off with --set eval.every=0";
        let network = plan.eval.features.network();
        let files = Weights::parse(&[])?.of(network, otherwise)?;
        let file = files
            .weights
            .first()
            .ok_or_else(|| failed(format!("the weights of {} have no file", network.name())))?;
        plan.eval.weights = file.display().to_string();
    }
    let path = Path::new(&plan.eval.weights);
    if !path.is_file() {
        return Err(usage(format!(
            "eval.weights: {} is not a file{}",
            path.display(),
            similar_path(path)
        )));
    }
    // Before there is a folder: a file of another network is refused here.
    let read = extractor(plan, &Device::Cpu);
    let read = read.map_err(|error| usage(format!("eval.weights: {error}")))?;
    plan.eval.weights_sha256 = read.weights().to_owned();
    Ok(())
}
