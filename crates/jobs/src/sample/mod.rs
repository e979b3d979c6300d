//! Samples of a model in a folder.

mod sampler;

pub use sampler::{SamplePlan, Sampler, SamplerKind};

use crate::context::Context;
use crate::embedded::DIGITS_SOURCE;
use crate::error::{Result, ResultExt as _, option};
use crate::model::{ModelFile, check_makes_images, check_seed, check_unconditional, load_model};
use sampler::file_name;
use sdft_gallery::{
    Outputs, check_folder, check_sheet, full_path, recorded_names, shown_of, space_warning,
    usual_batch, write_sheet,
};
use sdft_imaging::{Limits, Rgb8, decode_file};
use sdft_models::{LoadOptions, LoadedModel};
use sdft_train::{Precision, contact_sheet};
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// Images in the contact sheet.
const SHOWN: usize = 64;

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
    /// The sampler.
    pub sampler: SamplerKind,
    /// Its steps: `ddim40` (a stride), `250` (evenly spread), `10,15,20` (per section), or empty for all.
    pub steps: String,
    /// DDIM only: share of fresh noise, 0 to 1.
    pub eta: f64,
    /// The share of the process at which samples begin, above 0 up to 1.
    pub start: f64,
    /// Whether predicted images are clamped to [-1, 1].
    pub clip: bool,
    /// The class of every image of a class-conditional model; drawn for each if absent.
    pub class: Option<u32>,
    /// The folder of the images.
    pub out: PathBuf,
    /// Whether images of other settings are replaced.
    pub overwrite: bool,
    /// Whether guided-diffusion's `samples_NxHxWx3.npz` is written, too.
    pub npz: bool,
}

impl Default for SampleOptions {
    /// 16 images of the embedded model by the paper's sampler, into `samples`.
    fn default() -> Self {
        Self {
            model: DIGITS_SOURCE.to_owned(),
            load: LoadOptions::default(),
            n: 16,
            batch: 16,
            seed: 0,
            sampler: SamplerKind::Ddim,
            steps: "ddim40".to_owned(),
            eta: 0.0,
            start: 1.0,
            clip: true,
            class: None,
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
    check(options)?;
    let name = ModelFile::find(&options.model)?.noted(context);
    let model = load_model(&name, &options.load)?;
    context.notes(&model.notes);
    check_makes_images(&name, &model)?;
    let plan = SamplePlan {
        model: full_path(&name),
        network_sha256: model.network_sha256()?,
        image_size: model.architecture.image_size(),
        seed: options.seed,
        sampler: options.sampler,
        steps: options.steps.clone(),
        eta: (options.sampler == SamplerKind::Ddim).then_some(options.eta),
        start: options.start,
        clip: options.clip,
        class: options.class,
        precision: context.precision_or(Precision::Auto),
        process: model.process.clone(),
    };
    let (n, side) = (*n, plan.image_size);
    let sampler = Sampler::new(plan, &model, context)?;
    drop(model);
    check_sheet(out)?;
    check_folder(out, sampler.plan(), options.overwrite)?;
    refuse_leftovers(out, n, options.overwrite)?;
    (context.on_start)();
    let mut outputs = Outputs::open(out, sampler.plan(), options.overwrite)?;
    context.progress.note(&format!(
        "{n} images of {side}x{side} from {name}, {} steps; writes {}",
        sampler.steps(),
        out.display()
    ));
    let arrays = if options.npz { 2 } else { 1 };
    context.notes(space_warning(out, (arrays * 3 * n * side * side) as u64));
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
        report.array = Some(write_array(&mut outputs, n, side)?);
    }
    let shown = (0..n.min(SHOWN))
        .map(|i| read(&outputs, i))
        .collect::<Result<Vec<_>>>()?;
    let share = shown_of(shown.len(), n).map_or(String::new(), |s| format!(": {s} images"));
    let title = format!("seed {}{share}", options.seed);
    let path = write_sheet(out, &contact_sheet(&shown, &title))?;
    report.sheet = Some((path, shown.len()));
    Ok(report)
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
    if options.sampler == SamplerKind::Ddpm && *eta > 0.0 {
        return Err(option(
            "eta",
            format!("{eta}: belongs to DDIM; DDPM has its own noise"),
        ));
    }
    check_seed(options.seed)
}

/// Draws the paper's samples of a model into `folder`; complete ones stay. Returns false if the job is stopped.
///
/// # Errors
/// The model has classes, the folder holds something else, or an image cannot be made.
pub fn sample_as_in_the_paper(
    model: &LoadedModel,
    name: &str,
    folder: &Path,
    n: usize,
    seed: u64,
    context: &mut Context<'_>,
) -> Result<bool> {
    (context.on_start)();
    check_unconditional(name, model)?;
    let plan = SamplePlan::paper(model, name, seed, context)?;
    let sampler = Sampler::new(plan, model, context)?;
    let mut outputs = Outputs::open(folder, sampler.plan(), false)?;
    let side = sampler.plan().image_size;
    context.notes(space_warning(folder, (3 * n * side * side) as u64));
    context.progress.note(&format!(
        "{n} samples of {name}; writes {}",
        folder.display()
    ));
    Ok(sampler.fill(&mut outputs, n, usual_batch(side), context)? == n)
}

fn read(outputs: &Outputs, number: usize) -> Result<Rgb8> {
    Ok(decode_file(
        &outputs.path(&file_name(number)),
        &Limits::default(),
    )?)
}

/// Writes guided-diffusion's array `[n, h, w, 3]` of the samples. Its pixels are those of the PNGs: guided-diffusion's script truncates
/// where they round, and the same samples would have two distances to a set.
fn write_array(outputs: &mut Outputs, n: usize, side: usize) -> Result<PathBuf> {
    let name = format!("samples_{n}x{side}x{side}x3.npz");
    let made_of = outputs.hash_of((0..n).map(file_name));
    if !outputs.is_complete(&name, &made_of) {
        let mut pixels = Vec::with_capacity(3 * n * side * side);
        for i in 0..n {
            pixels.extend(read(outputs, i)?.pixels);
        }
        let array = sdft_npz::Array::u8(vec![n, side, side, 3], pixels)?;
        let npz = sdft_npz::encode_npz(&[("arr_0", &array)], false)?;
        drop(array);
        outputs.put(&name, &made_of, &npz)?;
    }
    Ok(outputs.path(&name))
}

/// Images of an earlier, larger set would be taken for part of this one. Called before anything is changed; files
/// that `overwrite` will remove do not count.
fn refuse_leftovers(dir: &Path, n: usize, overwrite: bool) -> Result<()> {
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
        let number = name.strip_suffix(".png").and_then(|n| n.parse().ok());
        // Other names are not those of samples.
        if let Some(number) = number.filter(|&number| file_name(number) == name) {
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
                file_name(largest - 1)
            ),
        ));
    }
    Ok(())
}
