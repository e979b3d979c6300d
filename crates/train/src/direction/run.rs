use super::plan::DirectionPlan;
use crate::audit::audit;
use crate::drive::{Ending, Progress, Stepped, Task, drive, file_name, provenance};
use crate::error::{Result, TrainError};
use crate::folder::{RunFolder, RunPlan};
use crate::log::Log;
use crate::plan::Precision;
use crate::preview::{sheet, to_images};
use crate::snapshot::{Position, Snapshot};
use crate::update::{State, Updater};
use candle_core::{Device, Tensor};
use sdft_asyrp::{
    DeltaBlock, Direction, DirectionInfo, EditPlan, Goal, InversionCache, Mix, TrainingStep,
    direction_metadata, edit, sequence, strength_at, training_sequence, training_steps,
    write_direction,
};
use sdft_data::{Augment, Batch, Batches, ImageSource};
use sdft_diffusion::BottleneckNet;
use sdft_imaging::{to_unit_range, write_png};
use sdft_nn::Params;
use sdft_optim::Verdict;
use sdft_randn::NumberedNoise;
use sdft_schedule::Schedule;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What a run that trains a direction is made of.
pub struct DirectionSetup {
    /// The plan, resolved.
    pub plan: DirectionPlan,
    /// Where it writes.
    pub folder: RunFolder,
    /// The model, which stays as it is.
    pub net: Box<dyn BottleneckNet>,
    /// Where the edit goes.
    pub goal: Goal,
    /// The images.
    pub data: Arc<dyn ImageSource>,
    /// Their inversions, as far as they are known.
    pub latents: InversionCache,
    /// Where it computes.
    pub device: Device,
}

/// Trains a direction from the newest whole checkpoint in the folder, or from the start, until the epochs are done or `stop` is set, which
/// is looked at after every step of a trajectory; a trajectory that was begun is then begun anew.
///
/// # Errors
/// As [`crate::run`].
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
        latents,
        device,
    } = setup;
    plan.validate()?;
    let groups = plan.model.norm_groups;
    let specs = DeltaBlock::specs(net.bottleneck(), groups)?;
    let start = Params::init(&specs, plan.seed, &device)?;
    let (params, vars) = start.trainable()?;
    let block = DeltaBlock::load(&params, net.bottleneck(), groups)?;
    let (pace, output) = plan.loop_of(data.len());
    let batches = Batches::new(data.clone(), plan.seed, plan.pace.batch, Augment::default())?;
    let walk = &plan.walk;
    let mut task = Directing {
        schedule: plan.process.published()?.schedule,
        inversion: sequence(walk.inversion, walk.t_0),
        steps: training_sequence(walk.steps, walk.t_0, walk.t_edit),
        per_epoch: plan.steps_per_epoch(data.len()),
        updater: Updater::new(&plan.optim, Precision::F32, plan.pace.epochs, vars)?,
        start: Some(start),
        plan: &plan,
        folder: &folder,
        device: &device,
        net: &*net,
        goal,
        data: &*data,
        latents,
        block,
        stop,
        told: false,
    };
    let pace = (&pace, &output);
    drive(&mut task, &folder, pace, batches, &device, stop, progress)
}

struct Directing<'a> {
    plan: &'a DirectionPlan,
    folder: &'a RunFolder,
    device: &'a Device,
    net: &'a dyn BottleneckNet,
    goal: Goal,
    data: &'a dyn ImageSource,
    latents: InversionCache,
    schedule: Schedule,
    inversion: Vec<usize>,
    steps: Vec<usize>,
    per_epoch: u64,
    block: DeltaBlock,
    updater: Updater,
    /// The first weights, until the audit has seen them.
    start: Option<Params>,
    stop: &'a AtomicBool,
    /// The user knows that inversions are not kept.
    told: bool,
}

/// What is said where the user has asked for an end, to come out of what was under way.
const STOPPED: &str = "stopped";

