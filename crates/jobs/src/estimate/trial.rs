//! Time by a trial pass, and disk space.

use super::{Disk, Estimate, memory_of, memory_of_classifier};
use crate::error::Result;
use crate::training::{TrainPlan, adapter_sizes, sides, trainable, trained_architecture};
use candle_core::{DType, Device, Tensor};
use sdft_adm::Encoder;
use sdft_autograd::backward;
use sdft_classifier::{ClassifierPlan, start_classifier};
use sdft_cuda::synchronize;
use sdft_diffusion::{Condition, LevelDraw};
use sdft_files::{human_size, plural};
use sdft_losses::distill_odds;
use sdft_nn::{ParamSpec, Params};
use sdft_schedule::Respacing;
use sdft_train::{AuxSampling, DistillSampling, drawn_for_grid, noise_levels};
use std::time::Instant;

/// A trial pass has as many images as this many operations allow, at least one.
const TRIAL_FLOPS: f64 = 2e10;

/// Seconds that a trial pass of a classifier may take.
pub(super) const PATIENCE: f64 = 10.0;

/// The cost of training a diffusion model on so many images.
pub(crate) fn estimate(plan: &TrainPlan, images: usize, device: &Device) -> Result<Estimate> {
    let needed = memory_of(plan)?;
    let problem = needed.problem(device);
    let (mut seconds, mut drawing_seconds) = (None, None);
    if problem.is_none() {
        let passes = trial(plan, trial_images(plan), device)?;
        let drawing = drawn_steps(plan)? * passes.0;
        let steps = step_seconds(plan, passes)? * plan.steps.steps as f64;
        (seconds, drawing_seconds) = (Some(steps + drawing), Some(drawing));
    }
    let (checkpoint, bytes) = disk(plan)?;
    let parameters = trained_architecture(plan).cost(sides(plan)).parameters;
    let trained = match adapter_sizes(plan)? {
        None => String::new(),
        Some(sizes) => format!(", {} trained as {}", sizes.trained, plan.adapter),
    };
    Ok(Estimate {
        subject: format!(
            "{}, {parameters} parameters{trained}",
            plural(images, "image", "images")
        ),
        seconds,
        drawing_seconds,
        trajectory_seconds: None,
        memory: needed.bytes,
        problem,
        disk: Disk {
            bytes,
            of: format!(
                "{} a checkpoint, {} kept{}",
                human_size(checkpoint),
                plan.output.keep,
                match latents_bytes(plan, images) {
                    0 => String::new(),
                    bytes => format!("; latents of {} go to the user's cache", human_size(bytes)),
                }
            ),
            folder: None,
        },
    })
}

/// Bytes of the latents of so many images; 0 for a network of images.
fn latents_bytes(plan: &TrainPlan, images: usize) -> u64 {
    let Some(config) = plan.model.autoencoder_config() else {
        return 0;
    };
    let [height, width] = sides(plan);
    let mirrored = if plan.data.flip { 2 } else { 1 };
    // Mean and deviation, in f32.
    let each = 2 * 4 * config.latent_channels() * height * width;
    (images * mirrored * each) as u64
}

/// Seconds of one optimizer step, from those of the passes of [`trial`].
fn step_seconds(plan: &TrainPlan, (forward, both): (f64, f64)) -> Result<f64> {
    let frozen_images = aux_per_image(plan) + source_share(plan)? + guided_per_image(plan);
    let recomputed = f64::from(u8::from(plan.steps.recompute));
    let trained = (both + recomputed * forward) * trained_per_image(plan);
    Ok(plan.steps.batch as f64 * (trained + forward * frozen_images))
}

/// Forward passes of single images for all samples of a run: the source model's, and those of the model in training, as long as its raw
/// weights draw the same as their average.
fn drawn_steps(plan: &TrainPlan) -> Result<f64> {
    // The last step is followed by samples in any case.
    let times = |every: u64| {
        plan.steps
            .steps
            .saturating_sub(1)
            .checked_div(every)
            .unwrap_or(0)
    };
    let steps = |respacing: &Respacing| -> Result<f64> {
        Ok(plan.process.diffusion(false, respacing)?.n_steps() as f64)
    };
    let n = plan.output.samples;
    let of_source = if plan.source.is_empty() { 0 } else { n as u64 };
    let shown = of_source + (1 + times(plan.output.sample_every)) * drawn_for_grid(n) as u64;
    let evaluations = plan.steps.steps.checked_div(plan.eval.every).unwrap_or(0);
    let bank = &plan.loss.bank;
    let is_drawn = plan.needs_bank() && bank.path.is_empty();
    let parts = [
        (shown, &plan.output.sampler),
        (evaluations * plan.eval.samples as u64, &plan.eval.sampler),
        (u64::from(is_drawn) * bank.images as u64, &bank.sampler),
    ];
    let drawn = parts.into_iter().filter(|(images, _)| *images > 0);
    drawn
        .map(|(images, sampler)| Ok(images as f64 * steps(&sampler.parse()?)?))
        .sum()
}

