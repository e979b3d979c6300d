//! The task of fine-tuning a denoising network: steps, samples, evaluations, and the files of the model.

use crate::best::{check_best, is_best, is_exhausted, keep_best, publish_best};
use crate::checkpoint::{Checkpoint, Position, Tensors, TrainingState};
use crate::drive::due;
use crate::error::{Result, TrainError};
use crate::evaluator::Evaluation;
use crate::folder::RunFolder;
use crate::follow::share_start;
use crate::images::StepImages;
use crate::learner::Learner;
use crate::log::Log;
use crate::model_files::ModelFiles;
use crate::outcome::{Outcome, PendingStep};
use crate::plan::{Method, Plan};
use crate::preview::Preview;
use crate::progress::Progress;
use crate::provenance::provenance;
use crate::task::{Finished, StepOutcome, Task};
use crate::values::not_finite;
use candle_core::{Device, Tensor};
use sdft_autoencoder::Space;
use sdft_data::Batch;
use sdft_files::short_name;
use sdft_parallel::{Command, ProcessGroup};
use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;

/// A run that trains a denoising network.
pub(crate) struct FineTuning<'a, M> {
    pub(crate) group: &'a ProcessGroup,
    pub(crate) plan: &'a Plan<M>,
    pub(crate) folder: &'a RunFolder,
    pub(crate) device: &'a Device,
    /// Entries for the metadata of the files of weights.
    pub(crate) metadata: &'a BTreeMap<String, String>,
    pub(crate) learner: Learner,
    /// Steps that were issued and not yet waited for, in order.
    pub(crate) issued: VecDeque<PendingStep>,
    pub(crate) evaluation: Option<Evaluation>,
    pub(crate) space: Space,
    /// Made when the run begins.
    pub(crate) preview: Option<Preview>,
}

impl<M> FineTuning<'_, M> {
    fn provenance(&self, position: &Position) -> BTreeMap<String, String> {
        let plan = self.plan;
        let method = match plan.method {
            Method::Scratch => "scratch",
            Method::Naive => "naive",
            Method::Sdft => "sdft",
        };
        provenance(&[
            ("run", plan.name.clone()),
            ("method", method.to_owned()),
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
            ("steps", position.step.to_string()),
            ("seed", plan.seed.to_string()),
            ("weights", format!("ema {}", plan.optim.ema)),
            ("program", format!("sdft {}", env!("CARGO_PKG_VERSION"))),
        ])
    }

    fn files(&self, position: &Position) -> ModelFiles<'_> {
        ModelFiles {
            network: self.learner.network(),
            metadata: self.metadata,
            process: &self.plan.process,
            provenance: self.provenance(position),
        }
    }

    /// Writes the grid of the averaged weights, next to that of the raw ones while these draw something else.
    fn draw(&self, step: u64, progress: &mut dyn Progress) -> Result<PathBuf> {
        let path = self.folder.samples().join(format!("step-{step:06}.png"));
        if let Some(preview) = &self.preview {
            preview.write(&self.learner, step, &path, progress)?;
        }
        Ok(path)
    }

    /// A note about samples that cannot be shown. They do not stop a run whose weights are finite.
    fn note_without_images(&self, step: u64, error: TrainError) -> Result<String> {
        let updater = self.learner.updater();
        let bad = |tensors: Tensors| not_finite(tensors.iter().map(|(name, t)| (name.as_str(), t)));
        let mut names = bad(updater.averaged()?)?;
        if names.is_empty() {
            names = bad(updater.raw())?;
        }
        if names.is_empty() {
            Ok(format!("step {step}: no picture of the samples: {error}"))
        } else {
            Err(TrainError::NotFinite { step, names })
        }
    }
}

