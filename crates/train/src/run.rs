//! Fine-tuning a U-Net.

use crate::audit::audit_gradients;
use crate::drive::{
    Ending, Progress, Stepped, Task, drive, due, file_name, not_finite, provenance,
};
use crate::error::{Result, TrainError};
use crate::evaluator::{
    Evaluation, Evaluator, check_best, is_best, is_exhausted, keep_best, publish_best,
};
use crate::folder::RunFolder;
use crate::follow::share_start;
use crate::learner::{Learner, Outcome, PendingStep};
use crate::log::Log;
use crate::plan::{Method, Plan, Precision};
use crate::preview::Preview;
use crate::snapshot::{Position, Snapshot};
use crate::update::State;
use candle_core::{DType, Device, Tensor};
use sdft_adm::Unet;
use sdft_cuda::allow_tf32;
use sdft_data::{Augment, Batch, Batches, ImageSource};
use sdft_diffusion::Denoiser;
use sdft_models::{save_unet, unet_metadata};
use sdft_nn::Params;
use sdft_parallel::{Command, ProcessGroup};
use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// What a run is made of.
pub struct Setup {
    /// The plan, validated and resolved.
    pub plan: Plan,
    /// Where it writes.
    pub folder: RunFolder,
    /// The source model's weights, unless the method is `scratch`.
    pub source: Option<Params>,
    /// The images.
    pub data: Arc<dyn ImageSource>,
    /// What samples are looked at with; needed where the plan evaluates.
    pub evaluator: Option<Evaluator>,
    /// Where it computes.
    pub device: Device,
    /// Who else works at it; this process leads.
    pub peers: Arc<ProcessGroup>,
}

/// Trains from the newest whole checkpoint in the folder, or from the start, until the steps are done or `stop` is set.
///
/// # Errors
/// [`TrainError::Diverged`] after several steps in a row without finite numbers; a failed audit; files that cannot be written.
pub fn run(setup: Setup, stop: &AtomicBool, progress: &mut dyn Progress) -> Result<Ending> {
    let Setup {
        plan,
        folder,
        source,
        data,
        evaluator,
        device,
        peers,
    } = setup;
    plan.validate()?;
    let (start, learner) = learner(&plan, source, &device, &peers)?;
    let evaluation = match evaluator {
        _ if plan.eval.every == 0 => None,
        Some(evaluator) => Some(Evaluation::new(evaluator, &plan, data.clone(), &device)?),
        None => {
            return Err(TrainError::Evaluation(
                "the plan evaluates, but there is nothing to look at samples with".into(),
            ));
        }
    };
    let batches = batches(&plan, data)?;
    let mut task = FineTuning {
        peers: peers.clone(),
        plan: &plan,
        folder: &folder,
        device: &device,
        start: Some(start),
        learner,
        issued: VecDeque::new(),
        evaluation,
        preview: None,
    };
    let pace = (&plan.steps, &plan.output);
    let ending = drive(&mut task, &folder, pace, batches, &device, stop, progress);
    match ending {
        Ok(_) => {
            // All sums were complete, so nothing of the result is missing.
            if let Err(gone) = peers.announce(Command::End) {
                progress.note(&format!("at the end, when all was done: {gone}"));
            }
        }
        Err(_) => peers.fail(),
    }
    ending
}

/// The first weights, and what learns from them.
pub(crate) fn learner(
    plan: &Plan,
    source: Option<Params>,
    device: &Device,
    peers: &Arc<ProcessGroup>,
) -> Result<(Params, Learner)> {
    let source = source
        .map(|params| params.to(DType::F32, device))
        .transpose()?;
    allow_tf32(plan.steps.precision == Precision::Tf32);
    let source_net = match (&source, plan.method) {
        (Some(params), Method::Naive | Method::Sdft) => Some(
            Unet::load(params, &plan.model)?
                .with_compute_dtype(plan.steps.precision.compute_dtype()),
        ),
        (None, Method::Scratch) => None,
        _ => return Err(TrainError::Source),
    };
    let start = match source {
        Some(params) => params,
        None => Params::init(&Unet::specs(&plan.model)?, plan.seed, device)?,
    };
    let learner = Learner::new(plan, &start, source_net)?.in_group(peers.clone())?;
    Ok((start, learner))
}

