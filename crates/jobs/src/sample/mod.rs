//! Samples of a model in a folder.

mod plan;
mod sampler;
mod together;

pub use plan::{Churn, SamplePlan, SamplerKind};
pub use sampler::Sampler;

use crate::condition::{label_of, names_of_classes, null_for};
use crate::context::Context;
use crate::embedded::EMOJI_SOURCE;
use crate::error::{Result, ResultExt as _, option};
use crate::guide::{Guide, GuideOptions};
use crate::model::{ModelFile, check_seed, form_of, load_model, recorded_form};
use crate::shared::{announce, announced, check_same};
use sdft_diffusion::{Continuous, TimeUnit};
use sdft_files::plural;
use sdft_gallery::{
    Outputs, check_folder, check_sheet, full_path, recorded_names, space_warning, usual_batch,
    write_sheet,
};
use sdft_imaging::ImageSpec;
use sdft_models::{LoadOptions, LoadedModel};
use sdft_train::{Precision, Size};
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use together::{sheet, write_arrays};

/// The most images of one folder.
const MOST: usize = 10_000_000;

/// Options of a set of samples.
#[derive(Clone, Debug)]
pub struct SampleOptions {
    /// The model: a file, a run folder, or the name of an embedded model.
    pub model: String,
    /// Settings that the model's file does not state.
    pub load: LoadOptions,
    /// Number of images.
    pub n: usize,
    /// Images per batch.
    pub batch: usize,
    /// Seed; image `i` depends on the seed and on `i` only.
    pub seed: u64,
    /// The sampler; if absent, that of [`SamplerKind::usual`].
    pub sampler: Option<SamplerKind>,
    /// Its steps; if absent, [`SamplerKind::usual_steps`]. DDIM and DDPM: `ddim40` (a stride), `250` (evenly spread), `10,15,20` (per
    /// section), or empty for all. The others: their number.
    pub steps: Option<String>,
    /// DDIM only: share of fresh noise, 0 to 1.
    pub eta: f64,
    /// Heun's sampler only: fresh noise.
    pub churn: Option<Churn>,
    /// The share of the process at which samples begin, above 0 up to 1.
    pub start: f64,
    /// Whether predicted images are clamped to [-1, 1]; Heun's sampler and Euler's never do.
    pub clip: bool,
    /// The class of every image, by name or number; if absent, image `i` of a class-conditional model is of class `i` mod the number of
    /// classes, so that all are equally frequent.
    pub class: Option<String>,
    /// The scale of classifier-free guidance; 1 is none. Other scales need a model with a null class, and two evaluations for each.
    pub guidance: Option<f64>,
    /// A model that images are guided away from.
    pub guide: Option<GuideOptions>,
    /// Height and width in pixels; the model's own if absent.
    pub size: Option<Size>,
    /// The folder of the images.
    pub out: PathBuf,
    /// Whether images of other settings are replaced.
    pub overwrite: bool,
    /// Whether guided-diffusion's `samples_NxHxWxC.npz` is written, too.
    pub npz: bool,
}

impl Default for SampleOptions {
    /// 16 images of the embedded emoji model, into `samples`.
    fn default() -> Self {
        Self {
            model: EMOJI_SOURCE.to_owned(),
            load: LoadOptions::default(),
            n: 16,
            batch: 16,
            seed: 0,
            sampler: None,
            steps: None,
            eta: 0.0,
            churn: None,
            start: 1.0,
            clip: true,
            class: None,
            guidance: None,
            guide: None,
            size: None,
            out: PathBuf::from("samples"),
            overwrite: false,
            npz: false,
        }
    }
}

/// Samples in a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SampleReport {
    /// Number of complete images; fewer than requested if the job was stopped.
    pub complete: usize,
    /// Number of requested images.
    pub all: usize,
    /// The array of the images, where it was asked for and they are complete.
    pub array: Option<PathBuf>,
    /// The contact sheet and how many images it shows, where they are complete.
    pub sheet: Option<(PathBuf, usize)>,
}