/// The number of images of a trial pass.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a small positive number"
)]
fn trial_images(plan: &TrainPlan) -> usize {
    let micro = plan.micro_batch() as f64 * trained_per_image(plan);
    (TRIAL_FLOPS / plan.model.cost(sides(plan)).forward_flops).clamp(1.0, micro) as usize
}

/// Images that the network in training predicts, for each image of a batch.
fn trained_per_image(plan: &TrainPlan) -> f64 {
    1.0 + aux_per_image(plan) + kept_per_image(plan)
}

/// Kept samples for each image.
pub(super) fn kept_per_image(plan: &TrainPlan) -> f64 {
    match plan.loss.keep.weight > 0.0 {
        true => plan.loss.keep.share,
        false => 0.0,
    }
}

/// Predictions without gradients of the network in training and, for DogFit, of the source model, for each image.
fn guided_per_image(plan: &TrainPlan) -> f64 {
    let loss = &plan.loss;
    let dogfit = match loss.dogfit.is_on() {
        true => 2.0 * loss.dogfit.cutoff.min(1.0),
        false => 0.0,
    };
    dogfit + loss.ant.rounds as f64
}

/// Auxiliary inputs for each image.
pub(super) fn aux_per_image(plan: &TrainPlan) -> f64 {
    let objective = plan.objective(plan.model.learns_variance());
    match (objective.aux, plan.loss.aux_sampling) {
        (None, _) => 0.0,
        (Some(_), AuxSampling::Weighted) => 1.0 / 3.0,
        (Some(_), AuxSampling::Uniform | AuxSampling::Shared) => 1.0,
    }
}

/// The share of images that the source model predicts.
pub(super) fn source_share(plan: &TrainPlan) -> Result<f64> {
    let objective = plan.objective(plan.model.learns_variance());
    Ok(match (objective.distill, plan.loss.distill_sampling) {
        _ if objective.compares_pairs() => 1.0,
        (None, _) => 0.0,
        (Some(_), DistillSampling::All) => 1.0,
        (Some(term), DistillSampling::Weighted) => {
            let diffusion = plan.process.diffusion(false, &Respacing::All)?;
            let n = diffusion.n_steps();
            let grid: Vec<f64> = (0..n).map(|i| (i as f64 + 0.5) / n as f64).collect();
            let draws = noise_levels(plan, &diffusion)?.draw(&grid);
            let odds = |draw: &LevelDraw| distill_odds(term.weighting.at(draw.level.snr()));
            draws.iter().map(odds).sum::<f64>() / n as f64
        }
    })
}

/// Bytes of one checkpoint, and of everything in the run folder.
pub(crate) fn disk(plan: &TrainPlan) -> Result<(u64, u64)> {
    let parameters = trained_architecture(plan).cost(sides(plan)).parameters;
    let trained = adapter_sizes(plan)?.map(|sizes| sizes.trained);
    let (checkpoint, all) = disk_of(parameters, trained, plan.output.keep);
    // The folder has a copy of the autoencoder.
    let copy = match plan.model.autoencoder_config() {
        Some(config) => 4 * config.cost([config.factor(); 2]).parameters as u64,
        None => 0,
    };
    Ok((checkpoint, all + copy))
}

/// As [`disk`], for a network of so many parameters, of which an adapter trains `trained`.
pub(super) fn disk_of(parameters: usize, trained: Option<usize>, keep: usize) -> (u64, u64) {
    let checkpoint = checkpoint_bytes(trained.unwrap_or(parameters));
    let all = run_bytes(checkpoint, keep);
    match trained {
        None => (checkpoint, all),
        // The finished model is whole, next to its adapter.
        Some(_) => (checkpoint, 4 * parameters as u64 + all),
    }
}

/// Weights, average and two moments.
pub(super) fn checkpoint_bytes(parameters: usize) -> u64 {
    4 * 4 * parameters as u64
}

/// Checkpoints and the finished model. The newest checkpoint is written before the oldest is removed.
pub(super) fn run_bytes(checkpoint: u64, keep: usize) -> u64 {
    let checkpoints = (keep as u64 + 1).saturating_mul(checkpoint);
    checkpoints.saturating_add(checkpoint / 4)
}

