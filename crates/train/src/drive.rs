//! The loop that all kinds of training share: steps, guards, logs, checkpoints, resuming, stopping.

use crate::error::{Result, TrainError};
use crate::folder::RunFolder;
use crate::log::Log;
use crate::plan::{LoopPlan, OutputPlan};
use crate::snapshot::{self, Position, Snapshot};
use crate::update::State;
use candle_core::{Device, Tensor};
use sdft_cuda::upload;
use sdft_data::{Batch, Batches, Prefetcher};
use sdft_optim::non_finite;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Images that the audit looks at.
const AUDITED: usize = 2;

/// A run's state after a step, for whoever watches.
#[derive(Clone, Debug, PartialEq)]
pub struct StepReport {
    /// Steps done.
    pub step: u64,
    /// Steps in all.
    pub steps: u64,
    /// Images seen.
    pub images: u64,
    /// How long this step took.
    pub step_seconds: f64,
    /// Speed since the last log line.
    pub images_per_second: f64,
    /// Means of the loss terms since the last log line, where there is one now.
    pub means: Option<Vec<(String, f64)>>,
}

/// Sees a run go by.
pub trait Progress {
    /// After every step.
    fn progress(&mut self, progress: &StepReport);
    /// Something worth a line: a checkpoint passed over, a picture written, a step skipped.
    fn note(&mut self, text: &str);
    /// Progress over images that are made or measured one by one; one that is made in part counts in part.
    fn images(&mut self, _done: f64, _total: usize) {}
}

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
    /// Stopped between two steps; everything is in this checkpoint.
    Interrupted {
        /// Where to go on from.
        checkpoint: PathBuf,
    },
}