impl Directing<'_> {
    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn go_on(&self) -> candle_core::Result<()> {
        if self.is_stopped() {
            candle_core::bail!("{STOPPED}");
        }
        Ok(())
    }

    fn latent(&self, x0: &Tensor) -> candle_core::Result<Tensor> {
        self.latents
            .latents(self.net, &self.schedule, x0, &self.inversion, &mut |_| {
                self.go_on()
            })
    }

    /// Walks images down and updates the block at every step; means over the steps, or what was not finite.
    fn walk(&mut self, epoch: u64, x0: &Tensor) -> Result<Stepped> {
        let latent = self.latent(x0)?;
        let seen = self.goal.reference(x0)?;
        // The walk reads the block, whose parameters the updater moves in place.
        let block = self.block.clone();
        let mix = Mix::of(vec![Direction {
            block: &block,
            strength: 1.0,
        }]);
        let (stop, goal, updater) = (self.stop, &self.goal, &mut self.updater);
        let (mut sums, mut bad) = ([0.0; 4], None);
        let mut learn = |training_step: &TrainingStep<'_>| -> candle_core::Result<()> {
            if stop.load(Ordering::Relaxed) {
                candle_core::bail!("{STOPPED}");
            }
            let loss = goal.loss(&seen, training_step)?;
            let total = f64::from(loss.total.to_scalar::<f32>()?);
            if !total.is_finite() {
                bad = Some("loss");
                candle_core::bail!("{STOPPED}");
            }
            let verdict = updater
                .descend(epoch, &loss.total)
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
            &self.schedule,
            &latent,
            &mix,
            &self.steps,
            &mut learn,
        );
        if let Some(what) = bad {
            return Ok(Stepped::Skipped(what));
        }
        ended?;
        let n = self.steps.len() as f64;
        let names = ["loss", "direction", "l1", "grad_norm"];
        let means = names.into_iter().zip(sums.map(|sum| sum / n));
        Ok(Stepped::Updated(means.collect()))
    }

    fn info(&self) -> DirectionInfo {
        let (plan, walk) = (self.plan, &self.plan.walk);
        DirectionInfo {
            from: plan.goal.from.clone(),
            to: plan.goal.to.clone(),
            network_sha256: plan.network_sha256.clone(),
            norm_groups: plan.model.norm_groups,
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
            ("model", file_name(&plan.source)),
            ("model_sha256", plan.source_sha256.clone()),
            ("data", file_name(&plan.data.path)),
            ("network", plan.goal.network.clone()),
            ("steps", position.step.to_string()),
            ("seed", plan.seed.to_string()),
            ("program", format!("sdft {}", env!("CARGO_PKG_VERSION"))),
        ])
    }

    /// The first images: as they are, drawn by the unchanged model, edited.
    fn draw(&self, block: &DeltaBlock, path: &Path) -> Result<()> {
        let n = self.plan.output.samples.min(self.data.len());
        let side = self.data.size();
        let walk = &self.plan.walk;
        let plan = EditPlan {
            steps: sequence(self.plan.output.sampler, walk.t_0),
            t_edit: walk.t_edit,
            t_boost: walk.t_boost,
        };
        let strength = strength_at(1.0, walk.steps, plan.steps.len(), 1);
        let mix = Mix::of(vec![Direction { block, strength }]);
        let mut rows = [Vec::new(), Vec::new(), Vec::new()];
        for i in 0..n {
            let picture = self.data.image(i)?;
            let x0 = to_unit_range(&picture);
            let x0 = Tensor::from_vec(x0, (1, 3, side, side), self.device)?;
            let latent = self.latent(&x0)?;
            rows[0].push(picture);
            for (row, mix) in [(1, &Mix::of(vec![])), (2, &mix)] {
                let mut noise = NumberedNoise::new(self.plan.seed, vec![i as u64]);
                let out = edit(
                    self.net,
                    &self.schedule,
                    &latent,
                    mix,
                    &plan,
                    &mut noise,
                    &mut |_| self.go_on(),
                )?;
                let drawn = to_images(&out).map_err(|error| match error {
                    TrainError::Image { source, .. } => TrainError::Image {
                        number: i + 1,
                        n,
                        source,
                    },
                    other => other,
                })?;
                rows[row].extend(drawn);
            }
        }
        let title = format!("images / as drawn / {}", self.plan.goal.to);
        write_png(path, &sheet(&rows.concat(), n, &title))?;
        Ok(())
    }
}

