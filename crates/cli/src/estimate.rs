//! What a plan will take, from one trial pass of its own network on this machine.

use crate::adm::Plan;
use crate::device::device;
use anyhow::Result;
use candle_core::{DType, Tensor};
use sdft_adm::Unet;
use sdft_autograd::backward;
use sdft_cuda::synchronize;
use sdft_losses::distill_odds;
use sdft_nn::Params;
use sdft_schedule::Respacing;
use sdft_train::{AuxSampling, DistillSampling};
use std::time::Instant;

pub(crate) use memory::{Needed, memory_of, memory_of_classifier};

mod memory;

/// Seconds and bytes of a run.
pub(crate) struct Estimate {
    /// One optimiser step; none where the memory does not suffice to try.
    pub(crate) step_seconds: Option<f64>,
    /// The most memory.
    pub(crate) memory: u64,
    /// One checkpoint.
    pub(crate) checkpoint: u64,
    /// Everything in the run folder.
    pub(crate) disk: u64,
    /// Number of parameters.
    pub(crate) parameters: usize,
}

/// A trial is made with as many images as this many operations allow, at least one.
const TRIAL_FLOPS: f64 = 2e10;

/// What a plan takes on this machine; `needed` is its [memory](memory_of).
pub(crate) fn estimate(plan: &Plan, needed: &Needed) -> Result<Estimate> {
    let cost = plan.model.cost();
    let aux = aux_per_image(plan);
    let source = aux + looks(plan)?;
    let micro = plan.micro_batch() as f64 * (1.0 + aux);
    let again = f64::from(u8::from(plan.steps.recompute));
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a small positive number"
    )]
    let images = (TRIAL_FLOPS / cost.forward_flops).clamp(1.0, micro) as usize;
    let step_seconds = match needed.check() {
        Err(_) => None,
        Ok(()) => {
            let (forward, both) = trial(plan, images)?;
            let trained = (both + again * forward) * (1.0 + aux);
            Some(plan.steps.batch as f64 * (trained + forward * source))
        }
    };
    let (checkpoint, disk) = disk(plan);
    Ok(Estimate {
        step_seconds,
        memory: needed.bytes,
        checkpoint,
        disk,
        parameters: cost.parameters,
    })
}

/// Auxiliary inputs for each image.
fn aux_per_image(plan: &Plan) -> f64 {
    match (
        plan.objective(plan.model.learns_variance()).aux,
        plan.loss.aux_sampling,
    ) {
        (None, _) => 0.0,
        (Some(_), AuxSampling::Weighted) => 1.0 / 3.0,
        (Some(_), AuxSampling::Uniform | AuxSampling::Shared) => 1.0,
    }
}

/// The share of images that the source model looks at.
fn looks(plan: &Plan) -> Result<f64> {
    Ok(
        match (
            plan.objective(plan.model.learns_variance()).distill,
            plan.loss.distill_sampling,
        ) {
            (None, _) => 0.0,
            (Some(_), DistillSampling::All) => 1.0,
            (Some(term), DistillSampling::Weighted) => {
                let diffusion = plan.process.diffusion(false, &Respacing::All)?;
                let weights = term.weighting.weights(&diffusion.schedule);
                weights.iter().map(|&w| distill_odds(w)).sum::<f64>() / weights.len() as f64
            }
        },
    )
}

/// Bytes of one checkpoint, and of everything in the run folder.
pub(crate) fn disk(plan: &Plan) -> (u64, u64) {
    let weights = 4 * plan.model.cost().parameters as u64;
    let checkpoint = 4 * weights;
    // The newest checkpoint is written before the oldest goes.
    let all = (plan.output.keep as u64 + 1).saturating_mul(checkpoint);
    (checkpoint, all.saturating_add(weights))
}

/// Seconds per image of a forward pass, and of a forward and backward pass, with fresh weights.
fn trial(plan: &Plan, images: usize) -> Result<(f64, f64)> {
    let config = &plan.model;
    let (device, maps) = (device()?, plan.steps.precision.compute_dtype());
    let start = Params::init(&Unet::specs(config)?, 0, &device)?;
    let (params, _) = start.trainable()?;
    let load = |params: &Params| {
        Ok::<_, candle_core::Error>(Unet::load(params, config)?.with_compute_dtype(maps))
    };
    let (frozen, trainable) = (load(&start)?, load(&params)?);
    let x = Tensor::ones(
        (
            images,
            config.in_channels,
            config.image_size,
            config.image_size,
        ),
        DType::F32,
        &device,
    )?;
    let t = vec![500.0; images];
    let time = |pass: &dyn Fn() -> candle_core::Result<()>| -> candle_core::Result<f64> {
        // The first pass of a small network mostly warms the caches; a large one is not run twice for that.
        if images > 1 || device.is_cuda() {
            pass()?;
        }
        synchronize(&device)?;
        let started = Instant::now();
        pass()?;
        synchronize(&device)?;
        Ok(started.elapsed().as_secs_f64() / images as f64)
    };
    let forward = time(&|| frozen.forward(&x, &t, None, None).map(drop))?;
    let both = time(&|| {
        trainable
            .forward(&x, &t, None, None)?
            .sqr()?
            .mean_all()
            .and_then(|loss| backward(&loss))
            .map(drop)
    })?;
    Ok((forward, both))
}
