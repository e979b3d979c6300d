//! The memory that a plan needs, and the memory of this machine.

use super::trial::{aux_per_image, encoder_parameters, kept_per_image, source_share};
use crate::error::{Result, usage};
use crate::training::{
    TrainPlan, adapter_sizes, image_sides, sides, sizes_of, trained_architecture, with_adapter,
};
use candle_core::Device;
use sdft_autoencoder::Space;
use sdft_classifier::ClassifierPlan;
use sdft_directions::{TuningPlan, UpdateEach};
use sdft_files::human_size;
use sdft_first_stage::AutoencoderPlan;
use sdft_train::{LoopPlan, OptimPlan, OptimizerKind};

// Factors measured on the CPU, at 16 to 256 pixels and batches of 1 to 64, against the counts of `Architecture::cost`.
/// Buffers of the kernels, and memory that the allocator cannot reuse.
const BUFFERS: f64 = 46e6;
/// A training pass, with the gradients of maps.
const TRAINED: f64 = 1.4;
/// A pass without gradients, which frees memory too late for the next block.
const FROZEN: f64 = 0.8;
/// Batches in memory at once: two wait, one is being made, one is used.
const BATCHES: f64 = 4.0;
/// A plan is refused above this multiple of the machine's memory, because an estimate is not exact.
const MARGIN: f64 = 1.25;

/// What takes less memory in the training of a network.
const LESS: &str = "--set loop.micro_batch=N sends fewer images through the network at once with the same result (except for loss.pairwise), --set \
                    loop.recompute=true keeps less of each; smaller are loop.batch, output.samples, eval.samples, model.image_size \
                    and model.model_channels";
/// The same for an autoencoder.
const LESS_OF_AUTOENCODER: &str = "--set loop.micro_batch=N sends fewer images through the network at once with the same result, --set \
                                   loop.recompute=true keeps less of each; smaller are loop.batch, output.samples, data.size and \
                                   model.block_out_channels";
/// The same for the tuning of a model.
const LESS_OF_TUNING: &str = "--set loop.recompute=true keeps less of each image, --set adapter.kind=lora trains fewer weights, and \
                              loop.update=\"generation\" needs no copy of them; smaller is loop.batch";

/// The memory that a run needs, and the memory of this machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Needed {
    /// The peak, in bytes.
    pub(crate) bytes: u64,
    /// What takes less.
    advice: &'static str,
    /// The available memory, if the system reports it.
    available: Option<u64>,
}

impl Needed {
    /// Why there is not enough memory, if the plan is computed on the CPU and the machine has less.
    pub(crate) fn problem(&self, device: &Device) -> Option<String> {
        // A GPU has memory of its own, and reports when it is full.
        let available = self.available.filter(|_| device.is_cpu())?;
        (self.bytes as f64 > MARGIN * available as f64).then(|| {
            format!(
                "the plan takes about {} of memory and this machine has {}; {}",
                human_size(self.bytes),
                human_size(available),
                self.advice
            )
        })
    }

    /// How often it fits into the available memory.
    pub(crate) fn times_available(&self) -> usize {
        match self.available {
            None => 1,
            // The cast saturates.
            Some(available) => (available as f64 / (MARGIN * self.bytes.max(1) as f64)) as usize,
        }
    }

    /// Fails if there is not enough memory.
    pub(crate) fn check(&self, device: &Device) -> Result<()> {
        self.problem(device)
            .map_or(Ok(()), |problem| Err(usage(problem)))
    }
}

/// The memory that a plan needs on the CPU, in this process, which has opened its images and its source model.
pub(crate) fn memory_of(plan: &TrainPlan) -> Result<Needed> {
    let cost = trained_architecture(plan).cost(sides(plan));
    let [height, width] = sides(plan);
    let maps = size_of_maps(&plan.steps);
    let (all, inside) = (maps * cost.activation_bytes, maps * cost.recomputed_bytes);
    let (aux, micro) = (aux_per_image(plan), plan.micro_batch() as f64);
    let sampled = plan.sampled_at_once().min(plan.output.samples) as f64;
    let evaluated = match plan.eval.every {
        0 => 0,
        _ => plan.eval.samples,
    };
    let decoded = match plan.model.autoencoder_config() {
        Some(config) => config.decoding_bytes(image_sides(plan)),
        None => 0.0,
    };
    let weights = 4.0 * cost.parameters as f64;
    let (trained, changed) = match adapter_sizes(plan)? {
        None => (weights, weights),
        Some(sizes) => (4.0 * sizes.trained as f64, 4.0 * sizes.changed as f64),
    };
    Ok(Parts {
        variables: trained,
        changed,
        copies: copies_of_methods(plan) * trained
            + match plan.adapter.is_full() {
                true => 0.0,
                false => changed,
            },
        moments: moments(&plan.optim),
        snapshot: 0.0,
        splits: plan.micro_batch() < plan.steps.batch,
        trained: (1.0 + aux + kept_per_image(plan))
            * TRAINED
            * if plan.steps.recompute { inside } else { all },
        source: micro * (aux + source_share(plan)?) * FROZEN * all,
        // Samples are decoded when all are drawn.
        sampled: (sampled * FROZEN * all).max(decoded),
        shown: plan.output.samples + evaluated,
        image: image([plan.model.in_channels(), height, width]),
    }
    .needed(plan.micro_batch(), plan.steps.batch, LESS))
}

