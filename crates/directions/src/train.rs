//! The training of a direction: trajectories, their goal, and the picture at the end.

use crate::inverted::{Inverted, STOPPED};
use crate::plan::DirectionPlan;
use candle_core::{Device, Tensor};
use sdft_adm::is_removed_by_norm;
use sdft_asyrp::{
    DeltaBlock, Direction, DirectionInfo, EditPlan, Goal, InversionCache, Mix, TrainingStep,
    direction_metadata, edit, sequence, strength_at, training_sequence, training_steps,
    write_direction,
};
use sdft_autoencoder::Space;
use sdft_autograd::{backward, no_grad};
use sdft_data::{Augment, Batch, Batches, ImageSource};
use sdft_diffusion::BottleneckNet;
use sdft_files::short_name;
use sdft_nn::Params;
use sdft_optim::Verdict;
use sdft_randn::NumberedNoise;
use sdft_train::{
    Checkpoint, DriveSetup, Ending, Finished, Log, Position, Precision, Progress, Result,
    RunFolder, RunPlan, StepOutcome, Task, TrainError, TrainingState, Updater, audit_gradients,
    drive, provenance,
};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// What a run that trains a direction needs.
pub struct DirectionSetup {
    /// The plan, resolved.
    pub plan: DirectionPlan,
    /// The folder that the run writes to.
    pub folder: RunFolder,
    /// The model, which is not changed.
    pub net: Box<dyn BottleneckNet>,
    /// The goal of the edit.
    pub goal: Goal,
    /// The images.
    pub data: Arc<dyn ImageSource>,
    /// The way between the images and the states of the model.
    pub space: Space,
    /// Their inversions, as far as they are cached.
    pub latents: InversionCache,
    /// The device of the model and of the images.
    pub device: Device,
}

/// Trains a direction from the newest undamaged checkpoint in the folder, or from the start, until the epochs are done or `stop` is set.
/// `stop` is read after every step of a trajectory; a resumed run repeats an incomplete trajectory from its start.
///
/// # Errors
/// As [`sdft_train::run`].
pub fn train_direction(
    setup: DirectionSetup,
    stop: &AtomicBool,
    progress: &mut dyn Progress,
) -> Result<Ending> {
    let DirectionSetup {
        plan,
        folder,
        net,
        goal,
        data,
        space,
        latents,
        device,
    } = setup;
    plan.validate()?;
    let groups = plan.model.norm_groups();
    let specs = DeltaBlock::specs(net.bottleneck(), groups)?;
    let start = Params::init(&specs, plan.seed, &device)?;
    let (params, vars) = start.trainable()?;
    let block = DeltaBlock::load(&params, net.bottleneck(), groups)?;
    let (pace, output) = plan.loop_of(data.len());
    let batches = Batches::new(data.clone(), plan.seed, plan.pace.batch, Augment::default())?;
    let walk = &plan.walk;
    let mut task = Directing {
        images: Inverted {
            net: &*net,
            schedule: plan.process.published()?.schedule,
            steps: sequence(walk.inversion, walk.t_0),
            data: &*data,
            space,
            latents,
            device: &device,
            stop,
            is_noted: false,
        },
        steps: training_sequence(walk.steps, walk.t_0, walk.t_edit),
        per_epoch: plan.steps_per_epoch(data.len()),
        updater: Updater::new(&plan.optim, Precision::F32, plan.pace.epochs, vars)?,
        plan: &plan,
        folder: &folder,
        net: &*net,
        goal,
        block,
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

struct Directing<'a> {
    plan: &'a DirectionPlan,
    folder: &'a RunFolder,
    net: &'a dyn BottleneckNet,
    goal: Goal,
    images: Inverted<'a>,
    steps: Vec<usize>,
    per_epoch: u64,
    block: DeltaBlock,
    updater: Updater,
}

impl Directing<'_> {
    /// One trajectory, with an update of the block at every step. Means over the steps, or what was not finite.
    fn walk(&mut self, epoch: u64, x0: &Tensor) -> Result<StepOutcome> {
        let x0 = self.images.space.encode(x0)?;
        let latent = self.images.latent(&x0)?;
        let reference = self.goal.reference(&x0)?;
        // The trajectory reads the block while the updater changes its variables in place.
        let block = self.block.clone();
        let mix = Mix::of(vec![Direction {
            block: &block,
            strength: 1.0,
        }]);
        let (images, goal, updater) = (&self.images, &self.goal, &mut self.updater);
        let (mut sums, mut bad) = ([0.0; 4], None);
        let mut learn = |training_step: &TrainingStep<'_>| -> candle_core::Result<()> {
            images.check_stop()?;
            let loss = goal.loss(&reference, training_step)?;
            let total = f64::from(loss.total.to_scalar::<f32>()?);
            if !total.is_finite() {
                bad = Some("loss");
                candle_core::bail!("{STOPPED}");
            }
            let verdict = updater
                .backward_step(epoch, &loss.total)
                .map_err(candle_core::Error::wrap)?;
            let Verdict::Updated { grad_norm: norm } = verdict else {
                bad = Some("gradient");
                candle_core::bail!("{STOPPED}");
            };
            let values = [total, loss.similarity, loss.l1, norm];
            for (sum, value) in sums.iter_mut().zip(values) {
                *sum += value;
            }
            Ok(())
        };
        let ended = training_steps(
            self.net,
            &self.images.schedule,
            &latent,
            &mix,
            &self.steps,
            &mut learn,
        );
        if let Some(what) = bad {
            return Ok(StepOutcome::Skipped(what));
        }
        ended?;
        let n = self.steps.len() as f64;
        let names = ["loss", "direction", "l1", "grad_norm"];
        let means = names.into_iter().zip(sums.map(|sum| sum / n));
        Ok(StepOutcome::Updated(means.collect()))
    }

    fn info(&self) -> DirectionInfo {
        let (plan, walk) = (self.plan, &self.plan.walk);
        DirectionInfo {
            from: plan.goal.from.clone(),
            to: plan.goal.to.clone(),
            network_sha256: plan.network_sha256.clone(),
            norm_groups: plan.model.norm_groups(),
            t_0: walk.t_0,
            inversion: walk.inversion,
            steps: walk.steps,
            t_edit: walk.t_edit,
            t_boost: walk.t_boost,
        }
    }

    fn facts(&self, position: &Position) -> BTreeMap<String, String> {
        let plan = self.plan;
        provenance(&[
            ("run", plan.name.clone()),
            ("model", short_name(&plan.source)),
            ("model_sha256", plan.source_sha256.clone()),
            ("data", short_name(&plan.data.path)),
            ("network", plan.goal.network.clone()),
            ("steps", position.step.to_string()),
            ("seed", plan.seed.to_string()),
            ("program", format!("sdft {}", env!("CARGO_PKG_VERSION"))),
        ])
    }

    /// Writes a picture of the first images: as they are, drawn by the unchanged model, edited by the block.
    fn draw(&self, path: &Path, progress: &mut dyn Progress) -> Result<()> {
        let walk = &self.plan.walk;
        let plan = EditPlan {
            steps: sequence(self.plan.output.sampler, walk.t_0),
            t_edit: walk.t_edit,
            t_boost: walk.t_boost,
        };
        let strength = strength_at(1.0, walk.steps, plan.steps.len(), 1);
        let block = &self.block;
        let mixes = [
            Mix::of(vec![]),
            Mix::of(vec![Direction { block, strength }]),
        ];
        let title = format!("images / as drawn / {}", self.plan.goal.to);
        let n = self.plan.output.samples;
        let mut generated = |i, row: usize, latent: &Tensor| {
            let mut noise = NumberedNoise::new(self.plan.seed, vec![i as u64]);
            no_grad(|| {
                edit(
                    self.net,
                    &self.images.schedule,
                    latent,
                    &mixes[row],
                    &plan,
                    &mut noise,
                    &mut |_| self.images.check_stop(),
                )
            })
        };
        self.images.draw(path, n, &title, &mut generated, progress)
    }
}