/// The batches of a plan.
pub(crate) fn batches(plan: &Plan, data: Arc<dyn ImageSource>) -> Result<Batches> {
    let augment = Augment {
        flip: plan.data.flip,
        shift: plan.data.shift,
    };
    Ok(Batches::new(data, plan.seed, plan.steps.batch, augment)?)
}

struct FineTuning<'a> {
    peers: Arc<ProcessGroup>,
    plan: &'a Plan,
    folder: &'a RunFolder,
    device: &'a Device,
    /// The first weights, until the audit has seen them.
    start: Option<Params>,
    learner: Learner,
    /// Steps whose outcome nobody has asked for yet, in order.
    issued: VecDeque<PendingStep>,
    evaluation: Option<Evaluation>,
    preview: Option<Preview>,
}

impl FineTuning<'_> {
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
            ("source", file_name(&plan.source)),
            ("source_sha256", plan.source_sha256.clone()),
            ("data", file_name(&plan.data.path)),
            ("steps", position.step.to_string()),
            ("seed", plan.seed.to_string()),
            ("weights", format!("ema {}", plan.optim.ema)),
            ("program", format!("sdft {}", env!("CARGO_PKG_VERSION"))),
        ])
    }

    /// The grid of the averaged weights, next to that of the raw ones while these draw something else.
    fn draw(&self, step: u64) -> Result<PathBuf> {
        let path = self.folder.samples().join(format!("step-{step:06}.png"));
        if let Some(preview) = &self.preview {
            let updater = &self.learner.updater;
            preview.write(self.plan, &updater.averaged()?, &updater.raw(), step, &path)?;
        }
        Ok(path)
    }

    /// What to say of samples that cannot be shown. They are no reason to end a run whose weights are finite.
    fn without_images(&self, step: u64, error: TrainError) -> Result<String> {
        let updater = &self.learner.updater;
        let mut names = not_finite(updater.averaged()?.iter())?;
        if names.is_empty() {
            names = not_finite(updater.raw().iter())?;
        }
        if names.is_empty() {
            Ok(format!("step {step}: no picture of the samples: {error}"))
        } else {
            Err(TrainError::NotFinite { step, names })
        }
    }
}

