//! Tuning a model for an edit: generations, their goal, and the picture at the end.

use crate::inverted::{Inverted, STOPPED};
use crate::tuning_plan::{TuningPlan, UpdateEach};
use candle_core::{DType, Device, Tensor};
use sdft_asyrp::{Goal, GoalLoss, InversionCache, Reference, sequence};
use sdft_autoencoder::Space;
use sdft_autograd::backward;
use sdft_data::{Augment, Batch, Batches, ImageSource};
use sdft_diffusion::{Denoiser, Trainable};
use sdft_diffusionclip::{Tuned, TuningInfo, chain_gradients, generate, tuning_steps};
use sdft_files::short_name;
use sdft_optim::{Verdict, collect_gradients};
use sdft_train::{
    Checkpoint, DriveSetup, Ending, Finished, Log, ModelFiles, Position, Precision, Progress,
    Result, RunFolder, RunPlan, StepOutcome, Task, TrainError, TrainingState, Updater,
    audit_gradients, drive, provenance, with_buffers, without_buffers,
};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// What a run that tunes a model for an edit needs.
pub struct TuningSetup {
    /// The plan, resolved.
    pub plan: TuningPlan,
    /// The folder that the run writes to.
    pub folder: RunFolder,
    /// The original model, which is not changed. It is called with the steps of its process.
    pub original: Box<dyn Denoiser>,
    /// The network in training, called likewise. It starts as the original model.
    pub network: Box<dyn Trainable>,
    /// The class that the network in training is asked for; `None` for a network without classes.
    pub class: Option<u32>,
    /// Entries of the metadata of the files of weights, in addition to those of the network.
    pub metadata: BTreeMap<String, String>,
    /// The goal of the edit.
    pub goal: Goal,
    /// The images.
    pub data: Arc<dyn ImageSource>,
    /// The way between the images and the states of the model.
    pub space: Space,
    /// Their inversions, as far as they are cached.
    pub latents: InversionCache,
    /// The device of both networks and of the images.
    pub device: Device,
}

/// Tunes a model from the newest undamaged checkpoint in the folder, or from the start, until the epochs are done or `stop` is set. `stop`
/// is read after every step of a generation; a resumed run repeats an incomplete generation from its start.
///
/// # Errors
/// As [`sdft_train::run`].
pub fn tune_model(
    setup: TuningSetup,
    stop: &AtomicBool,
    progress: &mut dyn Progress,
) -> Result<Ending> {
    let TuningSetup {
        plan,
        folder,
        original,
        network,
        class,
        mut metadata,
        goal,
        data,
        space,
        latents,
        device,
    } = setup;
    plan.validate()?;
    let walk = &plan.walk;
    let info = TuningInfo {
        from: plan.goal.from.clone(),
        to: plan.goal.to.clone(),
        network_sha256: plan.network_sha256.clone(),
        t_0: walk.t_0,
        inversion: walk.inversion,
        steps: walk.steps,
    };
    metadata.extend(info.metadata()?);
    let (pace, output) = plan.loop_of(data.len());
    let batches = Batches::new(data.clone(), plan.seed, plan.pace.batch, Augment::default())?;
    let mut task = Tuning {
        images: Inverted {
            net: &*original,
            schedule: plan.process.published()?.schedule,
            steps: sequence(walk.inversion, walk.t_0),
            data: &*data,
            space,
            latents,
            device: &device,
            stop,
            is_noted: false,
        },
        steps: sequence(walk.steps, walk.t_0),
        per_epoch: plan.steps_per_epoch(data.len()),
        updater: Updater::new(
            &plan.optim,
            Precision::F32,
            plan.pace.epochs,
            network.vars(),
        )?,
        plan: &plan,
        folder: &folder,
        tuned: Tuned {
            net: &*network,
            class,
        },
        metadata: &metadata,
        goal,
    };
    let setup = DriveSetup {
        folder: &folder,
        pace: &pace,
        output: &output,
        batches,
        device: &device,
        stop,
    };
    drive(&mut task, setup, progress)
}

struct Tuning<'a> {
    plan: &'a TuningPlan,
    folder: &'a RunFolder,
    tuned: Tuned<'a>,
    metadata: &'a BTreeMap<String, String>,
    goal: Goal,
    images: Inverted<'a>,
    /// The steps of a generation.
    steps: Vec<usize>,
    per_epoch: u64,
    updater: Updater,
}

/// The names of logged numbers.
const TERMS: [&str; 4] = ["loss", "direction", "l1", "grad_norm"];