impl Task for Directing<'_> {
    fn audit(&mut self, images: &Tensor) -> Result<()> {
        let x0 = self.images.space.encode(&images.narrow(0, 0, 1)?)?;
        let reference = self.goal.reference(&x0)?;
        let groups = self.plan.model.norm_groups();
        let mix = Mix::of(vec![Direction {
            block: &self.block,
            strength: 1.0,
        }]);
        // One step from the image itself covers every path that a gradient can take.
        let lowest = self.steps[..1].to_vec();
        let vars = self.updater.vars();
        let is_exempt = |name: &str| is_removed_by_norm(name, vars, groups);
        audit_gradients(vars, self.plan.seed, &is_exempt, &|factor| {
            let mut total = None;
            let mut first_loss = |training_step: &TrainingStep<'_>| {
                total = Some(self.goal.loss(&reference, training_step)?.total);
                Ok(())
            };
            training_steps(
                self.net,
                &self.images.schedule,
                &x0,
                &mix,
                &lowest,
                &mut first_loss,
            )?;
            let total =
                total.ok_or_else(|| TrainError::Evaluation("the trajectory has no step".into()))?;
            Ok(backward(&(total * factor)?)?)
        })
    }

    fn restore(&mut self, checkpoint: Checkpoint) -> Result<()> {
        self.updater.load(checkpoint)
    }

    fn begin(&mut self, _: &mut Position, progress: &mut dyn Progress) -> Result<()> {
        progress.note(&format!(
            "{} trajectories an epoch, {} steps each at which the direction learns; {}",
            self.per_epoch,
            self.steps.len(),
            self.images.describe()
        ));
        Ok(())
    }

    fn step(&mut self, step: u64, x0: &Tensor, _: &Batch) -> Result<StepOutcome> {
        // A trajectory counts as a whole or not at all.
        let before = self.updater.snapshot()?;
        let stepped = match self.walk(step / self.per_epoch, x0) {
            Err(_) if self.images.is_stopped() => Ok(StepOutcome::Stopped),
            stepped => stepped,
        };
        if !matches!(stepped, Ok(StepOutcome::Updated(_))) {
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
        self.updater.state(position)
    }

    fn metadata(&self, position: &Position) -> Result<BTreeMap<String, String>> {
        Ok(direction_metadata(&self.info(), &self.facts(position))?)
    }

    fn finish(&mut self, position: &Position, progress: &mut dyn Progress) -> Result<Finished> {
        let model = self.folder.final_model();
        let weights = self.updater.averaged()?;
        self.folder.put(&model, |temporary| {
            Ok(write_direction(
                temporary,
                &Params::new(weights),
                &self.info(),
                &self.facts(position),
            )?)
        })?;
        let n = self.plan.output.samples;
        let shown = self.images.shown(self.folder, n, position.step, |path| {
            self.updater.with_averaged(|| self.draw(path, progress))
        })?;
        Ok(Finished { model, shown })
    }
}
