use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use sdft_assets::{
    Asset, Error, HubCache, ImageSet, Need, Needs, assets, did_you_mean, elsewhere, is_offline,
    ways,
};
use sdft_imaging::Limits;
use sdft_prepare::{Exclusions, Options, Pair, PrepareError, Report, load_pair};

use crate::{args::Args, line, note, progress::Progress, usage};

/// Side of images if nothing is said.
const SIZE: usize = 256;

/// What is to be prepared.
enum Wanted {
    /// A data set of the list.
    Known(ImageSet),
    /// Files and folders.
    Paths(Vec<PathBuf>),
}

/// Prints what must be fetched first; nothing for a call that is wrong anyhow, which says so itself.
pub(crate) fn missing(args: &Args) -> Result<()> {
    let mut needs = Needs {
        offline: args.offline || is_offline(),
        ..Needs::default()
    };
    if let Ok(Wanted::Known(set)) = wanted(args)
        && HubCache::from_environment().is_ok_and(|cache| cache.locate(&set.asset.name).is_err())
    {
        needs.needs.push(Need::asset(set.asset));
    }
    line(serde_json::to_string(&needs)?)
}

pub(crate) fn prepare(args: &Args) -> Result<()> {
    let mut options = Options {
        strict: args.strict,
        threads: args.threads,
        limits: Limits::from_env()?,
        ..Options::new(args.size.unwrap_or(SIZE))
    };
    if let Some(list) = &args.exclude {
        options.exclude = Exclusions::read(list)?;
    }
    let inputs = match wanted(args)? {
        Wanted::Known(set) => return known(set, args, options),
        Wanted::Paths(inputs) => inputs,
    };
    let out = match (&args.out, inputs.as_slice()) {
        (Some(out), _) => out.clone(),
        (None, [input]) => {
            let name = input.canonicalize().unwrap_or_else(|_| input.clone());
            let name = name.file_stem().unwrap_or_default().to_string_lossy();
            Path::new("data").join(format!("{name}-{}", options.size))
        }
        _ => return Err(usage("several inputs: say with --out where the set goes")),
    };
    finish(sdft_prepare::prepare(&inputs, &out, &options, &watch(&out)))
}

/// Reads the inputs: one name of the list, or paths.
fn wanted(args: &Args) -> Result<Wanted> {
    let size = args.size.unwrap_or(SIZE);
    // What is there under this path was meant.
    let is_here = |text: &String| Path::new(text).exists();
    let named = |text: &String| ImageSet::named(text, size).filter(|_| !is_here(text));
    if let [name] = args.inputs.as_slice()
        && let Some(set) = named(name)
    {
        let side = ImageSet::PAIR_SIZE;
        if set.asset.pair && args.size.is_some_and(|size| size != side) {
            let name = &set.asset.name;
            return Err(usage(format!(
                "--size {size}: the images of {name} have {side}x{side} pixels"
            )));
        }
        return Ok(Wanted::Known(set));
    }
    if let Some(name) = args.inputs.iter().find(|text| named(text).is_some()) {
        return Err(usage(format!(
            "{name}: a data set of the list is prepared by itself"
        )));
    }
    let mut paths = Vec::with_capacity(args.inputs.len());
    for text in &args.inputs {
        if is_here(text) {
            paths.push(PathBuf::from(text));
            continue;
        }
        match elsewhere().iter().find(|known| known.name == *text) {
            Some(known) if Path::new(&known.file).exists() => {
                paths.push(PathBuf::from(&known.file));
            }
            Some(known) => {
                return Err(usage(format!(
                    "{text} is not on the Hub: {}, and put it at {}",
                    known.how, known.file
                )));
            }
            None => {
                let sets = assets().iter().filter(|asset| asset.is_images());
                let hint = did_you_mean(text, sets.map(|asset| asset.name.as_str()));
                return Err(usage(format!(
                    "{text}: neither a file or folder here nor a data set of the list (`cargo xtask fetch --list`){hint}"
                )));
            }
        }
    }
    Ok(Wanted::Paths(paths))
}

/// Prepares a data set of the list, whose files are here.
fn known(set: ImageSet, args: &Args, mut options: Options) -> Result<()> {
    let asset = set.asset;
    let files = match HubCache::from_environment()?.locate_verified(&asset.name) {
        Ok(files) => files,
        Err(Error::Missing { looked_at, .. }) => bail!(
            "{} is not here: expected {}, found nothing there\n\n{}",
            asset.name,
            looked_at.display(),
            ways(asset)
        ),
        Err(error) => return Err(error.into()),
    };
    options.name = Some(format!("{} at {}", asset.repo, asset.revision));
    if asset.pair {
        return both(asset, args, options, &files);
    }
    let out = args.out.clone().unwrap_or(set.folder);
    finish(sdft_prepare::prepare(&files, &out, &options, &watch(&out)))
}

/// The two sides of a set of classes.
fn both(asset: &Asset, args: &Args, mut options: Options, files: &[PathBuf]) -> Result<()> {
    let Pair { source, target } = load_pair(asset, files)?;
    options.size = ImageSet::PAIR_SIZE;
    let folder = match &args.out {
        Some(out) => out.clone(),
        None => Path::new("data").join(format!("{}-{}", asset.name, options.size)),
    };
    for (side, pictures) in [("source", source), ("target", target)] {
        let out = folder.join(side);
        finish(sdft_prepare::prepare_pictures(
            pictures,
            &out,
            &options,
            &watch(&out),
        ))?;
    }
    note(&format!(
        "train a source model and fine-tune it:\n  \
         cargo xtask train --method scratch --data {1} --set model.image_size=32 --name {0}-source ..\n  \
         cargo xtask train --source runs/{0}-source/final.safetensors --data {2}",
        asset.name,
        folder.join("source").display(),
        folder.join("target").display()
    ));
    Ok(())
}

/// A bar of images.
fn watch(out: &Path) -> impl Fn(usize, usize) + Sync + use<> {
    let progress = Progress::new(out.display().to_string());
    move |done, total| progress.at(done, total)
}

fn finish(result: std::result::Result<Report, PrepareError>) -> Result<()> {
    match result {
        Ok(report) => line(report),
        Err(
            error @ (PrepareError::Option { .. }
            | PrepareError::Input { .. }
            | PrepareError::Nested { .. }),
        ) => Err(usage(error.to_string())),
        Err(error) => Err(error.into()),
    }
}
