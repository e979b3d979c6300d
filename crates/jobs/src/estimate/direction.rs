//! Time, memory and disk of training a direction.

use super::trial::count;
use super::{Disk, Estimate};
use crate::cache::CacheLocation;
use crate::edit::inversions_folder;
use crate::error::Result;
use candle_core::{Device, Tensor};
use sdft_asyrp::{DeltaBlock, Direction, Goal, Mix, training_sequence, training_steps};
use sdft_autoencoder::Space;
use sdft_autograd::backward;
use sdft_data::ImageSource;
use sdft_diffusion::BottleneckNet;
use sdft_directions::DirectionPlan;
use sdft_files::plural;
use sdft_nn::Params;
use std::time::Instant;

/// What a trial step of a [`DirectionPlan`] needs.
pub(crate) struct DirectionTrial<'a> {
    pub(crate) net: &'a dyn BottleneckNet,
    pub(crate) data: &'a dyn ImageSource,
    pub(crate) space: &'a Space,
    pub(crate) goal: &'a Goal,
    pub(crate) cache: &'a CacheLocation,
    pub(crate) device: &'a Device,
}

/// The cost of training a direction.
pub(crate) fn estimate_direction(
    plan: &DirectionPlan,
    trial: &DirectionTrial<'_>,
) -> Result<Estimate> {
    let DirectionTrial {
        net,
        data,
        space,
        cache,
        ..
    } = *trial;
    let walk = &plan.walk;
    let steps = training_sequence(walk.steps, walk.t_0, walk.t_edit);
    let (forward, learning) = trial_of_direction(plan, trial, steps[0])?;
    let images = data.len();
    let trajectory = learning * steps.len() as f64;
    let inversions = images as f64 * walk.inversion as f64 * forward;
    let specs = DeltaBlock::specs(net.bottleneck(), plan.model.norm_groups())?;
    let folder = inversions_folder(cache);
    Ok(Estimate {
        subject: format!(
            "{}, {} parameters of the direction, {} training steps in a trajectory",
            plural(images, "image", "images"),
            count(&specs),
            steps.len()
        ),
        seconds: Some(inversions + images as f64 * plan.pace.epochs as f64 * trajectory),
        drawing_seconds: None,
        trajectory_seconds: Some(trajectory),
        memory: sdft_runtime::peak_memory().unwrap_or(0),
        problem: None,
        disk: match folder {
            None => Disk {
                bytes: 0,
                of: "inversions are not kept".to_owned(),
                folder: None,
            },
            Some(_) => Disk {
                bytes: images as u64 * 4 * space.shape().iter().product::<usize>() as u64,
                of: "inversions, which are kept between runs".to_owned(),
                folder,
            },
        },
    })
}

/// Seconds of a forward pass, and of a training step of the direction, for one image.
fn trial_of_direction(
    plan: &DirectionPlan,
    trial: &DirectionTrial<'_>,
    step: usize,
) -> Result<(f64, f64)> {
    let DirectionTrial {
        net,
        data,
        space,
        goal,
        device,
        ..
    } = *trial;
    let [c, h, w] = data.spec().shape();
    let picture = data.spec().to_unit_range(&data.image(0)?);
    let x0 = space.encode(&Tensor::from_vec(picture, (1, c, h, w), device)?)?;
    #[expect(clippy::cast_precision_loss, reason = "steps are small numbers")]
    let t = [step as f32];
    let started = Instant::now();
    net.predict(&x0, &t)?;
    let forward = started.elapsed().as_secs_f64();
    let groups = plan.model.norm_groups();
    let specs = DeltaBlock::specs(net.bottleneck(), groups)?;
    let (params, _) = Params::init(&specs, plan.seed, device)?.trainable()?;
    let block = DeltaBlock::load(&params, net.bottleneck(), groups)?;
    let mix = Mix::of(vec![Direction {
        block: &block,
        strength: 1.0,
    }]);
    let schedule = plan.process.published()?.schedule;
    let seen = goal.reference(&x0)?;
    let started = Instant::now();
    training_steps(net, &schedule, &x0, &mix, &[step], &mut |training_step| {
        backward(&goal.loss(&seen, training_step)?.total)?;
        Ok(())
    })?;
    Ok((forward, started.elapsed().as_secs_f64()))
}
