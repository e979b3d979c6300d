//! The loop that every kind of training shares: steps, guards, logs, checkpoints, resuming, stopping.

use crate::course::Course;
use crate::error::Result;
use crate::folder::RunFolder;
use crate::plan::{LoopPlan, OutputPlan};
use crate::progress::Progress;
use crate::task::Task;
use candle_core::Device;
use sdft_data::Batches;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

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
/// [`TrainError::Diverged`](crate::TrainError::Diverged) after several steps in a row without finite numbers; the task or the file system fails.
pub fn drive(
    task: &mut dyn Task,
    setup: DriveSetup<'_>,
    progress: &mut dyn Progress,
) -> Result<Ending> {
    let mut course = Course::start(task, setup, progress)?;
    while course.continues() && course.step()? {}
    course.end()
}

/// Whether something that happens after every `every` steps happens after `step` of them; 0 means never.
pub fn due(step: u64, every: u64) -> bool {
    every > 0 && step.is_multiple_of(every)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::{Checkpoint, Position, TrainingState};
    use crate::course::AUDITED;
    use crate::error::TrainError;
    use crate::log::Log;
    use crate::plan::Plan;
    use crate::progress::{NoopProgress, StepReport};
    use crate::task::{Finished, StepOutcome};
    use candle_core::Tensor;
    use sdft_data::{Augment, Batch, Digits, DigitsSource, Style};
    use std::collections::{BTreeMap, VecDeque};
    use std::path::Path;
    use std::sync::Arc;
    use std::time::Duration;

    /// Learns nothing, and fails at given steps.
    #[derive(Default)]
    struct Stumbling {
        bad: Vec<u64>,
        skipped: u64,
        /// As on a GPU: the outcome of a step is known later.
        behind: bool,
        pending: VecDeque<u64>,
        /// How long an evaluation, samples and a checkpoint take, each.
        evaluation: Duration,
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
                std::thread::sleep(self.evaluation);
            }
            Ok(())
        }
        fn metadata(&self, _: &Position) -> Result<BTreeMap<String, String>> {
            Ok(BTreeMap::new())
        }
        fn draw_samples(&mut self, _: u64, _: &mut dyn Progress) -> Result<Option<PathBuf>> {
            std::thread::sleep(self.evaluation);
            Ok(None)
        }
        fn state(&mut self, _: &mut Position) -> Result<TrainingState> {
            std::thread::sleep(self.evaluation);
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
        let mut task = Stumbling {
            bad: bad.to_vec(),
            behind,
            ..Stumbling::default()
        };
        let ending = drive_task(root, &mut task, checkpoint_every, &mut NoopProgress);
        (ending, task.skipped)
    }

    fn drive_task(
        root: &Path,
        task: &mut Stumbling,
        checkpoint_every: u64,
        progress: &mut dyn Progress,
    ) -> Result<Ending> {
        let mut plan = <Plan>::default();
        (plan.steps.steps, plan.steps.batch, plan.steps.max_skips) = (8, 4, 2);
        (plan.output.checkpoint_every, plan.output.log_every) = (checkpoint_every, 3);
        plan.output.sample_every = 2;
        let folder = RunFolder::create(root, &plan).unwrap();
        let digits = Digits::embedded().unwrap();
        let source = DigitsSource::new(digits, Style::Chalk, &[], 2).unwrap();
        let batches = Batches::new(Arc::new(source), 0, 4, Augment::default()).unwrap();
        let setup = DriveSetup {
            folder: &folder,
            pace: &plan.steps,
            output: &plan.output,
            batches,
            device: &Device::Cpu,
            stop: &AtomicBool::new(false),
        };
        drive(task, setup, progress)
    }

    #[test]
    fn the_reported_speed_is_that_of_the_steps_alone() {
        /// Seconds of all steps, by their own clock and by the speed at each log line.
        #[derive(Default)]
        struct Seconds([f64; 2]);
        impl Progress for Seconds {
            fn step(&mut self, report: &StepReport) {
                self.0[0] += report.step_seconds;
                if report.means.is_some() {
                    // Two log lines of three steps, and one of two.
                    let images = if report.step == 8 { 8.0 } else { 12.0 };
                    self.0[1] += images / report.images_per_second;
                }
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let mut task = Stumbling {
            evaluation: Duration::from_millis(200),
            ..Stumbling::default()
        };
        let mut seconds = Seconds::default();
        drive_task(&dir.path().join("run"), &mut task, 2, &mut seconds).unwrap();
        // Three evaluations, pictures and checkpoints each before the last log line, of 0.2 seconds each.
        assert!(seconds.0.iter().all(|&s| s < 0.5), "{:?}", seconds.0);
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