/// Copies of what is trained that methods other than SDFT keep: where an anchor pulls to, its Fisher information, and for DogFit the average
/// and the weights that it replaces for a while.
fn copies_of_methods(plan: &TrainPlan) -> f64 {
    let loss = &plan.loss;
    let copies = [
        (loss.anchor.is_on(), 1.0),
        (loss.anchor.ewc > 0.0, 1.0),
        (loss.dogfit.is_on(), 2.0),
    ];
    let on = copies.into_iter().filter(|(is_on, _)| *is_on);
    on.map(|(_, n)| n).sum()
}

/// The memory that the training of a classifier needs.
pub(crate) fn memory_of_classifier(plan: &ClassifierPlan) -> Result<Needed> {
    let net = &plan.model.net;
    let [height, width] = plan.size().sides();
    let (cost, maps) = (
        net.encoder_cost(plan.size().sides()),
        size_of_maps(&plan.steps),
    );
    let (all, inside) = (maps * cost.activation_bytes, maps * cost.recomputed_bytes);
    let batch = plan.steps.batch;
    let micro = plan.steps.at_once();
    let weights = 4.0 * encoder_parameters(plan)? as f64;
    Ok(Parts {
        variables: weights,
        changed: weights,
        copies: 0.0,
        moments: moments(&plan.optim),
        snapshot: 0.0,
        splits: micro < batch,
        trained: TRAINED * if plan.steps.recompute { inside } else { all },
        source: 0.0,
        sampled: 0.0,
        shown: 0,
        image: image([net.in_channels, height, width]),
    }
    .needed(micro, batch, LESS))
}

/// The memory that the training of an autoencoder needs, without the network of the perceptual term.
pub(crate) fn memory_of_autoencoder(plan: &AutoencoderPlan) -> Needed {
    let [height, width] = plan.size().sides();
    let cost = plan.config().cost([height, width]);
    let maps = size_of_maps(&plan.steps);
    let (all, inside) = (maps * cost.activation_bytes, maps * cost.recomputed_bytes);
    let (micro, batch) = (plan.steps.at_once(), plan.steps.batch);
    let weights = 4.0 * cost.parameters as f64;
    Parts {
        variables: weights,
        changed: weights,
        copies: 0.0,
        moments: moments(&plan.optim),
        snapshot: 0.0,
        splits: micro < batch,
        trained: TRAINED * if plan.steps.recompute { inside } else { all },
        source: 0.0,
        sampled: FROZEN * all,
        shown: 2 * plan.output.samples,
        image: image([plan.model.in_channels, height, width]),
    }
    .needed(micro, batch, LESS_OF_AUTOENCODER)
}

/// The memory that tuning a model needs, in this process, which has opened its images, the original model and the networks of its goal.
/// Their own feature maps, and those of an autoencoder, are not counted.
pub(crate) fn memory_of_tuning(plan: &TuningPlan, space: &Space) -> Result<Needed> {
    let batch = plan.pace.batch;
    Ok(parts_of_tuning(plan, space.shape())?.needed(batch, batch, LESS_OF_TUNING))
}

/// The parts for states of this shape.
fn parts_of_tuning(plan: &TuningPlan, shape: [usize; 3]) -> Result<Parts> {
    let [_, height, width] = shape;
    let cost = with_adapter(&plan.model, &plan.adapter).cost([height, width]);
    let weights = 4.0 * cost.parameters as f64;
    let (trained, changed, copies) = match sizes_of(&plan.adapter, &plan.model)? {
        None => (weights, weights, 0.0),
        Some(sizes) => {
            let changed = 4.0 * sizes.changed as f64;
            (4.0 * sizes.trained as f64, changed, changed)
        }
    };
    let moments = moments(&plan.optim);
    let by_generation = plan.pace.update == UpdateEach::Generation;
    let batch = plan.pace.batch;
    Ok(Parts {
        variables: trained,
        changed,
        copies,
        moments,
        snapshot: match by_generation {
            true => 0.0,
            false => trained * (2.0 + moments),
        },
        // The gradients of the steps are summed.
        splits: by_generation,
        trained: TRAINED
            * match plan.pace.recompute {
                true => cost.recomputed_bytes,
                false => cost.activation_bytes,
            },
        source: 0.0,
        // Inversions and generations.
        sampled: batch as f64 * FROZEN * cost.activation_bytes,
        // The states of a generation.
        shown: batch * plan.walk.steps,
        image: image(shape),
    })
}

