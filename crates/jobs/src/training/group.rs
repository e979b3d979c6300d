//! Several processes that share every batch of one run.

use super::finetune::{autoencoder_of, reload_source};
use super::methods::{ant_classifier, method_inputs};
use super::networks::{Networks, TrainPlan, fit_source, networks, resolved_form, validate};
use crate::context::Context;
use crate::data::{fingerprint, open_data};
use crate::error::{Result, failed, usage};
use crate::latents::with_latents;
use candle_core::Device;
use sdft_parallel::{HAS_NCCL, ProcessGroup, World};
use sdft_train::Follower;
use std::sync::Arc;
use std::time::Duration;

/// How long a process waits for the others, which may still be loading libraries.
const JOIN_TIMEOUT: Duration = Duration::from_secs(300);

/// Joins the processes of a world; they sum what is on `device`. A world of `None` is this process alone.
///
/// # Errors
/// A process that does not arrive in time, or does not know the secret.
pub fn join_group(world: Option<&World>, device: &Device) -> Result<Arc<ProcessGroup>> {
    let Some(world) = world else {
        return Ok(Arc::new(ProcessGroup::single()));
    };
    let group = ProcessGroup::join(world, device, JOIN_TIMEOUT)?;
    Ok(Arc::new(group))
}

/// [`join_group`] for training on the context's device, with a warning where gradients are summed slowly.
///
/// # Errors
/// As [`join_group`].
pub fn join_training(
    world: Option<&World>,
    context: &mut Context<'_>,
) -> Result<Arc<ProcessGroup>> {
    if let Some(world) = world
        && world.rank == 0
        && context.device.is_cuda()
        && !HAS_NCCL
    {
        context.progress.note(&without_nccl(world.size));
    }
    join_group(world, &context.device)
}

/// What a run of this many processes on GPUs costs without NCCL.
fn without_nccl(size: usize) -> String {
    // Four bytes of each parameter to rank 0 and back, for every other process.
    let gigabytes = 0.8 * size.saturating_sub(1) as f64;
    format!(
        "WARNING: this build has no NCCL. At every step the gradients of all GPUs go through the hosts to rank 0 and back, one process after the other: {gigabytes:.1} GB for 100 million parameters. Install NCCL (python3 -m pip install nvidia-nccl-cu13, or nvidia-nccl-cu12) and build again"
    )
}

/// Computes a share of every batch of rank 0's run until it ends.
///
/// # Errors
/// - a source model or images that differ from those of rank 0
/// - rank 0 fails or disconnects
pub fn follow(group: Arc<ProcessGroup>, context: &mut Context<'_>) -> Result<()> {
    let text = group.broadcast(Vec::new())?;
    let mut plan: TrainPlan = String::from_utf8(text)
        .ok()
        .and_then(|text| toml::from_str(&text).ok())
        .ok_or_else(|| {
            failed(
                "rank 0 sent a plan that cannot be read; all processes must run the same program",
            )
        })?;
    let autoencoder = autoencoder_of(&mut plan, None, context)?;
    let source = reload_source(&plan, autoencoder.clone(), context)?;
    let data = open_data(&plan.data, &resolved_form(&plan), context)?;
    if fingerprint(data.as_ref())? != plan.data.fingerprint {
        return Err(usage(format!(
            "{}: rank {} has other images than rank 0",
            plan.data.path,
            group.rank()
        )));
    }
    validate(&plan).map_err(|e| usage(e.to_string()))?;
    let mut classifier = None;
    let source = match source {
        Some(source) => {
            let shape = source.state_shape(data.spec());
            classifier = ant_classifier(&mut plan, &source, shape, context)?;
            Some(fit_source(&mut plan, &source, data.as_ref())?)
        }
        None => None,
    };
    let data = match &autoencoder {
        Some(autoencoder) => with_latents(data, autoencoder, plan.data.flip, context)?,
        None => data,
    };
    let methods = method_inputs(&plan, classifier.as_ref(), autoencoder.as_ref(), context)?;
    let Networks { network, source } = networks(&plan, source, &context.device)?;
    Ok(sdft_train::follow(Follower {
        plan,
        network,
        source,
        data,
        methods,
        device: context.device.clone(),
        group,
    })?)
}