/// Draws images from a model into a folder. Complete images of the same settings stay, so that a stopped job continues.
///
/// # Errors
/// An option does not fit the model, the folder holds something else, or an image cannot be made.
pub fn sample_to_folder(
    options: &SampleOptions,
    context: &mut Context<'_>,
) -> Result<SampleReport> {
    let SampleOptions { n, out, .. } = options;
    let Prepared {
        name,
        form,
        sampler,
    } = prepare(options, context)?;
    let n = *n;
    check_sheet(out)?;
    check_folder(out, sampler.plan(), options.overwrite)?;
    refuse_leftovers(out, &sampler, n, options.overwrite)?;
    announce(sampler.plan(), context)?;
    context.note_precision(sampler.plan().precision);
    (context.on_start)();
    let mut outputs = Outputs::open(out, sampler.plan(), options.overwrite)?;
    context.progress.note(&format!(
        "{} of {form} from {name}, {}; writes {}",
        plural(n, "image", "images"),
        plural(sampler.steps(), "step", "steps"),
        out.display()
    ));
    let arrays = if options.npz { 2 } else { 1 };
    let bytes = n * form.len() * form.depth.bytes();
    context.notes(space_warning(out, (arrays * bytes) as u64));
    let complete = sampler.fill(&mut outputs, n, options.batch, context)?;
    let mut report = SampleReport {
        complete,
        all: n,
        array: None,
        sheet: None,
    };
    if complete < n {
        return Ok(report);
    }
    if options.npz {
        report.array = Some(write_arrays(&mut outputs, &sampler, n)?);
    }
    let (picture, shown) = sheet(&outputs, &sampler, n)?;
    report.sheet = Some((write_sheet(out, &picture)?, shown));
    Ok(report)
}

/// On the other ranks of [`Context::group`]: draws images for rank 0's [`sample_to_folder`] with the same options until it ends.
///
/// # Errors
/// A model that is not that of rank 0; rank 0 fails or disconnects.
pub fn serve_samples(options: &SampleOptions, context: &mut Context<'_>) -> Result<()> {
    let announced = announced(context)?;
    let Prepared { sampler, .. } = prepare(options, context)?;
    check_same(&announced, sampler.plan(), context)?;
    sampler.serve(options.batch, context)
}

/// What options choose.
struct Prepared {
    /// The model's file or name.
    name: String,
    /// The form of the images.
    form: ImageSpec,
    sampler: Sampler,
}

fn prepare(options: &SampleOptions, context: &mut Context<'_>) -> Result<Prepared> {
    check(options)?;
    let name = ModelFile::find(&options.model)?.noted(context);
    let model = load_model(&name, &options.load)?;
    context.notes(&model.notes);
    let form = form_of(&name, &model, options.size)?;
    null_for(options.guidance, &model)?;
    let class = options.class.as_deref();
    let class = class
        .map(|class| label_of("class", class, &model))
        .transpose()?;
    let usual = || SamplerKind::usual(&model.process);
    let sampler = options.sampler.unwrap_or_else(usual);
    check_noise(options, sampler)?;
    let is_flow = matches!(model.process.continuous, Some(Continuous::Flow(_)));
    if options.churn.is_some() && is_flow {
        return Err(option(
            "churn",
            "expected a model that is called with sigma or steps, found a flow, whose heun adds no noise",
        ));
    }
    let steps = options.steps.as_deref();
    let precision = context.fast_precision_or(Precision::Auto);
    let (runtime, of_guide) = (context.runtime_in(precision), options.guide.as_ref());
    let continuous = model.process.continuous;
    let time = continuous.map_or(TimeUnit::Steps, |continuous| continuous.time_unit());
    let guide = Guide::load(
        of_guide,
        &model,
        model.state_shape(&form),
        &runtime,
        time,
        context,
    )?;
    let plan = SamplePlan {
        model: full_path(&name),
        network_sha256: model.network_sha256()?,
        autoencoder_sha256: model.autoencoder_sha256(),
        image_size: form.height.max(form.width),
        seed: options.seed,
        sampler,
        steps: steps.unwrap_or(sampler.usual_steps()).to_owned(),
        eta: (sampler == SamplerKind::Ddim).then_some(options.eta),
        churn: options.churn,
        start: options.start,
        clip: options.clip && !matches!(sampler, SamplerKind::Heun | SamplerKind::Euler),
        class,
        classes: names_of_classes(&model, class),
        guidance: options.guidance.filter(|guidance| *guidance != 1.0),
        guide: guide.as_ref().map(|guide| guide.path.clone()),
        guide_sha256: guide.as_ref().map(|guide| guide.sha256.clone()),
        guide_weight: guide.as_ref().map(|guide| guide.weight),
        guide_interval: guide.as_ref().and_then(|guide| guide.interval),
        precision,
        image: recorded_form(&model, &form),
        process: model.process.clone(),
    };
    Ok(Prepared {
        sampler: Sampler::new(plan, &model, guide, context)?,
        name,
        form,
    })
}