/// The parts of a run's memory, in bytes.
struct Parts {
    /// One copy of what is trained.
    variables: f64,
    /// Gradients of the network's parameters.
    changed: f64,
    /// Copies of parameters that an adapter changes.
    copies: f64,
    /// Copies in the optimiser.
    moments: f64,
    /// A copy of the training state, to undo updates.
    snapshot: f64,
    /// Whether gradients of several parts of a batch are summed.
    splits: bool,
    /// Feature maps of an image in a training pass.
    trained: f64,
    /// Feature maps of the source model in a step, and of the samples of a grid.
    source: f64,
    sampled: f64,
    /// Noise images that are kept.
    shown: usize,
    /// One image.
    image: f64,
}

impl Parts {
    /// The peak for `micro` images at once out of a batch.
    fn needed(&self, micro: usize, batch: usize, advice: &'static str) -> Needed {
        let flag = |is: bool| f64::from(u8::from(is));
        let variables = self.variables;
        let sums = variables * flag(self.splits);
        let step = self.changed + sums + micro as f64 * self.trained + self.source;
        // The weights that the average replaces for a while.
        let grid = variables + self.sampled;
        // The gradients, and the pass of at most two images.
        let audit = self.changed + batch.min(2) as f64 * self.trained;
        // Copies of the tensors that are written; at the end those of the merged model.
        let save = (variables * (1.0 + self.moments)).max(variables + self.copies);
        let most = [step, grid, audit, save].into_iter().fold(0.0, f64::max);
        let images = self.image * (BATCHES * batch as f64 + self.shown as f64);
        // Weights, average and moments. A source model is loaded already.
        let kept = self.copies + self.snapshot + variables * (2.0 + self.moments);
        let here = sdft_runtime::resident_memory().unwrap_or(0) as f64;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a positive number of bytes; the conversion saturates"
        )]
        let bytes = (here + BUFFERS + kept + images + most) as u64;
        Needed {
            bytes,
            advice,
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

/// The size of a number of feature maps, relative to f32.
fn size_of_maps(plan: &LoopPlan) -> f64 {
    plan.precision.compute_dtype().size_in_bytes() as f64 / 4.0
}

/// Bytes of one image.
fn image(shape: [usize; 3]) -> f64 {
    4.0 * shape.iter().product::<usize>() as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use sdft_adapters::AdapterKind;
    use sdft_autoencoder::AutoencoderKlConfig;

    fn parts(change: impl FnOnce(&mut TuningPlan)) -> Parts {
        let mut plan = TuningPlan::default();
        change(&mut plan);
        let shape = plan.model.image().shape();
        parts_of_tuning(&plan, shape).unwrap()
    }

    #[test]
    fn tuning_keeps_weights_average_and_moments_and_a_copy_of_them_for_an_update_at_each_step() {
        let weights = 4.0 * TuningPlan::default().model.cost([256, 256]).parameters as f64;
        let generation = parts(|_| ());
        assert_eq!(generation.variables, weights);
        assert_eq!(generation.changed, weights);
        assert_eq!((generation.moments, generation.snapshot), (2.0, 0.0));
        assert!(generation.splits);
        let step = parts(|plan| plan.pace.update = UpdateEach::Step);
        assert!(!step.splits);
        assert_eq!(step.snapshot, 4.0 * weights);
        let lora = parts(|plan| plan.adapter.kind = AdapterKind::Lora);
        assert!(lora.variables < 0.1 * weights && lora.copies > 0.0);
        let recomputed = parts(|plan| plan.pace.recompute = true);
        assert!(recomputed.trained < generation.trained);
    }

    #[test]
    fn tuning_on_latents_is_counted_at_the_size_of_the_latents() {
        let plan = TuningPlan::default();
        let images = parts_of_tuning(&plan, [3, 256, 256]).unwrap();
        let latents = parts_of_tuning(&plan, [3, 64, 64]).unwrap();
        assert_eq!(latents.variables, images.variables);
        assert_eq!(16.0 * latents.image, images.image);
        assert!(10.0 * latents.trained < images.trained);
        let config = AutoencoderKlConfig {
            block_out_channels: vec![32; 3],
            ..AutoencoderKlConfig::default()
        };
        let space = Space::opened(plan.model.image(), config.into(), || {
            candle_core::bail!("the memory needs no autoencoder")
        });
        let of_latents = memory_of_tuning(&plan, &space).unwrap().bytes;
        let space = Space::images(plan.model.image());
        assert!(of_latents < memory_of_tuning(&plan, &space).unwrap().bytes);
    }

    #[test]
    fn a_batch_that_does_not_fit_is_refused_with_the_options_of_tuning() {
        let mut plan = TuningPlan::default();
        plan.pace.batch = 1_000_000;
        let space = Space::images(plan.model.image());
        let needed = memory_of_tuning(&plan, &space).unwrap();
        if needed.available.is_none() {
            // The system does not report it.
            return;
        }
        let error = needed.check(&Device::Cpu).unwrap_err().to_string();
        for words in ["this machine has", "loop.recompute", "adapter.kind=lora"] {
            assert!(error.contains(words), "{words}: {error}");
        }
        assert!(!error.contains("micro_batch"), "{error}");
    }
}
