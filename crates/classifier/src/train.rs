//! The training of the classifier: its first weights, its loss and its accuracy.

use crate::accuracy::{Accuracy, HeldOut};
use crate::plan::ClassifierPlan;
use candle_core::{Device, Tensor};
use sdft_adm::{Encoder, EncoderConfig, is_removed_by_norm};
use sdft_autoencoder::AutoencoderFile;
use sdft_autograd::backward;
use sdft_data::{Augment, Batch, Batches, ImageSource, Joined, held_out};
use sdft_diffusion::{AUTOENCODER_KEY, Diffusion};
use sdft_files::short_name;
use sdft_nn::Params;
use sdft_noise::{Draw, Purpose};
use sdft_randn::randn;
use sdft_schedule::{Respacing, TimestepSampler};
use sdft_train::{
    Checkpoint, DriveSetup, Ending, Finished, Log, Position, Progress, Result, RunFolder, RunPlan,
    StepOutcome, Task, TrainError, TrainingState, Updater, audit_gradients, drive, due,
    model_metadata, provenance,
};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// What a run that trains a classifier needs.
pub struct ClassifierSetup {
    /// The plan, resolved.
    pub plan: ClassifierPlan,
    /// The folder that the run writes to.
    pub folder: RunFolder,
    /// The first weights.
    pub start: Params,
    /// The images of the source domain.
    pub source: Arc<dyn ImageSource>,
    /// The images of the target domain.
    pub target: Arc<dyn ImageSource>,
    /// The device of the network and of the images.
    pub device: Device,
}

/// First weights: those of `init` where names and shapes agree, random ones elsewhere. The head is always random, because it has other
/// classes. The second value is the number of tensors taken from `init`.
///
/// Source: EGSDE's training script, whose head has another name than guidance's.
///
/// # Errors
/// A configuration that cannot be built.
pub fn start_classifier(
    config: &EncoderConfig,
    seed: u64,
    init: Option<&Params>,
    device: &Device,
) -> Result<(Params, usize)> {
    let fresh = Params::init(&Encoder::specs(config)?, seed, device)?;
    let known: HashMap<&str, &Tensor> = init.map(|init| init.iter().collect()).unwrap_or_default();
    let mut taken = 0;
    let mut entries = Vec::with_capacity(fresh.len());
    for (name, tensor) in fresh.iter() {
        let known = known
            .get(name)
            .filter(|known| !name.starts_with("out.") && known.shape() == tensor.shape());
        taken += usize::from(known.is_some());
        let tensor = known.unwrap_or(&tensor).to_device(device)?;
        entries.push((name.to_owned(), tensor));
    }
    Ok((Params::new(entries), taken))
}

/// Trains the classifier from the newest undamaged checkpoint in the folder, or from the start, until the steps are done or `stop` is set.
/// If images are held out, `accuracy.json` has the [`Accuracy`] in the end.
///
/// # Errors
/// As [`sdft_train::run`].
pub fn train_classifier(
    setup: ClassifierSetup,
    stop: &AtomicBool,
    progress: &mut dyn Progress,
) -> Result<Ending> {
    let ClassifierSetup {
        plan,
        folder,
        start,
        source,
        target,
        device,
    } = setup;
    plan.validate()?;
    let counts = [source.len(), target.len()];
    let share = if counts.iter().all(|&n| n >= 2) {
        plan.data.held_out
    } else {
        0.0
    };
    if share == 0.0 {
        progress.note("no images are held out, so no accuracy is measured");
    }
    let [(kept_source, held_source), (kept_target, held_target)] =
        counts.map(|n| held_out(n, share));
    let held_out = if share > 0.0 {
        let indices = [held_source.as_slice(), held_target.as_slice()];
        Some(HeldOut::new(
            [&*source, &*target],
            indices,
            plan.seed,
            &device,
        )?)
    } else {
        None
    };
    let parts = vec![(source, kept_source), (target, kept_target)];
    let both = Arc::new(Joined::new(parts)?);
    let augment = Augment {
        flip: plan.data.flip,
        shift: plan.data.shift,
        ..Augment::default()
    };
    let batches = Batches::new(both.clone(), plan.seed, plan.steps.batch, augment)?;
    let config = plan.model.encoder();
    let (params, vars) = start.trainable()?;
    let encoder =
        Encoder::load(&params, &config)?.with_compute_dtype(plan.steps.precision.compute_dtype());
    drop(start);
    let output = plan.pace();
    let mut task = Classifying {
        objective: CrossEntropy {
            encoder: match plan.steps.recompute {
                true => encoder.recomputed(),
                false => encoder,
            },
            diffusion: plan.process.diffusion(false, &Respacing::All)?,
        },
        updater: Updater::new(&plan.optim, plan.steps.precision, plan.steps.steps, vars)?,
        plan: &plan,
        folder: &folder,
        device: &device,
        config,
        both,
        held_out,
        measured: None,
    };
    let setup = DriveSetup {
        folder: &folder,
        pace: &plan.steps,
        output: &output,
        batches,
        device: &device,
        stop,
    };
    drive(&mut task, setup, progress)
}

