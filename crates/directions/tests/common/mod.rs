//! The embedded digits, their model and their judge.
#![allow(dead_code, reason = "each test file uses its own part")]

use candle_core::Tensor;
use sdft_asyrp::{Embed, Goal, GoalWeights, TextDirection};
use sdft_data::{Digits, DigitsSource, ImageSource, Style};
use sdft_eval::class_features;
use sdft_features::DigitsJudge;
use sdft_models::{LoadOptions, LoadedModel, load_network, read_params_bytes};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

pub(crate) fn asset(name: &str) -> PathBuf {
    let weights = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/weights");
    weights.join(name)
}

pub(crate) fn model() -> LoadedModel {
    load_network(&asset("digits-source.safetensors"), &LoadOptions::default()).unwrap()
}

pub(crate) fn judge() -> DigitsJudge {
    let bytes = std::fs::read(asset("digits-judge.safetensors")).unwrap();
    let params = read_params_bytes("judge", &bytes, &DigitsJudge::specs().unwrap()).unwrap();
    DigitsJudge::load(&params).unwrap()
}

/// Threes in chalk: the first `skip` left out, then `n`.
pub(crate) fn threes(skip: usize, n: usize) -> Vec<sdft_imaging::Rgb8> {
    let digits = Digits::embedded().unwrap();
    let all = DigitsSource::new(digits, Style::Chalk, &[3], skip + n).unwrap();
    (skip..all.len()).map(|i| all.screen(i).unwrap()).collect()
}

/// From 3 to 2 in the judge's space, seen through `embed`.
pub(crate) fn goal(embed: Box<Embed>) -> Goal {
    let judge = judge();
    let place = |class| class_features(&judge, class, 100).unwrap();
    let direction = TextDirection::between(&place(3), &place(2)).unwrap();
    let weights = GoalWeights {
        l1: 0.3,
        ..GoalWeights::default()
    };
    Goal::new(embed, direction, 0.8, weights)
}

pub(crate) fn seen() -> Box<Embed> {
    let judge = judge();
    Box::new(move |x| Ok(judge.classify(x)?.features))
}

/// The judge, which raises `stop` when it is asked for the `at`-th time.
pub(crate) fn stopping(stop: &Arc<AtomicBool>, at: usize) -> Box<Embed> {
    let (judge, stop, asked) = (judge(), stop.clone(), AtomicUsize::new(0));
    Box::new(move |x: &Tensor| {
        if asked.fetch_add(1, Ordering::Relaxed) + 1 == at {
            stop.store(true, Ordering::Relaxed);
        }
        Ok(judge.classify(x)?.features)
    })
}

pub(crate) fn weights(root: &Path) -> Vec<u8> {
    let newest = std::fs::read_to_string(root.join("checkpoints/latest")).unwrap();
    let folder = root.join("checkpoints").join(newest.trim());
    std::fs::read(folder.join("weights.safetensors")).unwrap()
}

/// The judge, whose answers `from..to` are NaN.
pub(crate) fn broken(from: usize, to: usize) -> Box<Embed> {
    let (judge, asked) = (judge(), AtomicUsize::new(0));
    Box::new(move |x: &Tensor| {
        let features = judge.classify(x)?.features;
        let k = asked.fetch_add(1, Ordering::Relaxed) + 1;
        match (from..to).contains(&k) {
            true => features * f64::NAN,
            false => Ok(features),
        }
    })
}

pub(crate) fn numbers(model: &LoadedModel) -> Vec<Vec<f32>> {
    let all = model.params.iter();
    all.map(|(_, tensor)| tensor.flatten_all().unwrap().to_vec1().unwrap())
        .collect()
}
