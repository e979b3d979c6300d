//! The loop.

use crate::audit::audit_gradients;
use crate::error::{Result, TrainError};
use crate::examine::{
    Examination, Examiner, check_best, is_best, is_exhausted, keep_best, publish_best, write_strip,
};
use crate::folder::RunFolder;
use crate::learner::{Learner, Outcome};
use crate::log::Log;
use crate::plan::{Method, Plan};
use crate::preview::Preview;
use crate::snapshot::{self, Position};
use candle_core::{Device, Tensor};
use sdft_adm::Unet;
use sdft_data::{Augment, Batch, Batches, ImageSource, Prefetcher};
use sdft_diffusion::Denoiser;
use sdft_models::{save_unet, unet_metadata};
use sdft_nn::Params;
use sdft_optim::non_finite;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Images that the audit looks at.
const AUDITED: usize = 2;

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
    pub examiner: Option<Examiner>,
    /// Where it computes.
    pub device: Device,
}

/// A run's state after a step, for whoever watches.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
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
pub trait Watcher {
    /// After every step.
    fn progress(&mut self, progress: &Progress);
    /// Something worth a line: a checkpoint passed over, a picture written, a step skipped.
    fn note(&mut self, text: &str);
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// All steps are done; the model and the last picture.
    Finished {
        /// The averaged weights.
        model: PathBuf,
        /// The last grid.
        picture: PathBuf,
    },
    /// Stopped between two steps; everything is in this checkpoint.
    Interrupted {
        /// Where to go on from.
        checkpoint: PathBuf,
    },
}