struct Classifying<'a> {
    plan: &'a ClassifierPlan,
    folder: &'a RunFolder,
    device: &'a Device,
    config: EncoderConfig,
    objective: CrossEntropy,
    updater: Updater,
    /// The images of both domains. The position of a domain is its label.
    both: Arc<Joined>,
    held_out: Option<HeldOut>,
    /// The last accuracy and its step.
    measured: Option<(u64, Accuracy)>,
}

struct CrossEntropy {
    encoder: Encoder,
    diffusion: Diffusion,
}

impl CrossEntropy {
    /// Cross-entropy of noised images, mean over the batch.
    fn loss(&self, x0: &Tensor, t: &[usize], noise: &Tensor, labels: &[u32]) -> Result<Tensor> {
        let xt = self.diffusion.q_sample(x0, t, noise)?;
        let log_probs = self.encoder.log_probs(&xt, &self.diffusion.model_t(t)?)?;
        let labels = Tensor::new(labels, x0.device())?.unsqueeze(1)?;
        Ok(log_probs.gather(&labels, 1)?.mean_all()?.neg()?)
    }
}

impl Classifying<'_> {
    fn accuracy(&self) -> Result<Option<Accuracy>> {
        let Some(held_out) = &self.held_out else {
            return Ok(None);
        };
        // Plain tensors instead of variables: nothing is recorded, and the memory of a pass is freed on the way.
        let averaged = Params::new(self.updater.averaged()?);
        let dtype = self.plan.steps.precision.compute_dtype();
        let encoder = Encoder::load(&averaged, &self.config)?.with_compute_dtype(dtype);
        let accuracy = held_out.accuracy(&encoder, &self.objective.diffusion, self.plan.seed)?;
        Ok(Some(accuracy))
    }
}

