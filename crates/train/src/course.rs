//! What the training loop holds from step to step.

use crate::checkpoint::{self, Position};
use crate::drive::{DriveSetup, Ending, due};
use crate::error::{Result, TrainError};
use crate::folder::RunFolder;
use crate::images::to_tensor;
use crate::log::{Log, LogLine};
use crate::plan::{LoopPlan, OutputPlan};
use crate::progress::{Progress, StepReport};
use crate::task::{Finished, StepOutcome, Task};
use crate::values::not_finite;
use candle_core::Device;
use sdft_data::Prefetcher;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Images of the gradient audit.
pub(crate) const AUDITED: usize = 2;

/// A run between its start and its end.
pub(crate) struct Course<'a> {
    task: &'a mut dyn Task,
    progress: &'a mut dyn Progress,
    folder: &'a RunFolder,
    pace: &'a LoopPlan,
    output: &'a OutputPlan,
    device: &'a Device,
    stop: &'a AtomicBool,
    prefetch: Prefetcher,
    position: Position,
    log: Log,
    /// The newest good checkpoint, and its step.
    saved: Option<(PathBuf, u64)>,
    /// The step that the device computes while the next one is prepared.
    waiting: Option<u64>,
    meter: Meter,
}

/// The speed of the steps alone: samples, evaluations and checkpoints stop the clock.
struct Meter {
    images: u64,
    clock: Instant,
}

impl Meter {
    fn start() -> Self {
        Self {
            images: 0,
            clock: Instant::now(),
        }
    }

    fn images_per_second(&self) -> f64 {
        self.images as f64 / self.clock.elapsed().as_secs_f64().max(1e-9)
    }
}

impl<'a> Course<'a> {
    /// Continues from the newest checkpoint, or audits the gradients of a new run.
    pub(crate) fn start(
        task: &'a mut dyn Task,
        setup: DriveSetup<'a>,
        progress: &'a mut dyn Progress,
    ) -> Result<Self> {
        let DriveSetup {
            folder,
            pace,
            output,
            batches,
            device,
            stop,
        } = setup;
        checkpoint::sweep(folder)?;
        let (found, notes) = checkpoint::load_newest(folder)?;
        for note in notes {
            progress.note(&note);
        }
        let mut position = Position::default();
        let mut saved = None;
        match found {
            Some(found) => {
                position = found.position.clone();
                progress.note(&format!(
                    "continuing from {} (step {})",
                    found.path.display(),
                    position.step
                ));
                if position.step >= pace.steps {
                    progress.note(&format!(
                        "the run is finished: {} of {} steps",
                        position.step, pace.steps
                    ));
                }
                saved = Some((found.path.clone(), position.step));
                task.restore(found)?;
            }
            None => {
                if fs::metadata(folder.log()).is_ok_and(|log| log.len() > 0) {
                    progress
                        .note("there is no checkpoint: the run starts again from its first step");
                }
                let first = to_tensor(&batches.batch(0)?, device)?;
                task.audit(&first.narrow(0, 0, AUDITED.min(first.dim(0)?))?)?;
                progress.note("gradient audit: every tensor gets a finite gradient");
            }
        }
        task.begin(&mut position, progress)?;
        Ok(Self {
            log: Log::open(folder, position.log_bytes, position.event_bytes)?,
            prefetch: Prefetcher::new(batches, position.step),
            task,
            progress,
            folder,
            pace,
            output,
            device,
            stop,
            position,
            saved,
            waiting: None,
            meter: Meter::start(),
        })
    }

    /// Whether there is another step to take.
    pub(crate) fn continues(&self) -> bool {
        !self.is_last() && !self.is_stopped()
    }

