//! What methods of fine-tuning other than SDFT need: samples of the source model, and ANT's classifier.

use super::finetune::FITTED;
use super::networks::{TrainPlan, resolved_form};
use super::options::make_absolute;
use crate::cache::CacheLocation;
use crate::classifier::load_classifier;
use crate::context::Context;
use crate::data::{fingerprint, open_data};
use crate::error::{Error, Result, failed, usage};
use crate::model::{all_fields, fields_of};
use crate::sample::{SampleOptions, SamplerKind, sample_to_folder};
use candle_core::Tensor;
use sdft_data::ImageSource;
use sdft_imaging::ImageSpec;
use sdft_models::{LoadOptions, LoadedEncoder, LoadedModel};
use sdft_train::{DataPlan, LogProbGradient, MethodInputs};
use std::sync::Arc;

/// The label of the target domain in a classifier of both.
const TARGET: u32 = 1;

/// ANT's classifier, if the plan has one. Its path and hash go into the plan.
///
/// # Errors
/// No such file, or a classifier of other images or another process than the source model's.
pub(super) fn ant_classifier(
    plan: &mut TrainPlan,
    source: &LoadedModel,
    spec: &ImageSpec,
    context: &mut Context<'_>,
) -> Result<Option<LoadedEncoder>> {
    let ant = &mut plan.loss.ant;
    if ant.guidance == 0.0 {
        return Ok(None);
    }
    let wrong = |problem: String| usage(format!("loss.ant.classifier: {problem}"));
    let (path, classifier) = load_classifier(&ant.classifier, source, spec, &wrong, context)?;
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
    context: &mut Context<'_>,
) -> Result<MethodInputs> {
    let bank = match plan.needs_bank() {
        true => Some(bank(plan, context)?),
        false => None,
    };
    let classifier = match classifier {
        Some(classifier) => {
            let net = context.runtime(plan.steps.precision).encoder(classifier)?;
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
fn bank(plan: &TrainPlan, context: &mut Context<'_>) -> Result<Arc<dyn ImageSource>> {
    let given = &plan.loss.bank;
    let path = match given.path.is_empty() {
        true => sampled(plan, context)?,
        false => given.path.clone(),
    };
    let images = DataPlan {
        path,
        ..DataPlan::default()
    };
    let bank = open_data(&images, &resolved_form(plan), context)
        .map_err(|error| failed(format!("loss.bank: {error}")))?;
    if !given.fingerprint.is_empty() && given.fingerprint != fingerprint(bank.as_ref())? {
        return Err(usage(format!(
            "loss.bank.path: the images in {} have changed since the run began",
            given.path
        )));
    }
    Ok(bank)
}

/// Makes the path of a given bank absolute and records its images in the plan.
///
/// # Errors
/// The folder cannot be read.
pub(super) fn fix_bank(plan: &mut TrainPlan, context: &mut Context<'_>) -> Result<()> {
    if plan.needs_bank() && !plan.loss.bank.path.is_empty() {
        make_absolute(&mut plan.loss.bank.path);
        plan.loss.bank.fingerprint = fingerprint(bank(plan, context)?.as_ref())?;
    }
    Ok(())
}

/// The folder of samples of the source model, in the user's cache. Its name is the hash of everything that decides them.
fn sampled(plan: &TrainPlan, context: &mut Context<'_>) -> Result<String> {
    let bank = &plan.loss.bank;
    let Some(folder) = CacheLocation::User.folder("banks") else {
        return Err(usage(
            "loss.bank.path: there is no user cache folder (HOME is not set); give a folder of images".to_owned(),
        ));
    };
    let identity = serde_json::to_vec(&(
        &plan.source_sha256,
        &plan.source_key,
        &plan.process,
        &bank.sampler,
        bank.images,
        plan.model.sides(),
    ))?;
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
            ..LoadOptions::default()
        },
        n: bank.images,
        sampler: Some(SamplerKind::Ddim),
        steps: Some(bank.sampler.clone()),
        out: out.clone(),
        ..SampleOptions::default()
    };
    let report = sample_to_folder(&options, context)?;
    if report.complete < report.all {
        return Err(Error::Interrupted);
    }
    Ok(out.display().to_string())
}
