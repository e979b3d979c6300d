//! What methods of fine-tuning other than SDFT need: samples of the source model, and ANT's classifier.

use super::finetune::FITTED;
use super::networks::{TrainPlan, resolved_form};
use super::options::make_absolute;
use crate::cache::CacheLocation;
use crate::classifier::load_classifier;
use crate::context::Context;
use crate::data::{fingerprint, open_data};
use crate::error::{Error, Result, ResultExt as _, failed, usage};
use crate::files::write_file;
use crate::latents::with_latents;
use crate::model::{all_fields, fields_of};
use crate::sample::{SampleOptions, SampleReport, SamplerKind, sample_to_folder};
use candle_core::Tensor;
use sdft_data::ImageSource;
use sdft_models::{LoadOptions, LoadedAutoencoder, LoadedEncoder, LoadedModel};
use sdft_train::{DataPlan, LogProbGradient, MethodInputs, Precision};
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// The label of the target domain in a classifier of both.
const TARGET: u32 = 1;

/// ANT's classifier, if the plan has one. Its path and hash go into the plan.
///
/// # Errors
/// No such file, or a classifier of other images or another process than the source model's.
pub(super) fn ant_classifier(
    plan: &mut TrainPlan,
    source: &LoadedModel,
    shape: [usize; 3],
    context: &mut Context<'_>,
) -> Result<Option<LoadedEncoder>> {
    let ant = &mut plan.loss.ant;
    if ant.guidance == 0.0 {
        return Ok(None);
    }
    let wrong = |problem: String| usage(format!("loss.ant.classifier: {problem}"));
    let (path, classifier) = load_classifier(&ant.classifier, source, shape, &wrong, context)?;
    if !ant.classifier_sha256.is_empty() && ant.classifier_sha256 != classifier.sha256 {
        return Err(wrong(format!(
            "{path} has changed since the run began: its SHA-256 was {}, now it is {}",
            ant.classifier_sha256, classifier.sha256
        )));
    }
    ant.classifier_sha256.clone_from(&classifier.sha256);
    ant.classifier = path;
    Ok(Some(classifier))
}

/// The inputs of a run of this plan. Samples of the source model are made if they are not cached.
///
/// # Errors
/// The samples cannot be made or read, or the user stopped the program meanwhile.
pub(super) fn method_inputs(
    plan: &TrainPlan,
    classifier: Option<&LoadedEncoder>,
    autoencoder: Option<&Arc<LoadedAutoencoder>>,
    context: &mut Context<'_>,
) -> Result<MethodInputs> {
    let bank = match (plan.needs_bank(), autoencoder) {
        (false, _) => None,
        (true, None) => Some(bank(plan, None, context)?),
        (true, Some(autoencoder)) => {
            let images = bank(plan, Some(autoencoder), context)?;
            Some(with_latents(images, autoencoder, false, context)?)
        }
    };
    let classifier = match classifier {
        Some(classifier) => {
            let net = context
                .runtime_in(plan.steps.precision)
                .encoder(classifier)?;
            let gradient = move |xt: &Tensor, steps: &[f32]| {
                net.guidance(xt, steps, &vec![TARGET; steps.len()], 1.0)
            };
            Some(Box::new(gradient) as LogProbGradient)
        }
        None => None,
    };
    Ok(MethodInputs { bank, classifier })
}

/// The images of the plan's bank.
fn bank(
    plan: &TrainPlan,
    autoencoder: Option<&Arc<LoadedAutoencoder>>,
    context: &mut Context<'_>,
) -> Result<Arc<dyn ImageSource>> {
    let given = &plan.loss.bank;
    let path = match given.path.is_empty() {
        true => sampled(plan, autoencoder, context)?,
        false => given.path.clone(),
    };
    let images = DataPlan {
        path: path.clone(),
        ..DataPlan::default()
    };
    let bank = open_data(&images, &resolved_form(plan), context)
        .map_err(|error| failed(format!("loss.bank: {error}")))?;
    if !given.fingerprint.is_empty() && given.fingerprint != fingerprint(bank.as_ref())? {
        return Err(usage(format!(
            "loss.bank: the images in {path} are not those that the run began with; restore them, or give a copy with --set loss.bank.path=DIR"
        )));
    }
    Ok(bank)
}