impl<M> Task for FineTuning<'_, M> {
    fn audit(&mut self, images: &Tensor) -> Result<()> {
        self.learner.audit(images)
    }

    fn restore(&mut self, checkpoint: Checkpoint) -> Result<()> {
        self.learner.load(checkpoint)
    }

    fn begin(&mut self, position: &mut Position, progress: &mut dyn Progress) -> Result<()> {
        if self.group.size() > 1 {
            share_start(self.group, &mut self.learner, position)?;
        }
        if let Some(note) = check_best(self.folder, position)? {
            progress.note(&note);
        }
        if is_exhausted(position, &self.plan.eval) && position.step < self.plan.steps.steps {
            progress.note(&exhausted(position));
        }
        if self.plan.data.augment > 0.0 && self.learner.network().augment_dim() == 0 {
            progress.note(
                "data.augment: the network takes no augmentation labels, so augmented images may appear in samples",
            );
        }
        let (learner, space) = (&self.learner, self.space.clone());
        let preview = Preview::new(self.plan, learner, space, self.device, progress);
        self.preview = Some(preview.map_err(|error| match error {
            TrainError::Image { .. } => {
                TrainError::Evaluation(format!("samples of the source model: {error}"))
            }
            other => other,
        })?);
        Ok(())
    }

    fn step(&mut self, step: u64, x0: &Tensor, batch: &Batch) -> Result<StepOutcome> {
        if self.group.size() > 1 {
            self.group.announce(Command::Step)?;
        }
        let images = StepImages::of(batch, x0)?;
        self.issued.push_back(self.learner.issue(step, images)?);
        // A GPU gets the next step while it computes this one.
        if self.device.is_cuda() {
            Ok(StepOutcome::Pending)
        } else {
            self.poll()
        }
    }

    fn poll(&mut self) -> Result<StepOutcome> {
        let Some(issued) = self.issued.pop_front() else {
            return Ok(StepOutcome::Stopped);
        };
        match issued.wait()? {
            Outcome::Updated { report, grad_norm } => {
                let terms = [
                    ("loss", Some(report.total)),
                    ("base", Some(report.base)),
                    ("mse", Some(report.mse)),
                    ("vb", report.vb),
                    ("distill", report.distill),
                    ("aux", report.aux),
                    ("kept", report.kept),
                    ("pairwise", report.pairwise),
                    ("anchor", report.anchor),
                    ("grad_norm", Some(grad_norm)),
                ];
                let known = terms.into_iter().filter_map(|(name, v)| Some((name, v?)));
                Ok(StepOutcome::Updated(known.collect()))
            }
            Outcome::Skipped { what } => Ok(StepOutcome::Skipped(what)),
        }
    }

    fn learning_rate(&self, step: u64) -> f64 {
        self.learner.updater().learning_rate(step)
    }

    fn is_due(&self, step: u64) -> bool {
        due(step, self.plan.eval.every)
    }

    fn evaluate(
        &mut self,
        position: &mut Position,
        log: &mut Log,
        progress: &mut dyn Progress,
    ) -> Result<()> {
        let (plan, done) = (self.plan, position.step);
        let Some(evaluation) = self.evaluation.as_ref().filter(|_| self.is_due(done)) else {
            return Ok(());
        };
        let report = match evaluation.evaluate(&self.learner, done, progress) {
            Err(error @ TrainError::Image { .. }) => {
                progress.note(&self.note_without_images(done, error)?);
                return Ok(());
            }
            evaluated => evaluated?,
        };
        log.write_evaluation(done, &report.values)?;
        let strip = self
            .folder
            .samples()
            .join(format!("neighbours-{done:06}.png"));
        if let Some(picture) = &report.strip {
            sdft_imaging::write_png(&strip, picture)?;
            log.picture(done, "neighbours", &strip)?;
        }
        let better = is_best(position, report.score);
        if better {
            let weights = self.learner.averaged_model()?;
            let bad = not_finite(weights.iter().map(|(name, t)| (name.as_str(), t)))?;
            if !bad.is_empty() {
                return Err(TrainError::NotFinite {
                    step: done,
                    names: bad,
                });
            }
            keep_best(
                self.folder,
                done,
                &weights,
                &self.files(position).of_model()?,
            )?;
        }
        let shown: Vec<String> = report
            .values
            .iter()
            .map(|(name, value)| match name.as_str() {
                "eval.kid" => format!("KID x1000 {value:.4}"),
                "eval.kid_error" => format!("± {value:.4}"),
                name => format!("{} {value:.4}", name.trim_start_matches("eval.")),
            })
            .collect();
        let mark = if better { ", the best so far" } else { "" };
        progress.note(&format!("step {done}: {}{mark}", shown.join(" ")));
        if is_exhausted(position, &plan.eval) {
            progress.note(&exhausted(position));
        }
        Ok(())
    }

    fn is_over(&self, position: &Position) -> bool {
        is_exhausted(position, &self.plan.eval)
    }

    fn draw_samples(&mut self, step: u64, progress: &mut dyn Progress) -> Result<Option<PathBuf>> {
        match self.draw(step, progress) {
            Err(error @ TrainError::Image { .. }) => {
                progress.note(&self.note_without_images(step, error)?);
                Ok(None)
            }
            drawn => {
                let path = drawn?;
                progress.note(&format!("samples: {}", path.display()));
                Ok(Some(path))
            }
        }
    }

    fn state(&mut self, position: &mut Position) -> Result<TrainingState> {
        self.learner.state(position)
    }

    fn metadata(&self, position: &Position) -> Result<BTreeMap<String, String>> {
        self.files(position).of_variables()
    }

    fn saved(&mut self, position: &Position) -> Result<()> {
        publish_best(self.folder, position)
    }

    fn finish(&mut self, position: &Position, progress: &mut dyn Progress) -> Result<Finished> {
        let path = self
            .files(position)
            .write(self.folder, self.learner.updater())?;
        let drawn = self.draw(position.step, progress);
        let picture = drawn.map_err(|error| match error {
            TrainError::Image { .. } => TrainError::Evaluation(format!(
                "samples of {} after step {}: {error}",
                path.display(),
                position.step
            )),
            other => other,
        })?;
        Ok(Finished {
            model: path,
            shown: picture,
        })
    }
}

fn exhausted(position: &Position) -> String {
    let (step, _) = position.best.unwrap_or_default();
    format!(
        "no improvement in {} evaluations since step {step}: the run ends here, its best model is best.safetensors; --set eval.patience=0 continues",
        position.evaluations_since_best
    )
}
