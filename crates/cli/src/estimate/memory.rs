//! How much memory a plan takes, and how much there is.

use super::{aux_per_image, looks};
use crate::console::{self, size};
use anyhow::Result;
use sdft_train::{OptimizerKind, Plan};

// What was measured on the CPU, at 16 to 256 pixels and batches of 1 to 64, against what `AdmConfig::cost` counts.
/// Buffers of the kernels, and what the allocator cannot use again.
const BUFFERS: f64 = 30e6;
/// A training pass, with the gradients of maps.
const TRAINED: f64 = 1.6;
/// A pass without gradients: what it gives back comes too late for the next block.
const LOOKED: f64 = 0.8;
/// Batches that are there at once: two wait, one is being made, one is used.
const BATCHES: f64 = 4.0;
/// A plan is refused from this multiple of the machine's memory on; an estimate is no measurement.
const MARGIN: f64 = 1.25;

/// The memory of a run, and of what it may have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Needed {
    /// The most that it takes, in bytes.
    pub(crate) bytes: u64,
    /// What there is, where the system tells.
    available: Option<u64>,
}

impl Needed {
    /// Fails if the machine does not have the memory.
    pub(crate) fn check(&self) -> Result<(), String> {
        match self.available {
            Some(available) if self.bytes as f64 > MARGIN * available as f64 => Err(format!(
                "the plan takes about {} of memory and this machine has {}; --set loop.micro_batch=N lets fewer images through the \
                 network at once with the same result, --set loop.recompute=true keeps less of each; smaller are loop.batch, \
                 output.samples, eval.samples, model.image_size and model.model_channels",
                size(self.bytes),
                size(available)
            )),
            _ => Ok(()),
        }
    }
}

/// The memory that a plan takes on the CPU, in this process, which has read its images and its source model.
pub(crate) fn memory_of(plan: &Plan) -> Result<Needed> {
    let cost = plan.model.cost();
    let weights = 4.0 * cost.parameters as f64;
    let moments = match plan.optim.kind {
        OptimizerKind::Adamw => 2.0,
        OptimizerKind::Sgd if plan.optim.momentum > 0.0 => 1.0,
        OptimizerKind::Sgd => 0.0,
    };
    let maps = plan.steps.precision.maps().size_in_bytes() as f64 / 4.0;
    let (all, inside) = (maps * cost.activation_bytes, maps * cost.recomputed_bytes);
    let of_image = TRAINED * if plan.steps.recompute { inside } else { all };
    let (aux, micro) = (aux_per_image(plan), plan.micro_batch() as f64);
    let splits = f64::from(u8::from(plan.micro_batch() < plan.steps.batch));
    // Gradients of a part of the batch, and their sum where there are several parts; what the source model sees of it.
    let step = weights * (1.0 + splits)
        + micro * (1.0 + aux) * of_image
        + micro * (aux + looks(plan)?) * LOOKED * all;
    let sampled = plan.sampled_at_once().min(plan.output.samples) as f64;
    let grid = weights + sampled * LOOKED * all;
    // The first weights, a copy of them to look at, the same to differentiate, and the gradients.
    let audited = plan.steps.batch.min(2) as f64;
    let first = if plan.source.is_empty() { 1.0 } else { 0.0 };
    let audit = weights * (3.0 + first) + audited * (1.0 + aux) * TRAINED * all;
    // Copies of what is written.
    let save = weights * (1.0 + moments);
    let most = [step, grid, audit, save].into_iter().fold(0.0, f64::max);
    let pixels = 4.0 * (plan.model.in_channels * plan.model.image_size.pow(2)) as f64;
    let evaluated = match plan.eval.every {
        0 => 0,
        _ => plan.eval.samples,
    };
    let shown = (plan.output.samples + evaluated) as f64;
    let images = pixels * (BATCHES * plan.steps.batch as f64 + shown);
    // Weights, average and moments; the source model is here already.
    let kept = weights * (2.0 + moments);
    let here = console::memory_now().unwrap_or(0) as f64;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a positive number of bytes, which saturates"
    )]
    let bytes = (here + BUFFERS + kept + images + most) as u64;
    Ok(Needed {
        bytes,
        available: sdft_runtime::available_memory(),
    })
}