/// Seconds per image of a forward pass, and of a forward and backward pass, with random weights.
fn trial(plan: &TrainPlan, images: usize, device: &Device) -> Result<(f64, f64)> {
    let architecture = &plan.model;
    let start = Params::init(&architecture.specs()?, 0, device)?;
    let (kind, dtype) = (
        plan.process.prediction_type,
        plan.steps.precision.compute_dtype(),
    );
    let mut trained = plan.clone();
    trained.steps.recompute = false;
    let frozen = architecture.load(&start, kind, dtype)?;
    let trainable = trainable(&start, architecture, &trained)?;
    let ([h, w], c) = (sides(plan), architecture.in_channels());
    let x = Tensor::ones((images, c, h, w), DType::F32, device)?;
    let diffusion = plan.process.diffusion(false, &Respacing::All)?;
    let t = diffusion.model_t(&vec![diffusion.n_steps() / 2; images])?;
    let labels = (architecture.n_classes() > 0).then(|| vec![0; images]);
    let condition = Condition {
        labels: labels.as_deref(),
        ..Condition::default()
    };
    let time = |pass: &dyn Fn() -> candle_core::Result<()>| -> candle_core::Result<f64> {
        // The first pass of a small network mostly warms the caches; a large one is not run twice for that.
        if images > 1 || device.is_cuda() {
            pass()?;
        }
        synchronize(device)?;
        let started = Instant::now();
        pass()?;
        synchronize(device)?;
        Ok(started.elapsed().as_secs_f64() / images as f64)
    };
    let forward = time(&|| frozen.predict_with(&x, &t, &condition).map(drop))?;
    let both = time(&|| {
        let out = trainable.predict(&x, &t, &condition)?.output;
        backward(&out.sqr()?.mean_all()?).map(drop)
    })?;
    Ok((forward, both))
}

/// The cost of training a classifier on so many source and target images.
pub(crate) fn estimate_classifier(
    plan: &ClassifierPlan,
    [source, target]: [usize; 2],
    device: &Device,
) -> Result<Estimate> {
    let needed = memory_of_classifier(plan)?;
    let problem = needed.problem(device);
    let seconds = match problem {
        Some(_) => None,
        None => Some(image_seconds(plan)? * plan.steps.batch as f64 * plan.steps.steps as f64),
    };
    let parameters = encoder_parameters(plan)?;
    Ok(Estimate {
        subject: format!(
            "{source} source and {}, {parameters} parameters",
            plural(target, "target image", "target images")
        ),
        seconds,
        drawing_seconds: None,
        trajectory_seconds: None,
        memory: needed.bytes,
        problem,
        disk: Disk {
            bytes: classifier_disk(plan)?,
            of: String::new(),
            folder: None,
        },
    })
}

pub(super) fn encoder_parameters(plan: &ClassifierPlan) -> Result<usize> {
    Ok(count(&Encoder::specs(&plan.model.encoder())?))
}

pub(super) fn count(specs: &[ParamSpec]) -> usize {
    let sizes = specs.iter().map(|s| s.shape.iter().product::<usize>());
    sizes.sum()
}

/// Seconds per image of a forward and backward pass of a classifier, on the CPU.
fn image_seconds(plan: &ClassifierPlan) -> Result<f64> {
    let (config, device) = (plan.model.encoder(), Device::Cpu);
    let (start, _) = start_classifier(&config, plan.seed, None, &device)?;
    let (params, _) = start.trainable()?;
    let encoder = Encoder::load(&params, &config)?;
    let ([h, w], c) = (plan.size().sides(), config.net.in_channels);
    let pass = |n: usize| -> Result<f64> {
        let x = Tensor::ones((n, c, h, w), DType::F32, &device)?;
        let started = Instant::now();
        let log_probs = encoder.log_probs(&x, &vec![0.0; n])?;
        backward(&log_probs.narrow(1, 0, 1)?.sum_all()?)?;
        Ok(started.elapsed().as_secs_f64() / n as f64)
    };
    let (seconds, at_once) = (pass(1)?, plan.steps.at_once());
    if seconds * (at_once as f64) < PATIENCE {
        // The first pass of many images mostly allocates memory.
        return Ok(pass(at_once)?.min(pass(at_once)?));
    }
    Ok(seconds)
}

/// Bytes of everything in the run folder of a classifier.
pub(crate) fn classifier_disk(plan: &ClassifierPlan) -> Result<u64> {
    let checkpoint = checkpoint_bytes(encoder_parameters(plan)?);
    Ok(run_bytes(checkpoint, plan.output.keep))
}