/// What a step did.
pub(crate) enum Stepped {
    /// The weights moved; terms of the loss and the gradient's norm, by name.
    Updated(Vec<(&'static str, f64)>),
    /// The named number was not finite: nothing moved.
    Skipped(&'static str),
    /// The user asked for an end within the step: nothing moved, and it is to be done again.
    Stopped,
    /// The device is at it; [`Task::poll`] tells.
    Pending,
}

/// What is trained.
pub(crate) trait Task {
    /// Fails if a tensor would get no gradient from these few images.
    fn audit(&mut self, few: &Tensor) -> Result<()>;
    /// Goes on from a checkpoint.
    fn restore(&mut self, snapshot: Snapshot) -> Result<()>;
    /// Everything is in place, `position` is where it begins.
    fn begin(&mut self, position: &mut Position, progress: &mut dyn Progress) -> Result<()>;
    /// The step after `step` others.
    fn step(&mut self, step: u64, x0: &Tensor, batch: &Batch) -> Result<Stepped>;
    /// What became of the oldest pending step.
    fn poll(&mut self) -> Result<Stepped> {
        Ok(Stepped::Stopped)
    }
    /// Whether [`Task::evaluate`] has something to do after so many steps.
    fn is_due(&self, _: u64) -> bool {
        false
    }
    /// The learning rate of that step.
    fn learning_rate(&self, step: u64) -> f64;
    /// After a step with finite numbers: measures what the model is worth, where that is due.
    fn evaluate(
        &mut self,
        position: &mut Position,
        log: &mut Log,
        progress: &mut dyn Progress,
    ) -> Result<()>;
    /// Whether nothing more is to be expected of further steps.
    fn is_over(&self, _: &Position) -> bool {
        false
    }
    /// Draws a picture of where the model is, and says where it is.
    fn show(&mut self, _: u64, _: &mut dyn Progress) -> Result<Option<PathBuf>> {
        Ok(None)
    }
    /// What a checkpoint holds, and what its files say of themselves.
    fn state(&mut self, position: &mut Position) -> Result<(State, BTreeMap<String, String>)>;
    /// After a checkpoint was made.
    fn saved(&mut self, _: &Position) -> Result<()> {
        Ok(())
    }
    /// Writes the finished model; the model and what shows how good it is.
    fn finish(&mut self, position: &Position) -> Result<(PathBuf, PathBuf)>;
}

/// Trains from the newest whole checkpoint in the folder, or from the start, until the steps are done or `stop` is set.
pub(crate) fn drive(
    task: &mut dyn Task,
    folder: &RunFolder,
    (pace, output): (&LoopPlan, &OutputPlan),
    batches: Batches,
    device: &Device,
    stop: &AtomicBool,
    progress: &mut dyn Progress,
) -> Result<Ending> {
    snapshot::sweep(folder)?;
    let (found, notes) = snapshot::load_newest(folder)?;
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
                "going on from {} (step {})",
                found.path.display(),
                position.step
            ));
            last_checkpoint = Some(found.path.clone());
            saved_at = Some(position.step);
            task.restore(found)?;
        }
        None => {
            if fs::metadata(folder.log()).is_ok_and(|log| log.len() > 0) {
                progress.note("no checkpoint is there: the run starts again from its first step");
            }
            let first = to_tensor(&batches.batch(0)?, device)?;
            task.audit(&first.narrow(0, 0, AUDITED.min(first.dim(0)?))?)?;
            progress.note("gradient audit: every tensor gets a finite gradient");
        }
    }
    task.begin(&mut position, progress)?;
    let mut log = Log::open(folder, position.log_bytes, position.event_bytes)?;
    let mut prefetch = Prefetcher::new(batches, position.step);
    let mut clock = Instant::now();
    let mut since = 0;
    // The step that the device is at while the next one is prepared.
    let mut waiting: Option<u64> = None;

    while position.step < pace.steps && !task.is_over(&position) && !stop.load(Ordering::Relaxed) {
        let step = position.step;
        let step_started = Instant::now();
        let batch = prefetch.next()?;
        let mut stepped = task.step(step, &to_tensor(&batch, device)?, &batch)?;
        if matches!(stepped, Stepped::Stopped) {
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
        let looked_at = every.iter().any(|&every| due(done, every)) || task.is_due(done);
        if matches!(stepped, Stepped::Pending) {
            if looked_at || done == pace.steps || stop.load(Ordering::Relaxed) {
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
        let done = position.step;
        if position.skipped_in_row == 0 {
            task.evaluate(&mut position, &mut log, progress)?;
        }
        let last = done == pace.steps || task.is_over(&position);
        let images = done * pace.batch as u64;
        let images_per_second = since as f64 / clock.elapsed().as_secs_f64().max(1e-9);
        let mut means = None;
        if due(done, output.log_every) || last {
            let values = position.sums.take();
            log.write(
                done,
                images,
                task.learning_rate(step),
                position.skipped,
                &values,
                images_per_second,
            )?;
            means = Some(values);
        }
        progress.progress(&StepReport {
            step: done,
            steps: pace.steps,
            images,
            step_seconds: step_started.elapsed().as_secs_f64(),
            images_per_second,
            means: means.clone(),
        });
        if means.is_some() {
            clock = Instant::now();
            since = 0;
        }
        if due(done, output.sample_every)
            && !last
            && let Some(picture) = task.show(done, progress)?
        {
            log.picture(done, "samples", &picture)?;
        }
        // After a skipped step the weights may be what made it so: the last good checkpoint stays the last.
        if due(done, output.checkpoint_every) && !last && position.skipped_in_row == 0 {
            last_checkpoint = Some(save(task, folder, output.keep, &mut position, &mut log)?);
            task.saved(&position)?;
            saved_at = Some(done);
        }
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
        // Nothing happened since: the only good copy is not written over.
        Some(checkpoint) if saved_at == Some(position.step) => checkpoint,
        _ => save(task, folder, output.keep, &mut position, &mut log)?,
    };
    task.saved(&position)?;
    if position.step < pace.steps && !task.is_over(&position) {
        return Ok(Ending::Interrupted { checkpoint });
    }
    let (model, shown) = task.finish(&position)?;
    if shown.extension().is_some_and(|e| e == "png") {
        log.picture(position.step, "samples", &shown)?;
    }
    Ok(Ending::Finished { model, shown })
}

/// Takes note of what became of a step.
fn account(
    stepped: Stepped,
    step: u64,
    pace: &LoopPlan,
    position: &mut Position,
    last_checkpoint: &Option<PathBuf>,
    progress: &mut dyn Progress,
) -> Result<()> {
    match stepped {
        Stepped::Updated(terms) => {
            position.skipped_in_row = 0;
            position.sums.add(&terms);
        }
        Stepped::Skipped(what) => {
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
        Stepped::Stopped | Stepped::Pending => {}
    }
    Ok(())
}

/// Whether something that happens every so many steps happens now.
pub(crate) fn due(step: u64, every: u64) -> bool {
    every > 0 && step.is_multiple_of(every)
}

fn save(
    task: &mut dyn Task,
    folder: &RunFolder,
    keep: usize,
    position: &mut Position,
    log: &mut Log,
) -> Result<PathBuf> {
    let (state, metadata) = task.state(position)?;
    let weights = state.weights.iter().chain(&state.ema);
    let broken = not_finite(weights.map(|(name, tensor)| (name.as_str(), tensor)))?;
    if !broken.is_empty() {
        return Err(TrainError::NotFinite {
            step: position.step,
            names: broken,
        });
    }
    (position.log_bytes, position.event_bytes) = log.sync()?;
    let tensors = [&state.weights, &state.ema, &state.optimizer];
    snapshot::save(folder, position, tensors, &metadata, keep)
}

/// Names of tensors with an entry that is infinite or not a number.
pub(crate) fn not_finite<'a>(
    tensors: impl Iterator<Item = (&'a str, &'a Tensor)>,
) -> Result<Vec<String>> {
    let (names, values): (Vec<&str>, Vec<Option<Tensor>>) = tensors
        .map(|(name, tensor)| (name, Some(tensor.clone())))
        .unzip();
    Ok(non_finite(names, &values)?
        .into_iter()
        .map(str::to_owned)
        .collect())
}

pub(crate) fn to_tensor(batch: &Batch, device: &Device) -> Result<Tensor> {
    let [n, c, h, w] = batch.shape;
    Ok(upload(&batch.data, (n, c, h, w), device)?)
}

/// The last part of a path: where things lay on somebody's disk is nobody else's business.
pub(crate) fn file_name(path: &str) -> String {
    let name = std::path::Path::new(path).file_name();
    name.map_or_else(
        || path.to_owned(),
        |name| name.to_string_lossy().into_owned(),
    )
}

/// What a file says of how it came to be, without what is not known.
pub(crate) fn provenance(facts: &[(&str, String)]) -> BTreeMap<String, String> {
    let known = facts.iter().filter(|(_, value)| !value.is_empty());
    known
        .map(|(key, value)| ((*key).to_owned(), value.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Plan;
    use sdft_data::{Augment, Digits, DigitsSource, Style};
    use std::collections::VecDeque;
    use std::path::Path;
    use std::sync::Arc;

    /// Learns nothing, and cannot do the steps it is told not to.
    struct Stumbling {
        bad: Vec<u64>,
        skipped: u64,
        /// As on a GPU: what became of a step is known later.
        behind: bool,
        pending: VecDeque<u64>,
    }

    impl Task for Stumbling {
        fn audit(&mut self, few: &Tensor) -> Result<()> {
            assert_eq!(few.dims(), [AUDITED, 3, 16, 16]);
            Ok(())
        }
        fn restore(&mut self, _: Snapshot) -> Result<()> {
            Ok(())
        }
        fn begin(&mut self, _: &mut Position, _: &mut dyn Progress) -> Result<()> {
            Ok(())
        }
        fn step(&mut self, step: u64, _: &Tensor, batch: &Batch) -> Result<Stepped> {
            assert_eq!(batch.step, step);
            self.pending.push_back(step);
            // Nobody is asked to be further ahead than by one step.
            assert!(self.pending.len() <= 2);
            if self.behind {
                Ok(Stepped::Pending)
            } else {
                self.poll()
            }
        }
        fn poll(&mut self) -> Result<Stepped> {
            let step = self.pending.pop_front().unwrap();
            Ok(match self.bad.contains(&step) {
                true => Stepped::Skipped("loss"),
                false => Stepped::Updated(vec![("loss", step as f64)]),
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
        fn state(&mut self, _: &mut Position) -> Result<(State, BTreeMap<String, String>)> {
            let one = vec![("w".to_owned(), Tensor::new(1f32, &Device::Cpu)?)];
            let state = State {
                weights: one.clone(),
                ema: one.clone(),
                optimizer: one,
            };
            Ok((state, BTreeMap::new()))
        }
        fn saved(&mut self, position: &Position) -> Result<()> {
            assert_eq!(position.skipped_in_row, 0);
            assert!(self.pending.is_empty());
            self.skipped = position.skipped;
            Ok(())
        }
        fn finish(&mut self, _: &Position) -> Result<(PathBuf, PathBuf)> {
            Ok((PathBuf::new(), PathBuf::new()))
        }
    }

    struct NoopProgress;

    impl Progress for NoopProgress {
        fn progress(&mut self, _: &StepReport) {}
        fn note(&mut self, _: &str) {}
    }

    /// Eight steps, a checkpoint after each that can be, two bad ones in a row are too many.
    fn run(root: &Path, bad: &[u64]) -> (Result<Ending>, u64) {
        run_with(root, bad, false, 1)
    }

    fn run_with(
        root: &Path,
        bad: &[u64],
        behind: bool,
        checkpoint_every: u64,
    ) -> (Result<Ending>, u64) {
        let mut plan = Plan::default();
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
        let pace = (&plan.steps, &plan.output);
        let stop = AtomicBool::new(false);
        let device = Device::Cpu;
        let ending = drive(
            &mut task,
            &folder,
            pace,
            batches,
            &device,
            &stop,
            &mut NoopProgress,
        );
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
    fn steps_ahead_of_what_is_known_leave_the_same_log_and_the_same_ending() {
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
