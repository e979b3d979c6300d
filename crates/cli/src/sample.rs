//! `sample`: a model -> a folder of images.

use crate::args::{ModelArgs, SampleArgs};
use crate::gallery::{interrupted, share};
use crate::job::job;
use crate::launcher::share_images;
use crate::{INTERRUPTED, console};
use anyhow::Result;
use sdft_autoencoder::{AutoencoderConfig, AutoencoderKlConfig, VqModelConfig};
use sdft_files::did_you_mean;
use sdft_jobs::{
    EMOJI_SOURCE, SampleOptions, SampleReport, TrainPlan, newest_run, sample_to_folder,
    serve_samples,
};
use sdft_models::{Architecture, LoadOptions, LoadedAutoencoder};
use sdft_runtime::usage;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

pub(crate) fn sample(args: &SampleArgs) -> Result<ExitCode> {
    let newest = || newest_run(Path::new("runs")).map(|run| run.display().to_string());
    let model = args.model.clone().or_else(newest);
    let options = SampleOptions {
        model: model.unwrap_or_else(|| EMOJI_SOURCE.to_owned()),
        load: args.file.options()?,
        n: args.n,
        batch: args.batch,
        seed: args.seed,
        sampler: args.sampler,
        steps: args.steps.clone(),
        eta: args.eta,
        churn: args.churn,
        start: args.start,
        clip: !args.no_clip,
        class: args.class.clone(),
        guidance: args.guidance,
        guide: args.guide.options(),
        size: args.size,
        out: args.out.clone(),
        overwrite: args.overwrite,
        npz: args.npz,
    };
    let lead = || {
        let report = job("sample", |context| sample_to_folder(&options, context))?;
        conclude(&report, args)
    };
    share_images(args.gpus, lead, |context| serve_samples(&options, context))
}

/// Prints the result.
fn conclude(report: &SampleReport, args: &SampleArgs) -> Result<ExitCode> {
    let Some((sheet, shown)) = &report.sheet else {
        interrupted(Some(report.complete), report.all, args.overwrite)?;
        return Ok(ExitCode::from(INTERRUPTED));
    };
    if let Some(array) = &report.array {
        console::line(format_args!("array    {}", array.display()))?;
    }
    console::line(format_args!("images   {}", args.out.display()))?;
    console::line(format_args!(
        "grid     {}{}",
        sheet.display(),
        share(*shown, report.all, "images")
    ))?;
    Ok(ExitCode::SUCCESS)
}

impl ModelArgs {
    /// Options for reading the model.
    pub(crate) fn options(&self) -> Result<LoadOptions> {
        Ok(LoadOptions {
            adapters: self.adapter.clone(),
            autoencoder: autoencoder(self.autoencoder.as_deref())?,
            ..load_options(&self.set, self.key.as_ref(), self.image_size)?
        })
    }
}

/// The autoencoder of `--autoencoder`.
pub(crate) fn autoencoder(name: Option<&str>) -> Result<Option<Arc<LoadedAutoencoder>>> {
    Ok(name.map(sdft_jobs::load_autoencoder).transpose()?)
}

/// Options for reading a model, from `--set model.FIELD=VALUE`, `--key` and `--image-size`.
pub(crate) fn load_options(
    set: &[String],
    key: Option<&String>,
    image_size: Option<usize>,
) -> Result<LoadOptions> {
    if let Some(assignment) = set
        .iter()
        .find(|set| !set.starts_with("model.") && !set.starts_with("process."))
    {
        return Err(usage(format!(
            "--set {assignment}: only fields under model. and process. can be set here"
        )));
    }
    let mut table = sdft_settings::assigned(set)?;
    check_keys(set)?;
    if let Some(size) = image_size {
        sdft_settings::put(
            &mut table,
            "model.image_size",
            i64::try_from(size).unwrap_or(i64::MAX),
        );
    }
    Ok(LoadOptions {
        given: sdft_settings::given(&table, "model"),
        given_process: sdft_settings::given(&table, "process"),
        key: key.cloned(),
        ..LoadOptions::default()
    })
}

/// The part before the fields of an autoencoder in a model's file.
const OF_AUTOENCODER: &str = "model.autoencoder.";

/// Fails unless one architecture, or an autoencoder, has all of these keys. The file that they describe is not read yet.
fn check_keys(set: &[String]) -> Result<()> {
    let all: [AutoencoderConfig; 2] = [
        AutoencoderKlConfig::default().into(),
        VqModelConfig::default().into(),
    ];
    let known: BTreeSet<String> = all
        .iter()
        .flat_map(|config| config.fields().into_iter().map(|(field, _)| field))
        .collect();
    let field = |set: &str| set.split('=').next().unwrap_or_default().trim().to_owned();
    let (of_stage, set): (Vec<String>, Vec<String>) = set
        .iter()
        .cloned()
        .partition(|set| set.starts_with(OF_AUTOENCODER));
    let fields = of_stage
        .iter()
        .filter_map(|set| set.strip_prefix(OF_AUTOENCODER));
    if let Some(unknown) = fields.map(field).find(|field| !known.contains(field)) {
        let hint = did_you_mean(&unknown, known.iter().map(String::as_str));
        return Err(usage(format!(
            "--set {OF_AUTOENCODER}{unknown}: no autoencoder has this field{hint}"
        )));
    }
    let is_known = |set: &String| {
        let field = set.strip_prefix("model.").map(field);
        field.is_some_and(|field| known.contains(&field))
    };
    let check = |architecture: Option<&str>| {
        let mut table = toml::Table::new();
        if let Some(name) = architecture {
            let key = format!("model.{}", Architecture::TAG);
            sdft_settings::put(&mut table, &key, name);
        }
        sdft_settings::set_all::<TrainPlan>(&mut table, &set)
    };
    let others = Architecture::NAMES.iter().skip(1);
    match check(None) {
        Err(_) if others.clone().any(|name| check(Some(name)).is_ok()) => Ok(()),
        Err(_) if set.iter().all(is_known) => Ok(()),
        checked => Ok(checked?),
    }
}
