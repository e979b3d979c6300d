//! The cost of training an autoencoder.

use super::trial::{PATIENCE, checkpoint_bytes, run_bytes};
use super::{Disk, Estimate, memory_of_autoencoder};
use crate::error::Result;
use candle_core::{DType, Device, Tensor};
use sdft_autoencoder::Autoencoder;
use sdft_autograd::backward;
use sdft_files::plural;
use sdft_first_stage::AutoencoderPlan;
use sdft_nn::Params;
use std::time::Instant;

/// The cost of training an autoencoder on so many images.
pub(crate) fn estimate_autoencoder(
    plan: &AutoencoderPlan,
    images: usize,
    device: &Device,
) -> Result<Estimate> {
    let needed = memory_of_autoencoder(plan);
    let problem = needed.problem(device);
    let seconds = match problem {
        Some(_) => None,
        None => Some(image_seconds(plan)? * plan.steps.batch as f64 * plan.steps.steps as f64),
    };
    let parameters = plan.config().cost(plan.size().sides()).parameters;
    Ok(Estimate {
        subject: format!(
            "{}, {parameters} parameters",
            plural(images, "image", "images")
        ),
        seconds,
        drawing_seconds: None,
        trajectory_seconds: None,
        memory: needed.bytes,
        problem,
        disk: Disk {
            bytes: autoencoder_disk(plan),
            of: String::new(),
            folder: None,
        },
    })
}

/// Seconds per image of a forward and backward pass, on the CPU, without the perceptual term.
fn image_seconds(plan: &AutoencoderPlan) -> Result<f64> {
    let (config, device) = (plan.config(), Device::Cpu);
    let params = Params::init(&Autoencoder::specs(&config)?, plan.seed, &device)?;
    let autoencoder = Autoencoder::load(&params.trainable()?.0, &config)?;
    let [h, w] = plan.size().sides();
    let pass = |n: usize| -> Result<f64> {
        let x = Tensor::ones((n, config.image_channels(), h, w), DType::F32, &device)?;
        let started = Instant::now();
        let y = autoencoder.decode(&autoencoder.encode(&x)?.mean)?;
        backward(&y.sum_all()?)?;
        Ok(started.elapsed().as_secs_f64() / n as f64)
    };
    let (seconds, at_once) = (pass(1)?, plan.steps.at_once());
    if seconds * (at_once as f64) < PATIENCE {
        // The first pass of many images mostly allocates memory.
        return Ok(pass(at_once)?.min(pass(at_once)?));
    }
    Ok(seconds)
}

/// Bytes of everything in the run folder of an autoencoder.
pub(crate) fn autoencoder_disk(plan: &AutoencoderPlan) -> u64 {
    let parameters = plan.config().cost(plan.size().sides()).parameters;
    run_bytes(checkpoint_bytes(parameters), plan.output.keep)
}