/// The loss, if it is finite; otherwise `bad` says that it is not.
fn finite(loss: GoalLoss, bad: &mut Option<&'static str>) -> candle_core::Result<(GoalLoss, f64)> {
    let total = f64::from(loss.total.to_scalar::<f32>()?);
    if !total.is_finite() {
        *bad = Some("loss");
        candle_core::bail!("{STOPPED}");
    }
    Ok((loss, total))
}

/// The outcome of an update, with its terms, or what was not finite.
fn outcome(verdict: &Verdict, terms: [f64; 3]) -> StepOutcome {
    match verdict {
        Verdict::Updated { grad_norm } => {
            let [loss, direction, l1] = terms;
            let values = [loss, direction, l1, *grad_norm];
            StepOutcome::Updated(TERMS.into_iter().zip(values).collect())
        }
        Verdict::BadLoss => StepOutcome::Skipped("loss"),
        Verdict::BadGradient => StepOutcome::Skipped("gradient"),
    }
}

impl Tuning<'_> {
    /// One update by the gradient of the generated images.
    fn by_generation(
        &mut self,
        epoch: u64,
        latent: &Tensor,
        reference: &Reference,
    ) -> Result<StepOutcome> {
        let (mut bad, mut terms) = (None, [0.0; 3]);
        let mut loss = |x: &Tensor| {
            let (loss, total) = finite(self.goal.loss_to_real(reference, x)?, &mut bad)?;
            terms = [total, loss.similarity, loss.l1];
            Ok(loss.total)
        };
        let chain = chain_gradients(
            self.tuned,
            &self.images.schedule,
            latent,
            &self.steps,
            &mut loss,
            &mut || self.images.check_stop(),
        );
        if let Some(what) = bad {
            return Ok(StepOutcome::Skipped(what));
        }
        let chain = chain?;
        let loss = chain.loss.to_dtype(DType::F64)?;
        let verdict = self.updater.apply(epoch, &chain.gradients, &loss)?.wait()?;
        Ok(outcome(&verdict, terms))
    }

    /// An update at every step of the generation. Means over the steps.
    fn by_steps(
        &mut self,
        epoch: u64,
        latent: &Tensor,
        reference: &Reference,
    ) -> Result<StepOutcome> {
        let (mut bad, mut sums) = (None, [0.0; 4]);
        let (images, goal, tuned) = (&self.images, &self.goal, self.tuned);
        let updater = &mut self.updater;
        let ended = tuning_steps(tuned, &images.schedule, latent, &self.steps, &mut |x0| {
            images.check_stop()?;
            let (loss, total) = finite(goal.loss_to_real(reference, x0)?, &mut bad)?;
            let mut store = backward(&loss.total)?;
            tuned.net.pull_back(&mut store)?;
            let gradients = collect_gradients(updater.vars(), &store);
            let value = loss.total.detach().to_dtype(DType::F64)?;
            let verdict = updater
                .apply(epoch, &gradients, &value)
                .and_then(|pending| Ok(pending.wait()?))
                .map_err(candle_core::Error::wrap)?;
            match outcome(&verdict, [total, loss.similarity, loss.l1]) {
                StepOutcome::Updated(terms) => {
                    for (sum, (_, value)) in sums.iter_mut().zip(terms) {
                        *sum += value;
                    }
                    Ok(())
                }
                _ => {
                    bad = Some("gradient");
                    candle_core::bail!("{STOPPED}")
                }
            }
        });
        if let Some(what) = bad {
            return Ok(StepOutcome::Skipped(what));
        }
        ended?;
        let n = self.steps.len() as f64;
        let means = TERMS.into_iter().zip(sums.map(|sum| sum / n));
        Ok(StepOutcome::Updated(means.collect()))
    }

    fn files(&self, position: &Position) -> ModelFiles<'_> {
        let plan = self.plan;
        ModelFiles {
            network: self.tuned.net,
            metadata: self.metadata,
            process: &plan.process,
            provenance: provenance(&[
                ("run", plan.name.clone()),
                ("method", plan.method.name().to_owned()),
                (
                    "adapter",
                    match plan.adapter.is_full() {
                        true => String::new(),
                        false => plan.adapter.to_string(),
                    },
                ),
                ("source", short_name(&plan.source)),
                ("source_sha256", plan.source_sha256.clone()),
                ("data", short_name(&plan.data.path)),
                ("network", plan.goal.network.clone()),
                ("from", plan.goal.from.clone()),
                ("to", plan.goal.to.clone()),
                ("t_0", plan.walk.t_0.to_string()),
                ("steps", position.step.to_string()),
                ("seed", plan.seed.to_string()),
                ("program", format!("sdft {}", env!("CARGO_PKG_VERSION"))),
            ]),
        }
    }

    /// Writes a picture of the first images: as they are, and generated by the original and by the tuned model.
    fn draw(&self, path: &Path, progress: &mut dyn Progress) -> Result<()> {
        let steps = sequence(self.plan.output.sampler, self.plan.walk.t_0);
        let title = format!("images / as drawn / {}", self.plan.goal.to);
        let nets: [&dyn Denoiser; 2] = [self.images.net, &self.tuned];
        let n = self.plan.output.samples;
        let mut generated = |_, row: usize, latent: &Tensor| {
            let schedule = &self.images.schedule;
            generate(nets[row], schedule, latent, &steps, &mut |_| {
                self.images.check_stop()
            })
        };
        self.images.draw(path, n, &title, &mut generated, progress)
    }
}