/// Trains from the newest whole checkpoint in the folder, or from the start, until the steps are done or `stop` is set.
///
/// # Errors
/// [`TrainError::Diverged`] after several steps in a row without finite numbers; a failed audit; files that cannot be written.
pub fn run(setup: Setup, stop: &AtomicBool, watcher: &mut dyn Watcher) -> Result<Ending> {
    let Setup {
        plan,
        folder,
        source,
        data,
        examiner,
        device,
    } = setup;
    plan.validate()?;
    snapshot::sweep(&folder)?;
    let source_net = match (&source, plan.method) {
        (Some(params), Method::Naive | Method::Sdft) => Some(Unet::load(params, &plan.model)?),
        (None, Method::Scratch) => None,
        _ => {
            return Err(TrainError::Folder {
                path: folder.root().to_owned(),
                problem: "the source model does not fit the method".into(),
            });
        }
    };
    let start = match source {
        Some(params) => params,
        None => Params::init(&Unet::specs(&plan.model)?, plan.seed, &device)?,
    };
    let mut learner = Learner::new(&plan, &start, source_net)?;

    let augment = Augment {
        flip: plan.data.flip,
        shift: plan.data.shift,
    };
    let examination = match examiner {
        _ if plan.eval.every == 0 => None,
        Some(examiner) => Some(Examination::new(examiner, &plan, data.clone(), &device)?),
        None => {
            return Err(TrainError::Evaluation(
                "the plan evaluates, but there is nothing to look at samples with".into(),
            ));
        }
    };
    let batches = Batches::new(data, plan.seed, plan.steps.batch, augment)?;
    let (found, broken) = snapshot::load_newest(&folder)?;
    for problem in broken {
        watcher.note(&format!("passed over a broken checkpoint: {problem}"));
    }
    let mut position = Position::default();
    let mut last_checkpoint = None;
    let mut saved_at = None;
    match found {
        Some(found) => {
            position = found.position.clone();
            watcher.note(&format!(
                "going on from {} (step {})",
                found.path.display(),
                position.step
            ));
            last_checkpoint = Some(found.path.clone());
            saved_at = Some(position.step);
            learner.restore(found, &device)?;
        }
        None => {
            let few = to_tensor(&batches.batch(0)?, &device)?.narrow(
                0,
                0,
                AUDITED.min(plan.steps.batch),
            )?;
            let source = learner.source().map(|source| source as &dyn Denoiser);
            audit_gradients(
                &start,
                &plan.model,
                &learner.diffusion,
                &learner.objective,
                source,
                &few,
                plan.seed,
            )?;
            watcher.note("gradient audit: every tensor gets a finite gradient");
        }
    }
    drop(start);
    if let Some(note) = check_best(&folder, &mut position) {
        watcher.note(&note);
    }
    if is_exhausted(&position, &plan) && position.step < plan.steps.steps {
        watcher.note(&exhausted(&position));
    }
    let preview = Preview::new(&plan, learner.source(), &device)?;
    let mut log = Log::open(&folder, position.log_bytes, position.event_bytes)?;
    let mut prefetch = Prefetcher::new(batches, position.step);
    let mut clock = Instant::now();
    let mut since = 0;

    while position.step < plan.steps.steps
        && !is_exhausted(&position, &plan)
        && !stop.load(Ordering::Relaxed)
    {
        let step = position.step;
        let step_started = Instant::now();
        let x0 = to_tensor(&prefetch.next()?, &device)?;
        match learner.step(step, &x0)? {
            Outcome::Updated { report, grad_norm } => {
                position.skipped_in_row = 0;
                position.sums.add(&report, grad_norm);
            }
            Outcome::Skipped { what } => {
                position.skipped += 1;
                position.skipped_in_row += 1;
                watcher.note(&format!(
                    "step {}: the {what} is not finite, the step is skipped",
                    step + 1
                ));
                if position.skipped_in_row >= plan.steps.max_skips {
                    let skips = position.skipped_in_row;
                    return Err(TrainError::Diverged {
                        step: step + 1,
                        what,
                        skips,
                        checkpoint: last_checkpoint,
                    });
                }
            }
        }
        position.step += 1;
        since += plan.steps.batch as u64;
        let done = position.step;
        if let Some(examination) = &examination
            && due(done, plan.eval.every)
            && position.skipped_in_row == 0
        {
            let weights = learner.averaged()?;
            let findings = examination.look(&plan, &weights, done)?;
            log.write_evaluation(done, &findings.values)?;
            let strip = folder.samples().join(format!("neighbours-{done:06}.png"));
            write_strip(findings.strip.as_ref(), &strip)?;
            let better = is_best(&mut position, findings.score);
            if better {
                let bad = not_finite(weights.iter())?;
                if !bad.is_empty() {
                    return Err(TrainError::NotFinite {
                        step: done,
                        names: bad,
                    });
                }
                keep_best(
                    &folder,
                    &plan,
                    done,
                    &weights,
                    &provenance(&plan, &position),
                )?;
            }
            let shown: Vec<String> = findings
                .values
                .iter()
                .map(|(name, value)| format!("{} {value:.4}", name.trim_start_matches("eval.")))
                .collect();
            let mark = if better { ", the best so far" } else { "" };
            watcher.note(&format!("step {done}: {}{mark}", shown.join(" ")));
            if is_exhausted(&position, &plan) {
                watcher.note(&exhausted(&position));
            }
        }
        let last = done == plan.steps.steps || is_exhausted(&position, &plan);
        let images = done * plan.steps.batch as u64;
        let images_per_second = since as f64 / clock.elapsed().as_secs_f64().max(1e-9);
        let mut means = None;
        if due(done, plan.output.log_every) || last {
            let values = position.sums.take();
            log.write(
                done,
                images,
                learner.learning_rate(step),
                position.skipped,
                &values,
                images_per_second,
            )?;
            means = Some(values);
        }
        watcher.progress(&Progress {
            step: done,
            steps: plan.steps.steps,
            images,
            step_seconds: step_started.elapsed().as_secs_f64(),
            images_per_second,
            means: means.clone(),
        });
        if means.is_some() {
            clock = Instant::now();
            since = 0;
        }
        if due(done, plan.output.sample_every) && !last {
            let path = folder.samples().join(format!("step-{done:06}.png"));
            preview.write(&plan, &learner.averaged()?, done, &path)?;
            watcher.note(&format!("samples: {}", path.display()));
        }
        // After a skipped step the weights may be what made it so: the last good checkpoint stays the last.
        if due(done, plan.output.checkpoint_every) && !last && position.skipped_in_row == 0 {
            last_checkpoint = Some(save(&folder, &plan, &learner, &mut position, &mut log)?);
            publish_best(&folder, &position)?;
            saved_at = Some(done);
        }
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
        _ => save(&folder, &plan, &learner, &mut position, &mut log)?,
    };
    publish_best(&folder, &position)?;
    if position.step < plan.steps.steps && !is_exhausted(&position, &plan) {
        return Ok(Ending::Interrupted { checkpoint });
    }
    let picture = folder
        .samples()
        .join(format!("step-{:06}.png", position.step));
    let weights = learner.averaged()?;
    preview.write(&plan, &weights, position.step, &picture)?;
    let model = folder.final_model();
    save_unet(
        &model,
        &plan.model,
        &plan.process,
        &weights,
        &provenance(&plan, &position),
        None,
    )?;
    Ok(Ending::Finished { model, picture })
}