impl Task for FineTuning<'_> {
    fn audit(&mut self, few: &Tensor) -> Result<()> {
        let Some(start) = self.start.take() else {
            return Ok(());
        };
        let learner = &self.learner;
        let source = learner.source().map(|source| source as &dyn Denoiser);
        audit_gradients(
            &start,
            &self.plan.model,
            &learner.diffusion,
            &learner.objective,
            source,
            few,
            self.plan.seed,
        )
    }

    fn restore(&mut self, snapshot: Snapshot) -> Result<()> {
        self.learner.restore(snapshot, self.device)
    }

    fn begin(&mut self, position: &mut Position, progress: &mut dyn Progress) -> Result<()> {
        self.start = None;
        if self.peers.size() > 1 {
            share_start(&self.peers, &mut self.learner, position)?;
        }
        if let Some(note) = check_best(self.folder, position)? {
            progress.note(&note);
        }
        if is_exhausted(position, self.plan) && position.step < self.plan.steps.steps {
            progress.note(&exhausted(position));
        }
        let preview = Preview::new(self.plan, self.learner.source(), self.device);
        self.preview = Some(preview.map_err(|error| match error {
            TrainError::Image { .. } => {
                TrainError::Evaluation(format!("samples of the source model: {error}"))
            }
            other => other,
        })?);
        Ok(())
    }

    fn step(&mut self, step: u64, x0: &Tensor, _: &Batch) -> Result<Stepped> {
        if self.peers.size() > 1 {
            self.peers.announce(Command::Step)?;
        }
        self.issued.push_back(self.learner.issue(step, x0)?);
        // A GPU is given the next step while it is at this one.
        if self.device.is_cuda() {
            Ok(Stepped::Pending)
        } else {
            self.poll()
        }
    }

    fn poll(&mut self) -> Result<Stepped> {
        let Some(issued) = self.issued.pop_front() else {
            return Ok(Stepped::Stopped);
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
                    ("grad_norm", Some(grad_norm)),
                ];
                let known = terms.into_iter().filter_map(|(name, v)| Some((name, v?)));
                Ok(Stepped::Updated(known.collect()))
            }
            Outcome::Skipped { what } => Ok(Stepped::Skipped(what)),
        }
    }

    fn learning_rate(&self, step: u64) -> f64 {
        self.learner.updater.learning_rate(step)
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
        let weights = self.learner.updater.averaged()?;
        let findings = match evaluation.look(plan, &weights, done) {
            Err(error @ TrainError::Image { .. }) => {
                progress.note(&self.without_images(done, error)?);
                return Ok(());
            }
            looked => looked?,
        };
        log.write_evaluation(done, &findings.values)?;
        let strip = self
            .folder
            .samples()
            .join(format!("neighbours-{done:06}.png"));
        if let Some(picture) = &findings.strip {
            sdft_imaging::write_png(&strip, picture)?;
            log.picture(done, "neighbours", &strip)?;
        }
        let better = is_best(position, findings.score);
        if better {
            let bad = not_finite(weights.iter())?;
            if !bad.is_empty() {
                return Err(TrainError::NotFinite {
                    step: done,
                    names: bad,
                });
            }
            keep_best(
                self.folder,
                plan,
                done,
                &weights,
                &self.provenance(position),
            )?;
        }
        let shown: Vec<String> = findings
            .values
            .iter()
            .map(|(name, value)| match name.as_str() {
                "eval.kid" => format!("KID x1000 {value:.4}"),
                name => format!("{} {value:.4}", name.trim_start_matches("eval.")),
            })
            .collect();
        let mark = if better { ", the best so far" } else { "" };
        progress.note(&format!("step {done}: {}{mark}", shown.join(" ")));
        if is_exhausted(position, plan) {
            progress.note(&exhausted(position));
        }
        Ok(())
    }

    fn is_over(&self, position: &Position) -> bool {
        is_exhausted(position, self.plan)
    }

    fn show(&mut self, step: u64, progress: &mut dyn Progress) -> Result<Option<PathBuf>> {
        match self.draw(step) {
            Err(error @ TrainError::Image { .. }) => {
                progress.note(&self.without_images(step, error)?);
                Ok(None)
            }
            drawn => {
                let path = drawn?;
                progress.note(&format!("samples: {}", path.display()));
                Ok(Some(path))
            }
        }
    }

    fn state(&mut self, position: &mut Position) -> Result<(State, BTreeMap<String, String>)> {
        let state = self.learner.state(position)?;
        let (model, process) = (&self.plan.model, &self.plan.process);
        Ok((
            state,
            unet_metadata(model, process, &self.provenance(position))?,
        ))
    }

    fn saved(&mut self, position: &Position) -> Result<()> {
        publish_best(self.folder, position)
    }

    fn finish(&mut self, position: &Position) -> Result<(PathBuf, PathBuf)> {
        let (path, plan) = (self.folder.final_model(), self.plan);
        let weights = self.learner.updater.averaged()?;
        let provenance = self.provenance(position);
        self.folder.put(&path, |aside| {
            let (model, process) = (&plan.model, &plan.process);
            Ok(save_unet(
                aside,
                model,
                process,
                &weights,
                &provenance,
                None,
            )?)
        })?;
        let picture = self.draw(position.step).map_err(|error| match error {
            TrainError::Image { .. } => TrainError::Evaluation(format!(
                "samples of {} after step {}: {error}",
                path.display(),
                position.step
            )),
            other => other,
        })?;
        Ok((path, picture))
    }
}

fn exhausted(position: &Position) -> String {
    let (step, _) = position.best.unwrap_or_default();
    format!(
        "no improvement in {} evaluations since step {step}: the run ends here, its best is best.safetensors; --set eval.patience=0 goes on",
        position.evaluations_since_best
    )
}