impl Task for Classifying<'_> {
    fn audit(&mut self, images: &Tensor) -> Result<()> {
        let n = images.dim(0)?;
        let last = self.objective.diffusion.n_steps() - 1;
        let t: Vec<usize> = (0..n).map(|i| last * (i + 1) / (n + 1)).collect();
        let seed = self.plan.seed;
        let noise = randn(seed, Purpose::Audit, 2, 0, images.dims(), self.device)?;
        let groups = self.config.net.norm_groups;
        let vars = self.updater.vars();
        let is_exempt = |name: &str| is_removed_by_norm(name, vars, groups);
        audit_gradients(vars, seed, &is_exempt, &|factor| {
            let loss = self.objective.loss(images, &t, &noise, &vec![0; n])?;
            Ok(backward(&(loss * factor)?)?)
        })
    }

    fn restore(&mut self, checkpoint: Checkpoint) -> Result<()> {
        self.updater.load(checkpoint)
    }

    fn step(&mut self, step: u64, x0: &Tensor, batch: &Batch) -> Result<StepOutcome> {
        let (seed, steps) = (self.plan.seed, &self.plan.steps);
        let uniforms: Vec<f64> = (0..steps.batch as u64)
            .map(|i| Draw::new(seed, Purpose::Timestep, step, i).uniform(0))
            .collect();
        let objective = &self.objective;
        let n_steps = objective.diffusion.n_steps();
        let draws = TimestepSampler::Uniform { n_steps }.sample(&uniforms);
        let t: Vec<usize> = draws.iter().map(|draw| draw.t).collect();
        let label = |&index: &usize| u32::from(self.both.part(index) == Some(1));
        let labels: Vec<u32> = batch.indices.iter().map(label).collect();
        self.updater.step_in_parts(step, steps, [], |part| {
            let images = x0.narrow(0, part.start, part.len())?;
            let first = part.start as u64;
            let noise = randn(
                seed,
                Purpose::Noise,
                step,
                first,
                images.dims(),
                self.device,
            )?;
            let loss = objective.loss(&images, &t[part.clone()], &noise, &labels[part])?;
            Ok((loss, []))
        })
    }

    fn learning_rate(&self, step: u64) -> f64 {
        self.updater.learning_rate(step)
    }

    fn evaluate(
        &mut self,
        position: &mut Position,
        log: &mut Log,
        progress: &mut dyn Progress,
    ) -> Result<()> {
        let done = position.step;
        if !due(done, self.plan.output.eval_every) && done != self.plan.steps.steps {
            return Ok(());
        }
        let Some(accuracy) = self.accuracy()? else {
            return Ok(());
        };
        let mut values = vec![("eval.accuracy".to_owned(), accuracy.balanced())];
        for level in &accuracy.levels {
            values.push((format!("eval.accuracy_t{:03}", level.t), level.balanced()));
        }
        log.write_evaluation(done, &values)?;
        let each: Vec<String> = accuracy
            .levels
            .iter()
            .map(|level| format!("{:.2}", level.balanced()))
            .collect();
        progress.note(&format!(
            "step {done}: accuracy {:.3}, by noise from little to much {}",
            accuracy.balanced(),
            each.join(" ")
        ));
        self.measured = Some((done, accuracy));
        Ok(())
    }

    fn state(&mut self, position: &mut Position) -> Result<TrainingState> {
        self.updater.state(position)
    }

    fn metadata(&self, position: &Position) -> Result<BTreeMap<String, String>> {
        let plan = self.plan;
        let facts = provenance(&[
            ("run", plan.name.clone()),
            ("init", short_name(&plan.init)),
            ("init_sha256", plan.init_sha256.clone()),
            ("source_domain", short_name(&plan.data.source.path)),
            ("target_domain", short_name(&plan.data.target.path)),
            ("steps", position.step.to_string()),
            ("seed", plan.seed.to_string()),
            ("program", format!("sdft {}", env!("CARGO_PKG_VERSION"))),
        ]);
        let mut network = self.config.net.metadata("classifier");
        if let Some(record) = plan.autoencoder.as_ref().and_then(AutoencoderFile::record) {
            let record = serde_json::to_string(&record)
                .map_err(|e| TrainError::Evaluation(e.to_string()))?;
            network.insert(AUTOENCODER_KEY.to_owned(), record);
        }
        model_metadata(network, &plan.process, &facts)
    }

    fn finish(&mut self, position: &Position, _: &mut dyn Progress) -> Result<Finished> {
        let model = self.folder.final_model();
        let weights = self.updater.averaged()?;
        let metadata = self.metadata(position)?;
        let accuracy = match self.measured.take() {
            Some((step, accuracy)) if step == position.step => Some(accuracy),
            _ => self.accuracy()?,
        };
        let shown = match accuracy {
            Some(accuracy) => self.folder.write_json("accuracy.json", &accuracy)?,
            None => self.folder.log(),
        };
        self.folder.put_weights(&model, &weights, &metadata)?;
        Ok(Finished { model, shown })
    }
}
