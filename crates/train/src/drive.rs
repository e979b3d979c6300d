//! The loop that every kind of training shares: steps, guards, logs, checkpoints, resuming, stopping.

use crate::checkpoint::{self, Position};
use crate::error::{Result, TrainError};
use crate::folder::RunFolder;
use crate::images::to_tensor;
use crate::log::{Log, LogLine};
use crate::plan::{LoopPlan, OutputPlan};
use crate::progress::{Progress, StepReport};
use crate::task::{Finished, StepOutcome, Task};
use crate::values::not_finite;
use candle_core::Device;
use sdft_data::{Batches, Prefetcher};
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Images of the gradient audit.
const AUDITED: usize = 2;

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// All steps are done.
    Finished {
        /// The model: the averaged weights.
        model: PathBuf,
        /// What shows how good it is: the last grid of samples, or the table of accuracies.
        shown: PathBuf,
    },
    /// Stopped between two steps.
    Interrupted {
        /// The checkpoint to continue from.
        checkpoint: PathBuf,
    },
}

/// What a run needs in addition to its task.
pub struct DriveSetup<'a> {
    /// The folder of the run.
    pub folder: &'a RunFolder,
    /// Length and batches.
    pub pace: &'a LoopPlan,
    /// What is written, and how often.
    pub output: &'a OutputPlan,
    /// The images.
    pub batches: Batches,
    /// The device of the images.
    pub device: &'a Device,
    /// The run stops after the current step once this is set.
    pub stop: &'a AtomicBool,
}

/// Trains from the newest undamaged checkpoint in the folder, or from the start, until the steps are done or `stop` is set.
///
/// # Errors
/// [`TrainError::Diverged`] after several steps in a row without finite numbers; the task or the file system fails.
pub fn drive(
    task: &mut dyn Task,
    setup: DriveSetup<'_>,
    progress: &mut dyn Progress,
) -> Result<Ending> {
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
    let mut last_checkpoint = None;
    let mut saved_at = None;
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
            last_checkpoint = Some(found.path.clone());
            saved_at = Some(position.step);
            task.restore(found)?;
        }
        None => {
            if fs::metadata(folder.log()).is_ok_and(|log| log.len() > 0) {
                progress.note("there is no checkpoint: the run starts again from its first step");
            }
            let first = to_tensor(&batches.batch(0)?, device)?;
            task.audit(&first.narrow(0, 0, AUDITED.min(first.dim(0)?))?)?;
            progress.note("gradient audit: every tensor gets a finite gradient");
        }
    }
    task.begin(&mut position, progress)?;
    let mut log = Log::open(folder, position.log_bytes, position.event_bytes)?;
    let mut prefetch = Prefetcher::new(batches, position.step);
    // The time of steps alone: samples, evaluations and checkpoints stop it.
    let mut clock = Instant::now();
    let mut since = 0;
    // The step that the device computes while the next one is prepared.
    let mut waiting: Option<u64> = None;

    while position.step < pace.steps && !task.is_over(&position) && !stop.load(Ordering::Relaxed) {
        let step = position.step;
        let step_started = Instant::now();
        let batch = prefetch.next()?;
        let mut stepped = task.step(step, &to_tensor(&batch, device)?, &batch)?;
        if matches!(stepped, StepOutcome::Stopped) {
            break;
        }
        if let Some(before) = waiting.take() {
            let then = task.poll()?;
            account(
                then,
                before,
                pace,
                &mut position,
                &last_checkpoint,
                progress,
            )?;
        }
        let done = step + 1;
        let every = [
            output.log_every,
            output.sample_every,
            output.checkpoint_every,
        ];
        let result_is_needed = every.iter().any(|&every| due(done, every)) || task.is_due(done);
        if matches!(stepped, StepOutcome::Pending) {
            if result_is_needed || done == pace.steps || stop.load(Ordering::Relaxed) {
                stepped = task.poll()?;
            } else {
                waiting = Some(step);
            }
        }
        if waiting.is_none() {
            account(
                stepped,
                step,
                pace,
                &mut position,
                &last_checkpoint,
                progress,
            )?;
        }
        position.step += 1;
        since += pace.batch as u64;
        let step_seconds = step_started.elapsed().as_secs_f64();
        let done = position.step;
        if position.skipped_in_row == 0 {
            let paused = Instant::now();
            task.evaluate(&mut position, &mut log, progress)?;
            clock += paused.elapsed();
        }
        let last = done == pace.steps || task.is_over(&position);
        let images = done * pace.batch as u64;
        let images_per_second = since as f64 / clock.elapsed().as_secs_f64().max(1e-9);
        let mut means = None;
        if due(done, output.log_every) || last {
            let values = position.sums.take();
            log.write(&LogLine {
                step: done,
                images,
                lr: task.learning_rate(step),
                skipped: position.skipped,
                means: &values,
                images_per_second,
            })?;
            means = Some(values);
        }
        progress.step(&StepReport {
            step: done,
            steps: pace.steps,
            images,
            step_seconds,
            images_per_second,
            means: means.clone(),
        });
        if means.is_some() {
            clock = Instant::now();
            since = 0;
        }
        let paused = Instant::now();
        if due(done, output.sample_every)
            && !last
            && let Some(picture) = task.draw_samples(done, progress)?
        {
            log.picture(done, "samples", &picture)?;
        }
        // The weights may be the reason for a skipped step, so the last good checkpoint stays the last.
        if due(done, output.checkpoint_every) && !last && position.skipped_in_row == 0 {
            last_checkpoint = Some(save(task, folder, output.keep, &mut position, &mut log)?);
            task.saved(&position)?;
            saved_at = Some(done);
        }
        clock += paused.elapsed();
    }

    if let Some(before) = waiting.take() {
        let then = task.poll()?;
        account(
            then,
            before,
            pace,
            &mut position,
            &last_checkpoint,
            progress,
        )?;
    }
    if position.skipped_in_row > 0 {
        return Err(TrainError::Diverged {
            step: position.step,
            what: "loss or gradient",
            skips: position.skipped_in_row,
            checkpoint: last_checkpoint,
        });
    }
    let checkpoint = match last_checkpoint {
        // Nothing changed since, so the only good copy is not replaced.
        Some(checkpoint) if saved_at == Some(position.step) => checkpoint,
        _ => save(task, folder, output.keep, &mut position, &mut log)?,
    };
    task.saved(&position)?;
    if position.step < pace.steps && !task.is_over(&position) {
        return Ok(Ending::Interrupted { checkpoint });
    }
    let Finished { model, shown } = task.finish(&position, progress)?;
    if shown.extension().is_some_and(|e| e == "png") {
        log.picture(position.step, "samples", &shown)?;
    }
    Ok(Ending::Finished { model, shown })
}

