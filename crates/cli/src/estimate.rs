//! What a plan will take, from one trial pass of its own network on this machine.

use crate::device::device;
use anyhow::Result;
use candle_core::{DType, Tensor};
use sdft_adm::Unet;
use sdft_cuda::synchronize;
use sdft_losses::distill_odds;
use sdft_nn::{Params, backward};
use sdft_schedule::Respacing;
use sdft_train::{AuxSampling, DistillSampling, Plan};
use std::time::Instant;

/// Seconds and bytes of a run.
pub(crate) struct Estimate {
    /// One optimiser step.
    pub(crate) step_seconds: f64,
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

pub(crate) fn estimate(plan: &Plan) -> Result<Estimate> {
    let cost = plan.model.cost();
    let objective = plan.objective();
    // Auxiliary inputs for each image, and what the source model sees of both.
    let aux = match (objective.aux, plan.loss.aux_sampling) {
        (None, _) => 0.0,
        (Some(_), AuxSampling::Weighted) => 1.0 / 3.0,
        (Some(_), AuxSampling::Uniform | AuxSampling::Shared) => 1.0,
    };
    let looks = match (objective.distill, plan.loss.distill_sampling) {
        (None, _) => 0.0,
        (Some(_), DistillSampling::All) => 1.0,
        (Some(term), DistillSampling::Weighted) => {
            let diffusion = plan.process.diffusion(false, &Respacing::All)?;
            let weights = term.weighting.weights(&diffusion.schedule);
            weights.iter().map(|&w| distill_odds(w)).sum::<f64>() / weights.len() as f64
        }
    };
    let source = aux + looks;
    let micro = plan.micro_batch() as f64 * (1.0 + aux);
    let (again, kept) = if plan.steps.recompute {
        (1.0, cost.recomputed_bytes)
    } else {
        (0.0, cost.activation_bytes)
    };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a small positive number"
    )]
    let images = (TRIAL_FLOPS / cost.forward_flops).clamp(1.0, micro) as usize;
    let (forward, both) = trial(plan, images)?;
    let weights = 4 * cost.parameters as u64;
    // Weights, average, two moments and gradients; the source model where there is one.
    let copies = if plan.source.is_empty() { 5 } else { 6 };
    let checkpoint = 4 * weights;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a positive number of bytes"
    )]
    let activations =
        (micro * kept) as u64 * plan.steps.precision.maps().size_in_bytes() as u64 / 4;
    Ok(Estimate {
        step_seconds: plan.steps.batch as f64
            * ((both + again * forward) * (1.0 + aux) + forward * source),
        memory: copies * weights + activations,
        checkpoint,
        // The newest checkpoint is written before the oldest goes.
        disk: checkpoint * (plan.output.keep as u64 + 1) + weights,
        parameters: cost.parameters,
    })
}

/// Seconds per image of a forward pass, and of a forward and backward pass, with fresh weights.
fn trial(plan: &Plan, images: usize) -> Result<(f64, f64)> {
    let config = &plan.model;
    let (device, maps) = (device()?, plan.steps.precision.maps());
    let start = Params::init(&Unet::specs(config)?, 0, &device)?;
    let (params, _) = start.trainable()?;
    let load =
        |params: &Params| Ok::<_, candle_core::Error>(Unet::load(params, config)?.with_maps(maps));
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
