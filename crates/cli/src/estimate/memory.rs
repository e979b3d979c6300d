//! How much memory a plan takes, and how much there is.

use super::{aux_per_image, looks};
use crate::adm::Plan;
use crate::console::{self, size};
use crate::device::device;
use anyhow::Result;
use sdft_adm::{AdmConfig, Encoder};
use sdft_classifier::ClassifierPlan;
use sdft_train::{LoopPlan, OptimPlan, OptimizerKind};

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
    /// Fails if the plan computes on the CPU and the machine does not have the memory.
    pub(crate) fn check(&self) -> Result<(), String> {
        // A GPU has memory of its own, and says so when it does not suffice.
        if device().is_ok_and(|device| !device.is_cpu()) {
            return Ok(());
        }
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
    let maps = size_of_maps(&plan.steps);
    let (all, inside) = (maps * cost.activation_bytes, maps * cost.recomputed_bytes);
    let (aux, micro) = (aux_per_image(plan), plan.micro_batch() as f64);
    let sampled = plan.sampled_at_once().min(plan.output.samples) as f64;
    let evaluated = match plan.eval.every {
        0 => 0,
        _ => plan.eval.samples,
    };
    Ok(Parts {
        weights: 4.0 * cost.parameters as f64,
        moments: moments(&plan.optim),
        first: plan.source.is_empty(),
        splits: plan.micro_batch() < plan.steps.batch,
        trained: (1.0 + aux) * TRAINED * if plan.steps.recompute { inside } else { all },
        audited: (1.0 + aux) * TRAINED * all,
        looked: micro * (aux + looks(plan)?) * LOOKED * all,
        sampled: sampled * LOOKED * all,
        shown: plan.output.samples + evaluated,
        image: image(&plan.model),
    }
    .needed(plan.micro_batch(), plan.steps.batch))
}

/// The memory that the training of a classifier takes, likewise.
pub(crate) fn memory_of_classifier(plan: &ClassifierPlan) -> Result<Needed> {
    let net = &plan.model.net;
    let specs = Encoder::specs(&plan.model.encoder())?;
    let sizes = specs.iter().map(|s| s.shape.iter().product::<usize>());
    let (cost, maps) = (net.encoder_cost(), size_of_maps(&plan.steps));
    let (all, inside) = (maps * cost.activation_bytes, maps * cost.recomputed_bytes);
    let batch = plan.steps.batch;
    let micro = match plan.steps.micro_batch {
        0 => batch,
        n => n.min(batch),
    };
    Ok(Parts {
        weights: 4.0 * sizes.sum::<usize>() as f64,
        moments: moments(&plan.optim),
        first: true,
        splits: micro < batch,
        trained: TRAINED * if plan.steps.recompute { inside } else { all },
        audited: TRAINED * all,
        looked: 0.0,
        sampled: 0.0,
        shown: 0,
        image: image(net),
    }
    .needed(micro, batch))
}

/// What the memory of a run is made of, in bytes.
struct Parts {
    /// One copy of the weights.
    weights: f64,
    /// Copies in the optimiser.
    moments: f64,
    /// Whether the first weights are others than the source model's.
    first: bool,
    /// Whether gradients of several parts of a batch are added up.
    splits: bool,
    /// What an image takes in a training pass, and in one of the audit.
    trained: f64,
    audited: f64,
    /// What the source model takes in a step, and the samples of a grid.
    looked: f64,
    sampled: f64,
    /// Images of noise that are kept.
    shown: usize,
    /// One image.
    image: f64,
}

impl Parts {
    /// All of it, for so many images at once out of a batch.
    fn needed(&self, micro: usize, batch: usize) -> Needed {
        let flag = |is: bool| f64::from(u8::from(is));
        let weights = self.weights;
        let step = weights * (1.0 + flag(self.splits)) + micro as f64 * self.trained + self.looked;
        let grid = weights + self.sampled;
        // The first weights, a copy of them to look at, the same to differentiate, and the gradients.
        let audit = weights * (3.0 + flag(self.first)) + batch.min(2) as f64 * self.audited;
        // Copies of what is written.
        let save = weights * (1.0 + self.moments);
        let most = [step, grid, audit, save].into_iter().fold(0.0, f64::max);
        let images = self.image * (BATCHES * batch as f64 + self.shown as f64);
        // Weights, average and moments; a source model is here already.
        let kept = weights * (2.0 + self.moments);
        let here = console::memory_now().unwrap_or(0) as f64;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a positive number of bytes, which saturates"
        )]
        let bytes = (here + BUFFERS + kept + images + most) as u64;
        Needed {
            bytes,
            available: sdft_runtime::available_memory(),
        }
    }
}

/// Copies of the weights in the optimiser.
fn moments(plan: &OptimPlan) -> f64 {
    match plan.kind {
        OptimizerKind::Adamw => 2.0,
        OptimizerKind::Sgd if plan.momentum > 0.0 => 1.0,
        OptimizerKind::Sgd => 0.0,
    }
}

/// Numbers of feature maps, in those of f32.
fn size_of_maps(plan: &LoopPlan) -> f64 {
    plan.precision.compute_dtype().size_in_bytes() as f64 / 4.0
}

/// Bytes of one image.
fn image(model: &AdmConfig) -> f64 {
    4.0 * (model.in_channels * model.image_size.pow(2)) as f64
}