/// Counts the outcome of a step.
fn account(
    stepped: StepOutcome,
    step: u64,
    pace: &LoopPlan,
    position: &mut Position,
    last_checkpoint: &Option<PathBuf>,
    progress: &mut dyn Progress,
) -> Result<()> {
    match stepped {
        StepOutcome::Updated(terms) => {
            position.skipped_in_row = 0;
            position.sums.add(&terms);
        }
        StepOutcome::Skipped(what) => {
            position.skipped += 1;
            position.skipped_in_row += 1;
            progress.note(&format!(
                "step {}: the {what} is not finite, the step is skipped",
                step + 1
            ));
            if position.skipped_in_row >= pace.max_skips {
                return Err(TrainError::Diverged {
                    step: step + 1,
                    what,
                    skips: position.skipped_in_row,
                    checkpoint: last_checkpoint.clone(),
                });
            }
        }
        StepOutcome::Stopped | StepOutcome::Pending => {}
    }
    Ok(())
}

/// Whether something that happens after every `every` steps happens after `step` of them; 0 means never.
pub fn due(step: u64, every: u64) -> bool {
    every > 0 && step.is_multiple_of(every)
}

fn save(
    task: &mut dyn Task,
    folder: &RunFolder,
    keep: usize,
    position: &mut Position,
    log: &mut Log,
) -> Result<PathBuf> {
    let state = task.state(position)?;
    let metadata = task.metadata(position)?;
    let weights = state.weights.iter().chain(&state.ema);
    let broken = not_finite(weights.map(|(name, tensor)| (name.as_str(), tensor)))?;
    if !broken.is_empty() {
        return Err(TrainError::NotFinite {
            step: position.step,
            names: broken,
        });
    }
    (position.log_bytes, position.event_bytes) = log.sync()?;
    checkpoint::save(folder, position, &state, &metadata, keep)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::{Checkpoint, TrainingState};
    use crate::plan::Plan;
    use crate::progress::NoopProgress;
    use candle_core::Tensor;
    use sdft_data::{Augment, Batch, Digits, DigitsSource, Style};
    use std::collections::{BTreeMap, VecDeque};
    use std::path::Path;
    use std::sync::Arc;

    /// Learns nothing, and fails at given steps.
    struct Stumbling {
        bad: Vec<u64>,
        skipped: u64,
        /// As on a GPU: the outcome of a step is known later.
        behind: bool,
        pending: VecDeque<u64>,
    }

    impl Task for Stumbling {
        fn audit(&mut self, few: &Tensor) -> Result<()> {
            assert_eq!(few.dims(), [AUDITED, 3, 16, 16]);
            Ok(())
        }
        fn restore(&mut self, _: Checkpoint) -> Result<()> {
            Ok(())
        }
        fn step(&mut self, step: u64, _: &Tensor, batch: &Batch) -> Result<StepOutcome> {
            assert_eq!(batch.step, step);
            self.pending.push_back(step);
            // At most one step is pending while the next one is prepared.
            assert!(self.pending.len() <= 2);
            if self.behind {
                Ok(StepOutcome::Pending)
            } else {
                self.poll()
            }
        }
        fn poll(&mut self) -> Result<StepOutcome> {
            let step = self.pending.pop_front().unwrap();
            Ok(match self.bad.contains(&step) {
                true => StepOutcome::Skipped("loss"),
                false => StepOutcome::Updated(vec![("loss", step as f64)]),
            })
        }
        fn is_due(&self, step: u64) -> bool {
            due(step, 2)
        }
        fn learning_rate(&self, _: u64) -> f64 {
            0.0
        }
        fn evaluate(
            &mut self,
            position: &mut Position,
            _: &mut Log,
            _: &mut dyn Progress,
        ) -> Result<()> {
            // Where there is something to do, everything before is known.
            if self.is_due(position.step) {
                assert!(self.pending.is_empty());
                assert!(!self.bad.contains(&(position.step - 1)));
            }
            Ok(())
        }
        fn metadata(&self, _: &Position) -> Result<BTreeMap<String, String>> {
            Ok(BTreeMap::new())
        }
        fn state(&mut self, _: &mut Position) -> Result<TrainingState> {
            let one = vec![("w".to_owned(), Tensor::new(1f32, &Device::Cpu)?)];
            Ok(TrainingState {
                weights: one.clone(),
                ema: one.clone(),
                optimizer: one,
            })
        }
        fn saved(&mut self, position: &Position) -> Result<()> {
            assert_eq!(position.skipped_in_row, 0);
            assert!(self.pending.is_empty());
            self.skipped = position.skipped;
            Ok(())
        }
        fn finish(&mut self, _: &Position, _: &mut dyn Progress) -> Result<Finished> {
            Ok(Finished {
                model: PathBuf::new(),
                shown: PathBuf::new(),
            })
        }
    }

    /// Eight steps, a checkpoint after each good one, two bad ones in a row are too many.
    fn run(root: &Path, bad: &[u64]) -> (Result<Ending>, u64) {
        run_with(root, bad, false, 1)
    }

    fn run_with(
        root: &Path,
        bad: &[u64],
        behind: bool,
        checkpoint_every: u64,
    ) -> (Result<Ending>, u64) {
        let mut plan = <Plan>::default();
        (plan.steps.steps, plan.steps.batch, plan.steps.max_skips) = (8, 4, 2);
        (plan.output.checkpoint_every, plan.output.log_every) = (checkpoint_every, 3);
        let folder = RunFolder::create(root, &plan).unwrap();
        let digits = Digits::embedded().unwrap();
        let source = DigitsSource::new(digits, Style::Chalk, &[], 2).unwrap();
        let batches = Batches::new(Arc::new(source), 0, 4, Augment::default()).unwrap();
        let mut task = Stumbling {
            bad: bad.to_vec(),
            skipped: 0,
            behind,
            pending: VecDeque::new(),
        };
        let setup = DriveSetup {
            folder: &folder,
            pace: &plan.steps,
            output: &plan.output,
            batches,
            device: &Device::Cpu,
            stop: &AtomicBool::new(false),
        };
        let ending = drive(&mut task, setup, &mut NoopProgress);
        (ending, task.skipped)
    }

    #[test]
    fn single_bad_steps_are_skipped_and_counted() {
        let dir = tempfile::tempdir().unwrap();
        let (ending, skipped) = run(&dir.path().join("run"), &[1, 3, 6]);
        assert!(matches!(ending, Ok(Ending::Finished { .. })), "{ending:?}");
        assert_eq!(skipped, 3);
    }

    #[test]
    fn pending_steps_leave_the_same_log_and_the_same_ending() {
        let dir = tempfile::tempdir().unwrap();
        for (i, bad) in [&[][..], &[1, 6], &[0, 2, 4], &[3, 4], &[6, 7], &[7]]
            .iter()
            .enumerate()
        {
            let both = [false, true].map(|behind| {
                let root = dir.path().join(format!("{i}-{behind}"));
                let (ending, skipped) = run_with(&root, bad, behind, 5);
                let ending = match ending {
                    Ok(Ending::Finished { .. }) => "finished".to_owned(),
                    Ok(Ending::Interrupted { .. }) => "interrupted".to_owned(),
                    Err(TrainError::Diverged { step, skips, .. }) => format!("{step} {skips}"),
                    Err(other) => panic!("{other}"),
                };
                let log = std::fs::read_to_string(root.join("log.jsonl")).unwrap();
                let lines = log.lines().map(|line| {
                    let mut line: serde_json::Value = serde_json::from_str(line).unwrap();
                    line.as_object_mut().unwrap().remove("time");
                    line.to_string()
                });
                (ending, skipped, lines.collect::<Vec<_>>())
            });
            assert_eq!(both[0], both[1], "{bad:?}");
        }
    }

    #[test]
    fn bad_steps_in_a_row_end_the_run_and_the_last_good_checkpoint_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (ending, _) = run(&dir.path().join("run"), &[1, 4, 5]);
        match ending {
            Err(TrainError::Diverged {
                step, checkpoint, ..
            }) => {
                assert_eq!(step, 6);
                assert!(checkpoint.unwrap().ends_with("step-000004"));
            }
            other => panic!("{other:?}"),
        }
        // A run that ends on a bad step has not ended well.
        let (ending, _) = run(&dir.path().join("last"), &[7]);
        assert!(
            matches!(ending, Err(TrainError::Diverged { step: 8, .. })),
            "{ending:?}"
        );
    }
}