impl Task for Tuning<'_> {
    fn audit(&mut self, images: &Tensor) -> Result<()> {
        let x0 = self.images.space.encode(&images.narrow(0, 0, 1)?)?;
        let reference = self.goal.reference(&x0)?;
        // One step from the image itself covers every path that a gradient can take.
        let last = &self.steps[self.steps.len() - 1..];
        let net = self.tuned.net;
        let is_exempt = |name: &str| net.has_zero_gradient(name);
        audit_gradients(self.updater.vars(), self.plan.seed, &is_exempt, &|factor| {
            let mut total = None;
            let schedule = &self.images.schedule;
            tuning_steps(self.tuned, schedule, &x0, last, &mut |x0| {
                total = Some(self.goal.loss_to_real(&reference, x0)?.total);
                Ok(())
            })?;
            let total =
                total.ok_or_else(|| TrainError::Evaluation("the generation has no step".into()))?;
            let mut store = backward(&(total * factor)?)?;
            net.pull_back(&mut store)?;
            Ok(store)
        })
    }

    fn restore(&mut self, checkpoint: Checkpoint) -> Result<()> {
        let checkpoint = without_buffers(self.tuned.net, checkpoint);
        self.updater.load(checkpoint)
    }

    fn begin(&mut self, _: &mut Position, progress: &mut dyn Progress) -> Result<()> {
        progress.note(&format!(
            "{} generations an epoch of {} steps, with an update {}; {}",
            self.per_epoch,
            self.steps.len(),
            match self.plan.pace.update {
                UpdateEach::Generation => "for each",
                UpdateEach::Step => "at each step",
            },
            self.images.describe()
        ));
        Ok(())
    }

    fn step(&mut self, step: u64, x0: &Tensor, _: &Batch) -> Result<StepOutcome> {
        let epoch = step / self.per_epoch;
        // A generation counts as a whole or not at all.
        let before = match self.plan.pace.update {
            UpdateEach::Generation => None,
            UpdateEach::Step => Some(self.updater.snapshot()?),
        };
        let x0 = self.images.space.encode(x0)?;
        let latent = self.images.latent(&x0);
        let stepped = latent.map_err(TrainError::from).and_then(|latent| {
            let reference = self.goal.reference(&x0)?;
            match self.plan.pace.update {
                UpdateEach::Generation => self.by_generation(epoch, &latent, &reference),
                UpdateEach::Step => self.by_steps(epoch, &latent, &reference),
            }
        });
        let stepped = match stepped {
            Err(_) if self.images.is_stopped() => Ok(StepOutcome::Stopped),
            stepped => stepped,
        };
        if let Some(before) = before
            && !matches!(stepped, Ok(StepOutcome::Updated(_)))
        {
            self.updater.restore(before)?;
        }
        stepped
    }

    fn learning_rate(&self, step: u64) -> f64 {
        self.updater.learning_rate(step / self.per_epoch)
    }

    fn evaluate(
        &mut self,
        _: &mut Position,
        _: &mut Log,
        progress: &mut dyn Progress,
    ) -> Result<()> {
        self.images.note_problem(progress);
        Ok(())
    }

    fn state(&mut self, position: &mut Position) -> Result<TrainingState> {
        let state = self.updater.state(position)?;
        Ok(with_buffers(self.tuned.net, state))
    }

    fn metadata(&self, position: &Position) -> Result<BTreeMap<String, String>> {
        self.files(position).of_variables()
    }

    fn finish(&mut self, position: &Position, progress: &mut dyn Progress) -> Result<Finished> {
        let model = self.files(position).write(self.folder, &self.updater)?;
        let n = self.plan.output.samples;
        let shown = self.images.shown(self.folder, n, position.step, |path| {
            self.updater.with_averaged(|| self.draw(path, progress))
        })?;
        Ok(Finished { model, shown })
    }
}