fn exhausted(position: &Position) -> String {
    let (step, _) = position.best.unwrap_or_default();
    format!(
        "no improvement in {} evaluations since step {step}: the run ends here, its best is best.safetensors; --set eval.patience=0 goes on",
        position.evaluations_since_best
    )
}

fn due(step: u64, every: u64) -> bool {
    every > 0 && step.is_multiple_of(every)
}

fn save(
    folder: &RunFolder,
    plan: &Plan,
    learner: &Learner,
    position: &mut Position,
    log: &mut Log,
) -> Result<PathBuf> {
    let [weights, ema, optimizer] = learner.tensors()?;
    let broken = not_finite(
        weights
            .iter()
            .chain(&ema)
            .map(|(name, tensor)| (name.as_str(), tensor)),
    )?;
    if !broken.is_empty() {
        return Err(TrainError::NotFinite {
            step: position.step,
            names: broken,
        });
    }
    (position.log_bytes, position.event_bytes) = log.sync()?;
    learner.note(position);
    let metadata = unet_metadata(&plan.model, &plan.process, &provenance(plan, position))?;
    snapshot::save(
        folder,
        position,
        [&weights, &ema, &optimizer],
        &metadata,
        plan.output.keep,
    )
}

/// Names of tensors with an entry that is infinite or not a number.
fn not_finite<'a>(tensors: impl Iterator<Item = (&'a str, &'a Tensor)>) -> Result<Vec<String>> {
    let (names, values): (Vec<&str>, Vec<Option<Tensor>>) = tensors
        .map(|(name, tensor)| (name, Some(tensor.clone())))
        .unzip();
    Ok(non_finite(names, &values)?
        .into_iter()
        .map(str::to_owned)
        .collect())
}

fn to_tensor(batch: &Batch, device: &Device) -> Result<Tensor> {
    let [n, c, h, w] = batch.shape;
    Ok(Tensor::from_slice(&batch.data, (n, c, h, w), device)?)
}

/// How the model came to be, for its file's metadata.
fn provenance(plan: &Plan, position: &Position) -> BTreeMap<String, String> {
    let method = match plan.method {
        Method::Scratch => "scratch",
        Method::Naive => "naive",
        Method::Sdft => "sdft",
    };
    [
        ("run", plan.name.clone()),
        ("method", method.to_owned()),
        ("source", file_name(&plan.source)),
        ("source_sha256", plan.source_sha256.clone()),
        ("data", file_name(&plan.data.path)),
        ("steps", position.step.to_string()),
        ("seed", plan.seed.to_string()),
        ("weights", format!("ema {}", plan.optim.ema)),
        ("program", format!("sdft {}", env!("CARGO_PKG_VERSION"))),
    ]
    .into_iter()
    .filter(|(_, value)| !value.is_empty())
    .map(|(key, value)| (key.to_owned(), value))
    .collect()
}

/// The last part of a path: where things lay on somebody's disk is nobody else's business.
fn file_name(path: &str) -> String {
    let name = std::path::Path::new(path).file_name();
    name.map_or_else(
        || path.to_owned(),
        |name| name.to_string_lossy().into_owned(),
    )
}
