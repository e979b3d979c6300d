//! Time, memory and disk of tuning a model for an edit.

use super::trial::disk_of;
use super::{Disk, Estimate, memory_of_tuning};
use crate::cache::CacheLocation;
use crate::condition::Conditioned;
use crate::edit::inversions_folder;
use crate::error::Result;
use crate::training::{sizes_of, with_adapter};
use candle_core::{Device, Tensor};
use sdft_asyrp::Goal;
use sdft_autoencoder::Space;
use sdft_autograd::{backward, no_grad};
use sdft_data::ImageSource;
use sdft_diffusion::{Denoiser, Trainable};
use sdft_diffusionclip::{Tuned, tuning_steps};
use sdft_directions::{TuningPlan, UpdateEach};
use sdft_files::{human_size, plural};
use std::time::Instant;

/// What a trial step of a [`TuningPlan`] needs.
pub(crate) struct TuningTrial<'a> {
    pub(crate) plan: &'a TuningPlan,
    /// The original model and the network in training, which are made only if they fit into memory.
    pub(crate) networks: &'a dyn Fn() -> Result<(Conditioned, Box<dyn Trainable>)>,
    pub(crate) class: Option<u32>,
    pub(crate) data: &'a dyn ImageSource,
    pub(crate) space: &'a Space,
    pub(crate) goal: &'a Goal,
    pub(crate) cache: &'a CacheLocation,
    pub(crate) device: &'a Device,
}

/// The cost of tuning a model.
pub(crate) fn estimate_tuning(trial: &TuningTrial<'_>) -> Result<Estimate> {
    let plan = trial.plan;
    let needed = memory_of_tuning(plan, trial.space)?;
    let problem = needed.problem(trial.device);
    let images = trial.data.len();
    let (mut seconds, mut trajectory_seconds) = (None, None);
    if problem.is_none() {
        let (forward, learning) = trial_step(trial)?;
        let steps = plan.walk.steps as f64;
        let generation = match plan.pace.update {
            // Every step is computed twice.
            UpdateEach::Generation => steps * (forward + learning),
            UpdateEach::Step => steps * learning,
        };
        let inversion = plan.walk.inversion as f64 * forward;
        let of_image = inversion + plan.pace.epochs as f64 * generation;
        (seconds, trajectory_seconds) = (Some(images as f64 * of_image), Some(generation));
    }
    let [_, height, width] = trial.space.shape();
    let parameters = with_adapter(&plan.model, &plan.adapter)
        .cost([height, width])
        .parameters;
    let trained = match sizes_of(&plan.adapter, &plan.model)? {
        None => String::new(),
        Some(sizes) => format!(", {} trained as {}", sizes.trained, plan.adapter),
    };
    let (checkpoint, all) = tuning_disk(plan)?;
    let inverted = match inversions_folder(trial.cache) {
        None => String::new(),
        Some(folder) => format!(
            "; inversions of {} go to {}",
            human_size(images as u64 * 4 * trial.space.shape().iter().product::<usize>() as u64),
            folder.display()
        ),
    };
    Ok(Estimate {
        subject: format!(
            "{}, {parameters} parameters{trained}, {} steps in a generation",
            plural(images, "image", "images"),
            plan.walk.steps
        ),
        seconds,
        drawing_seconds: None,
        trajectory_seconds,
        // The trial includes the networks of the goal.
        memory: needed.bytes.max(sdft_runtime::peak_memory().unwrap_or(0)),
        problem,
        disk: Disk {
            bytes: all,
            of: format!(
                "{} a checkpoint, {} kept{inverted}",
                human_size(checkpoint),
                plan.output.keep
            ),
            folder: None,
        },
    })
}

/// Bytes of one checkpoint, and of everything in the run folder.
pub(crate) fn tuning_disk(plan: &TuningPlan) -> Result<(u64, u64)> {
    let parameters = with_adapter(&plan.model, &plan.adapter)
        .cost(plan.model.sides())
        .parameters;
    let trained = sizes_of(&plan.adapter, &plan.model)?.map(|sizes| sizes.trained);
    Ok(disk_of(parameters, trained, plan.output.keep))
}

/// Seconds of a forward pass, and of a step that learns, for one image.
fn trial_step(trial: &TuningTrial<'_>) -> Result<(f64, f64)> {
    let plan = trial.plan;
    let (original, network) = (trial.networks)()?;
    let [c, h, w] = trial.data.spec().shape();
    let picture = trial.data.spec().to_unit_range(&trial.data.image(0)?);
    let x0 = trial
        .space
        .encode(&Tensor::from_vec(picture, (1, c, h, w), trial.device)?)?;
    #[expect(clippy::cast_precision_loss, reason = "steps are small numbers")]
    let t = [plan.walk.t_0 as f32];
    let started = Instant::now();
    no_grad(|| original.predict(&x0, &t))?;
    let forward = started.elapsed().as_secs_f64();
    let schedule = plan.process.published()?.schedule;
    let reference = trial.goal.reference(&x0)?;
    let tuned = Tuned {
        net: &*network,
        class: trial.class,
    };
    let started = Instant::now();
    tuning_steps(tuned, &schedule, &x0, &[plan.walk.t_0], &mut |x0| {
        let loss = trial.goal.loss_to_real(&reference, x0)?;
        let mut store = backward(&loss.total)?;
        network.pull_back(&mut store)
    })?;
    Ok((forward, started.elapsed().as_secs_f64()))
}