impl Task for Directing<'_> {
    fn audit(&mut self, few: &Tensor) -> Result<()> {
        let Some(start) = self.start.take() else {
            return Ok(());
        };
        let x0 = few.narrow(0, 0, 1)?;
        let seen = self.goal.reference(&x0)?;
        let bottleneck = self.net.bottleneck();
        let groups = self.plan.model.norm_groups;
        // One step from the image itself shows every path that a gradient can take.
        let lowest = self.steps[..1].to_vec();
        audit(&start, self.plan.seed, groups, &|params| {
            let block = DeltaBlock::load(params, bottleneck, groups)?;
            let mix = Mix::of(vec![Direction {
                block: &block,
                strength: 1.0,
            }]);
            let mut total = None;
            let mut look = |training_step: &TrainingStep<'_>| {
                total = Some(self.goal.loss(&seen, training_step)?.total);
                Ok(())
            };
            training_steps(self.net, &self.schedule, &x0, &mix, &lowest, &mut look)?;
            total.ok_or_else(|| TrainError::Evaluation("no step to look at".into()))
        })
    }

    fn restore(&mut self, snapshot: Snapshot) -> Result<()> {
        self.updater.restore(snapshot, self.device)
    }

    fn begin(&mut self, _: &mut Position, progress: &mut dyn Progress) -> Result<()> {
        self.start = None;
        progress.note(&format!(
            "{} trajectories an epoch, {} steps each at which the direction learns; inversions of {} steps{}",
            self.per_epoch,
            self.steps.len(),
            self.inversion.len(),
            match self.latents.folder() {
                Some(folder) => format!(", kept in {}", folder.display()),
                None => String::new(),
            }
        ));
        Ok(())
    }

    fn step(&mut self, step: u64, x0: &Tensor, _: &Batch) -> Result<Stepped> {
        // A trajectory counts as a whole or not at all.
        let before = self.updater.remember()?;
        let stepped = match self.walk(step / self.per_epoch, x0) {
            Err(_) if self.is_stopped() => Ok(Stepped::Stopped),
            stepped => stepped,
        };
        if !matches!(stepped, Ok(Stepped::Updated(_))) {
            self.updater.put_back(before)?;
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
        if let Some(problem) = self.latents.problem().filter(|_| !self.told) {
            progress.note(&format!("inversions are not kept any more: {problem}"));
            self.told = true;
        }
        Ok(())
    }

    fn state(&mut self, position: &mut Position) -> Result<(State, BTreeMap<String, String>)> {
        let state = self.updater.state(position)?;
        let metadata = direction_metadata(&self.info(), &self.facts(position))?;
        Ok((state, metadata))
    }

    fn finish(&mut self, position: &Position) -> Result<(PathBuf, PathBuf)> {
        let model = self.folder.final_model();
        let weights = self.updater.averaged()?;
        self.folder.put(&model, |aside| {
            Ok(write_direction(
                aside,
                &weights,
                &self.info(),
                &self.facts(position),
            )?)
        })?;
        if self.plan.output.samples == 0 {
            return Ok((model, self.folder.log()));
        }
        let name = format!("step-{:06}.png", position.step);
        let path = self.folder.samples().join(name);
        let groups = self.plan.model.norm_groups;
        let block = DeltaBlock::load(&weights, self.net.bottleneck(), groups)?;
        match self.draw(&block, &path) {
            Err(_) if self.is_stopped() => Ok((model, self.folder.log())),
            drawn => drawn.map(|()| (model, path)),
        }
    }
}