    /// Whether all steps are done.
    fn is_last(&self) -> bool {
        self.position.step >= self.pace.steps || self.task.is_over(&self.position)
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Takes a step, and does what is due after it. False if the user stopped the run within the step.
    pub(crate) fn step(&mut self) -> Result<bool> {
        let (step, started) = (self.position.step, Instant::now());
        let batch = self.prefetch.next()?;
        // The images leave the device with the step.
        let stepped = self
            .task
            .step(step, &to_tensor(&batch, self.device)?, &batch)?;
        if matches!(stepped, StepOutcome::Stopped) {
            return Ok(false);
        }
        self.wait()?;
        match stepped {
            StepOutcome::Pending if !self.needs_outcome(step + 1) => self.waiting = Some(step),
            StepOutcome::Pending => {
                let outcome = self.task.poll()?;
                self.account(outcome, step)?;
            }
            known => self.account(known, step)?,
        }
        self.position.step += 1;
        self.meter.images += self.pace.batch as u64;
        let step_seconds = started.elapsed().as_secs_f64();
        if self.position.skipped_in_row == 0 {
            let paused = Instant::now();
            self.task
                .evaluate(&mut self.position, &mut self.log, self.progress)?;
            self.meter.clock += paused.elapsed();
        }
        self.report(step_seconds)?;
        let paused = Instant::now();
        self.draw_and_save()?;
        self.meter.clock += paused.elapsed();
        Ok(true)
    }

    /// Waits for the step that the device computes, if there is one.
    fn wait(&mut self) -> Result<()> {
        if let Some(step) = self.waiting.take() {
            let outcome = self.task.poll()?;
            self.account(outcome, step)?;
        }
        Ok(())
    }

    /// Whether something after `done` steps needs the outcome of the last one.
    fn needs_outcome(&self, done: u64) -> bool {
        let output = self.output;
        let every = [
            output.log_every,
            output.sample_every,
            output.checkpoint_every,
        ];
        every.iter().any(|&every| due(done, every))
            || self.task.is_due(done)
            || done == self.pace.steps
            || self.is_stopped()
    }

    /// Counts the outcome of a step.
    fn account(&mut self, outcome: StepOutcome, step: u64) -> Result<()> {
        let position = &mut self.position;
        match outcome {
            StepOutcome::Updated(terms) => {
                position.skipped_in_row = 0;
                position.sums.add(&terms);
            }
            StepOutcome::Skipped(what) => {
                position.skipped += 1;
                position.skipped_in_row += 1;
                self.progress.note(&format!(
                    "step {}: the {what} is not finite, the step is skipped",
                    step + 1
                ));
                if position.skipped_in_row >= self.pace.max_skips {
                    return Err(self.diverged(what, step + 1));
                }
            }
            StepOutcome::Stopped | StepOutcome::Pending => {}
        }
        Ok(())
    }

    fn diverged(&self, what: &'static str, step: u64) -> TrainError {
        TrainError::Diverged {
            step,
            what,
            skips: self.position.skipped_in_row,
            checkpoint: self.saved.as_ref().map(|(path, _)| path.clone()),
        }
    }

    /// Writes a log line if it is due, and reports the last step, which took `step_seconds`.
    fn report(&mut self, step_seconds: f64) -> Result<()> {
        let done = self.position.step;
        let images = done * self.pace.batch as u64;
        let images_per_second = self.meter.images_per_second();
        let mut means = None;
        if due(done, self.output.log_every) || self.is_last() {
            let values = self.position.sums.take();
            self.log.write(&LogLine {
                step: done,
                images,
                lr: self.task.learning_rate(done - 1),
                skipped: self.position.skipped,
                means: &values,
                images_per_second,
            })?;
            means = Some(values);
        }
        let starts_again = means.is_some();
        self.progress.step(&StepReport {
            step: done,
            steps: self.pace.steps,
            images,
            step_seconds,
            images_per_second,
            means,
        });
        if starts_again {
            self.meter = Meter::start();
        }
        Ok(())
    }

    /// Draws samples and writes a checkpoint if they are due. Those of the last step are part of the end.
    fn draw_and_save(&mut self) -> Result<()> {
        if self.is_last() {
            return Ok(());
        }
        let done = self.position.step;
        if due(done, self.output.sample_every)
            && let Some(picture) = self.task.draw_samples(done, self.progress)?
        {
            self.log.picture(done, "samples", &picture)?;
        }
        // The weights may be the reason for a skipped step, so the last good checkpoint stays the last.
        if due(done, self.output.checkpoint_every) && self.position.skipped_in_row == 0 {
            self.save()?;
            self.task.saved(&self.position)?;
        }
        Ok(())
    }

    /// Writes a checkpoint and returns its folder.
    fn save(&mut self) -> Result<PathBuf> {
        let position = &mut self.position;
        let state = self.task.state(position)?;
        let metadata = self.task.metadata(position)?;
        let weights = state.weights.iter().chain(&state.ema);
        let broken = not_finite(weights.map(|(name, tensor)| (name.as_str(), tensor)))?;
        if !broken.is_empty() {
            return Err(TrainError::NotFinite {
                step: position.step,
                names: broken,
            });
        }
        (position.log_bytes, position.event_bytes) = self.log.sync()?;
        let keep = self.output.keep;
        let path = checkpoint::save(self.folder, position, &state, &metadata, keep)?;
        self.saved = Some((path.clone(), position.step));
        Ok(path)
    }

    /// Saves the run, and if its steps are done, writes its model.
    pub(crate) fn end(mut self) -> Result<Ending> {
        self.wait()?;
        let step = self.position.step;
        if self.position.skipped_in_row > 0 {
            return Err(self.diverged("loss or gradient", step));
        }
        let checkpoint = match &self.saved {
            // Nothing changed since, so the only good copy is not replaced.
            Some((path, at)) if *at == step => path.clone(),
            _ => self.save()?,
        };
        self.task.saved(&self.position)?;
        if !self.is_last() {
            return Ok(Ending::Interrupted { checkpoint });
        }
        let Finished { model, shown } = self.task.finish(&self.position, self.progress)?;
        if shown.extension().is_some_and(|e| e == "png") {
            self.log.picture(step, "samples", &shown)?;
        }
        Ok(Ending::Finished { model, shown })
    }
}