/// Checks that need no model.
fn check(options: &SampleOptions) -> Result<()> {
    let SampleOptions { n, batch, eta, .. } = options;
    if !(1..=MOST).contains(n) {
        return Err(option("n", format!("{n}: expected 1 to {MOST}")));
    }
    if *batch == 0 {
        return Err(option("batch", "0: expected 1 or more"));
    }
    if !(0.0..=1.0).contains(eta) {
        return Err(option("eta", format!("{eta}: expected 0 to 1")));
    }
    if let Some(sampler) = options.sampler {
        check_noise(options, sampler)?;
    }
    if let Some(guide) = &options.guide {
        guide.check()?;
    }
    check_seed(options.seed)
}

/// Fails if the noise of another sampler is given.
fn check_noise(options: &SampleOptions, sampler: SamplerKind) -> Result<()> {
    let eta = options.eta;
    if sampler != SamplerKind::Ddim && eta > 0.0 {
        return Err(option(
            "eta",
            format!("{eta}: belongs to ddim, the sampler is {sampler}"),
        ));
    }
    match options.churn {
        Some(_) if sampler != SamplerKind::Heun => Err(option(
            "churn",
            format!("belongs to heun, the sampler is {sampler}"),
        )),
        _ => Ok(()),
    }
}

/// Draws the paper's samples of a model into `folder`; complete ones stay. Returns false if the job is stopped.
///
/// # Errors
/// The folder holds something else, or an image cannot be made.
pub fn sample_as_in_the_paper(
    model: &LoadedModel,
    name: &str,
    folder: &Path,
    n: usize,
    seed: u64,
    context: &mut Context<'_>,
) -> Result<bool> {
    (context.on_start)();
    let plan = SamplePlan::paper(model, name, seed, context)?;
    let sampler = Sampler::new(plan, model, None, context)?;
    let mut outputs = Outputs::open(folder, sampler.plan(), false)?;
    let form = *sampler.spec();
    let bytes = n * form.len() * form.depth.bytes();
    context.notes(space_warning(folder, bytes as u64));
    context.progress.note(&format!(
        "{} of {name}; writes {}",
        plural(n, "sample", "samples"),
        folder.display()
    ));
    Ok(sampler.fill(&mut outputs, n, usual_batch(&form), context)? == n)
}

/// Images of an earlier, larger set would be taken for part of this one. Called before anything is changed; files
/// that `overwrite` will remove do not count.
fn refuse_leftovers(dir: &Path, sampler: &Sampler, n: usize, overwrite: bool) -> Result<()> {
    if !dir.is_dir() {
        return Ok(());
    }
    let recorded = match overwrite {
        true => recorded_names(dir)?,
        false => HashSet::new(),
    };
    let mut largest = 0;
    for entry in std::fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let name = entry?.file_name();
        let Some(name) = name.to_str().filter(|name| !recorded.contains(*name)) else {
            continue;
        };
        let number = name.split_once('.').and_then(|(n, _)| n.parse().ok());
        // Other names are not those of samples.
        if let Some(number) = number.filter(|&number| sampler.file_name(number) == name) {
            largest = largest.max(number.saturating_add(1));
        }
    }
    if largest > n {
        let more = match largest <= MOST {
            true => format!("draw as many with `n` {largest}, or "),
            false => String::new(),
        };
        return Err(option(
            "out",
            format!(
                "{}: there are images up to {} of a larger set, which would be taken for part of this one; {more}name another folder",
                dir.display(),
                sampler.file_name(largest - 1)
            ),
        ));
    }
    Ok(())
}