/// Records the bank of a run in its folder, or fails if the run began with another one: a cleared cache may have been filled again on
/// another device.
///
/// # Errors
/// Another bank, or the file system fails.
pub(super) fn pin_bank(folder: &Path, bank: &dyn ImageSource) -> Result<String> {
    let (path, found) = (folder.join("bank.sha256"), fingerprint(bank)?);
    match std::fs::read_to_string(&path) {
        Ok(text) if text.trim() == found => {}
        Ok(_) => {
            return Err(usage(format!(
                "loss.bank: the samples of the source model are not those that the run began with, whose hash is in {}; give a copy of \
                 those with --set loss.bank.path=DIR, or start a new run",
                path.display()
            )));
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            write_file(&path, format!("{found}\n").as_bytes())?;
        }
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
    Ok(found)
}

/// Makes the path of a given bank absolute and records its images in the plan.
///
/// # Errors
/// The folder cannot be read.
pub(super) fn fix_bank(plan: &mut TrainPlan, context: &mut Context<'_>) -> Result<()> {
    if plan.needs_bank() && !plan.loss.bank.path.is_empty() {
        make_absolute(&mut plan.loss.bank.path);
        plan.loss.bank.fingerprint = fingerprint(bank(plan, None, context)?.as_ref())?;
    }
    Ok(())
}

/// Samples into a folder. While another process or thread fills it, this one waits.
fn sampled_by_one(options: &SampleOptions, context: &mut Context<'_>) -> Result<SampleReport> {
    let mut waits = false;
    loop {
        match sample_to_folder(options, context) {
            Err(error) if is_locked(&error) => {
                if context.is_stopped() {
                    return Err(Error::Interrupted);
                }
                if !waits {
                    let out = options.out.display();
                    context.notes([format!(
                        "waiting for the samples in {out}, which another run makes"
                    )]);
                }
                waits = true;
                std::thread::sleep(Duration::from_millis(300));
            }
            sampled => return sampled,
        }
    }
}

fn is_locked(error: &Error) -> bool {
    match error {
        Error::Output { source, .. } => matches!(source, sdft_gallery::Error::Locked { .. }),
        Error::Context { source, .. } | Error::InOption { source, .. } => is_locked(source),
        _ => false,
    }
}

/// The folder of samples of the source model, in the user's cache. Its name is the hash of everything that decides them.
fn sampled(
    plan: &TrainPlan,
    autoencoder: Option<&Arc<LoadedAutoencoder>>,
    context: &mut Context<'_>,
) -> Result<String> {
    let bank = &plan.loss.bank;
    let Some(folder) = CacheLocation::User.folder("banks") else {
        return Err(usage(
            "loss.bank.path: there is no user cache folder (HOME is not set); give a folder of images".to_owned(),
        ));
    };
    let precision = context.precision_or(Precision::Auto);
    let mut identity = serde_json::to_vec(&(
        &plan.source_sha256,
        &plan.source_key,
        &plan.process,
        &bank.sampler,
        bank.images,
        plan.model.sides(),
        // A folder of samples belongs to a path and a precision.
        &plan.source,
        format!("{precision:?}"),
    ))?;
    identity.extend(
        autoencoder
            .iter()
            .flat_map(|stage| stage.record.sha256.bytes()),
    );
    let out = folder.join(&sdft_files::sha256_bytes(&identity)[..32]);
    let mut model = fields_of(&plan.model);
    for field in FITTED {
        model.remove(field);
    }
    let options = SampleOptions {
        model: plan.source.clone(),
        load: LoadOptions {
            given: model,
            given_process: all_fields(&plan.process),
            key: (!plan.source_key.is_empty()).then(|| plan.source_key.clone()),
            autoencoder: autoencoder.cloned(),
            ..LoadOptions::default()
        },
        n: bank.images,
        sampler: Some(SamplerKind::Ddim),
        steps: Some(bank.sampler.clone()),
        out: out.clone(),
        ..SampleOptions::default()
    };
    // The samples are training data, so their precision does not depend on the processor.
    let given = context.precision.replace(precision);
    let report = sampled_by_one(&options, context);
    context.precision = given;
    let report = report?;
    if report.complete < report.all {
        return Err(Error::Interrupted);
    }
    Ok(out.display().to_string())
}
