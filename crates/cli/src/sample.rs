//! `sample`: a model -> a folder of images.

use crate::args::{ModelArgs, SampleArgs, SamplerArg};
use crate::device::Stage;
use crate::gallery::outputs::{Outputs, recorded_names};
use crate::gallery::refusal::{self, Overwrite};
use crate::gallery::{full_path, sheet, usual_batch};
use crate::model::{model_file, newest_run};
use crate::runs::listen;
use crate::sampler::{SamplePlan, Sampler, file_name};
use crate::train::load_model;
use crate::{INTERRUPTED, assets, console, space, usage};
use anyhow::{Context, Result};
use sdft_imaging::{Limits, Rgb8, decode_file};
use sdft_jobs::TrainPlan as Plan;
use sdft_models::{LoadOptions, LoadedModel};
use sdft_settings as config;
use sdft_train::{Precision, contact_sheet};
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Images in the contact sheet.
const SHOWN: usize = 64;

/// Images of one command.
const MOST: usize = 10_000_000;

pub(crate) fn sample(args: &SampleArgs) -> Result<ExitCode> {
    if args.n == 0 || args.n > MOST {
        return Err(usage(format!("-n {}: expected 1 to {MOST}", args.n)));
    }
    if !(0.0..=1.0).contains(&args.eta) {
        return Err(usage(format!("--eta {}: expected 0 to 1", args.eta)));
    }
    if args.sampler == SamplerArg::Ddpm && args.eta > 0.0 {
        return Err(usage("--eta belongs to DDIM; DDPM has its own noise"));
    }
    check_seed(args.seed)?;
    let name = match &args.model {
        Some(name) => model_file(name)?,
        None => match newest_run() {
            Some(run) => model_file(&run)?,
            None => assets::DIGITS_SOURCE.to_owned(),
        },
    };
    let model = load_model(&name, &args.file.options()?)?;
    for note in &model.notes {
        console::note(note);
    }
    makes_images(&name, &model)?;
    let plan = SamplePlan {
        model: full_path(&name),
        network_sha256: model.network_sha256()?,
        image_size: model.config.image_size,
        seed: args.seed,
        sampler: args.sampler,
        steps: args.steps.clone(),
        eta: (args.sampler == SamplerArg::Ddim).then_some(args.eta),
        start: args.start,
        clip: !args.no_clip,
        class: args.class,
        precision: Stage::precision(Precision::Auto)?,
        process: model.process.clone(),
    };
    let (n, side, out) = (args.n, plan.image_size, &args.out);
    let sampler = Sampler::new(plan, &model)?;
    drop(model);
    sheet::check(out)?;
    refusal::check(out, &sampler.plan, args.overwrite.into())?;
    refuse_leftovers(out, n, args.overwrite)?;
    listen();
    let mut outputs = Outputs::open(out, &sampler.plan, args.overwrite)?;
    console::note(&format!(
        "{n} images of {side}x{side} from {name}, {} steps; writes {}",
        sampler.steps(),
        out.display()
    ));
    let arrays = if args.npz { 2 } else { 1 };
    space::warn(out, (arrays * 3 * n * side * side) as u64);
    let there = sampler.fill(&mut outputs, n, args.batch)?;
    if there < n {
        let how = if args.overwrite {
            " without --overwrite"
        } else {
            ""
        };
        console::line(format_args!(
            "interrupted; {there} of {n} images are there, the same command{how} goes on from here"
        ))?;
        return Ok(ExitCode::from(INTERRUPTED));
    }
    if args.npz {
        let path = write_array(&mut outputs, n, side)?;
        console::line(format_args!("array    {}", path.display()))?;
    }
    let shown = (0..n.min(SHOWN))
        .map(|i| read(&outputs, i))
        .collect::<Result<Vec<_>>>()?;
    let share = sheet::share(shown.len(), n);
    let share = |before, after| {
        share
            .as_ref()
            .map_or(String::new(), |s| format!("{before}{s} images{after}"))
    };
    let title = format!("seed {}{}", args.seed, share(": ", ""));
    let path = sheet::write(out, &contact_sheet(&shown, &title))?;
    console::line(format_args!("images   {}", out.display()))?;
    console::line(format_args!(
        "grid     {}{}",
        path.display(),
        share(" (", ")")
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// Plans are TOML, whose numbers end there.
pub(crate) fn check_seed(seed: u64) -> Result<()> {
    match i64::try_from(seed) {
        Ok(_) => Ok(()),
        Err(_) => Err(usage(format!("--seed {seed}: expected 0 to {}", i64::MAX))),
    }
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

impl ModelArgs {
    /// Options for reading the model.
    pub(crate) fn options(&self) -> Result<LoadOptions> {
        load_options(&self.set, self.key.as_ref(), self.image_size)
    }
}

/// Options for reading a model, from `--set model.FIELD=VALUE`, `--key` and `--image-size`.
pub(crate) fn load_options(
    set: &[String],
    key: Option<&String>,
    image_size: Option<usize>,
) -> Result<LoadOptions> {
    let mut table = toml::Table::new();
    for assignment in set {
        if !assignment.starts_with("model.") && !assignment.starts_with("process.") {
            return Err(usage(format!(
                "--set {assignment}: only fields under model. and process. can be set here"
            )));
        }
        config::set::<Plan>(&mut table, assignment)?;
    }
    if let Some(size) = image_size {
        config::put(
            &mut table,
            "model.image_size",
            i64::try_from(size).unwrap_or(i64::MAX),
        );
    }
    Ok(LoadOptions {
        given: config::given(&table, "model"),
        given_process: config::given(&table, "process"),
        key: key.cloned(),
        ..LoadOptions::default()
    })
}

/// Fails unless a model makes RGB images.
pub(crate) fn makes_images(name: &str, model: &LoadedModel) -> Result<()> {
    let config = &model.config;
    if config.in_channels != 3 || ![3, 6].contains(&config.out_channels) {
        return Err(usage(format!(
            "{name}: expected a model from 3 channels to 3 or 6, found {} to {}",
            config.in_channels, config.out_channels
        )));
    }
    Ok(())
}

/// Fails unless a model makes RGB images without labels.
pub(crate) fn unconditional(name: &str, model: &LoadedModel) -> Result<()> {
    if model.config.num_classes != 0 {
        return Err(usage(format!(
            "{name}: expected an unconditional model, found one of {} classes",
            model.config.num_classes
        )));
    }
    makes_images(name, model)
}

/// The paper's samples of a model into `folder`; those that are there already are kept. False if the user asked for an end.
pub(crate) fn write_samples(
    model: &LoadedModel,
    name: &str,
    folder: &Path,
    n: usize,
    seed: u64,
) -> Result<bool> {
    listen();
    unconditional(name, model)?;
    let sampler = Sampler::new(SamplePlan::paper(model, name, seed)?, model)?;
    let mut outputs = Outputs::open(folder, &sampler.plan, Overwrite::Never)?;
    let side = sampler.plan.image_size;
    space::warn(folder, (3 * n * side * side) as u64);
    console::note(&format!(
        "{n} samples of {name}; writes {}",
        folder.display()
    ));
    Ok(sampler.fill(&mut outputs, n, usual_batch(side))? == n)
}

/// Images of an earlier, larger set would be taken for part of this one. Asked before anything there is touched; what `overwrite` is
/// going to remove does not count.
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
            true => format!("draw as many with -n {largest}, or "),
            false => String::new(),
        };
        return Err(usage(format!(
            "--out {}: there are images up to {} of a larger set, which would be taken for part of this one; {more}name another folder",
            dir.display(),
            file_name(largest - 1)
        )));
    }
    Ok(())
}
