//! What the arguments name: a known data set, or files and folders.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use sdft_assets::{
    Asset, Error, HubCache, INDEX, ImageSet, Need, Needs, assets, elsewhere, is_offline, ways,
};
use sdft_files::did_you_mean;
use sdft_imaging::{Fit, Limits};
use sdft_prepare::{Exclusions, Options, PrepareError, Report, size_text};
use sdft_runtime::{note, print_line, usage};

use crate::{
    args::{Args, Colour, Size},
    progress::Progress,
};

/// Default side of the images in pixels.
const SIZE: usize = 256;

/// What to prepare.
enum Inputs {
    /// A data set of the manifest.
    Known(ImageSet),
    /// Files and folders.
    Paths(Vec<PathBuf>),
}

/// Prints what must be fetched first. Prints nothing for invalid arguments, which `prepare` reports.
pub(crate) fn print_missing(args: &Args) -> Result<()> {
    let mut needs = Needs {
        offline: args.offline || is_offline(),
        ..Needs::default()
    };
    if let Ok(Inputs::Known(set)) = inputs(args) {
        let cache = HubCache::from_environment();
        let is_here = cache.is_ok_and(|cache| cache.locate(&set.asset.name).is_ok());
        if set.asset.pair {
            // candle's loaders read these in `sdft-fetch`. They need no network for files in the cache.
            needs.offline &= !is_here;
            needs.needs.push(pair(set.asset, args));
        } else if !is_here {
            needs.needs.push(Need::asset(set.asset));
        }
    }
    print_line(serde_json::to_string(&needs)?)
}

/// The command that fetches a set of classes and prepares both sides.
fn pair(asset: &'static Asset, args: &Args) -> Need {
    let mut need = Need::asset(asset);
    let mut command = vec!["fetch".to_owned(), "--pair".to_owned(), asset.name.clone()];
    let mut option = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            command.extend([format!("--{name}"), value]);
        }
    };
    let text = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
    option("out", Some(folder_of(asset, args).display().to_string()));
    option("exclude", text(&args.exclude));
    option("threads", args.threads.map(|n| n.to_string()));
    for (flag, is_set) in [("--strict", args.strict), ("--offline", args.offline)] {
        if is_set {
            command.push(flag.to_owned());
        }
    }
    need.command = command;
    need
}

/// The output folder of both sides of a set of classes.
fn folder_of(asset: &Asset, args: &Args) -> PathBuf {
    let name = format!("{}-{}", asset.name, ImageSet::PAIR_SIZE);
    let folder = args.out.clone();
    folder.unwrap_or_else(|| Path::new("data").join(name))
}

pub(crate) fn prepare(args: &Args) -> Result<()> {
    let mut options = Options {
        strict: args.strict,
        threads: args.threads,
        limits: Limits::from_env()?,
        size: size_of(args),
        channels: args.channels,
        depth: args.depth,
        fit: args.fit,
        background: args.background.map_or([255; 3], |Colour(colour)| colour),
        classes: args.classes.clone(),
        ..Options::new(SIZE)
    };
    if let Some(list) = &args.exclude {
        options.exclude = Exclusions::read(list)?;
    }
    let inputs = match inputs(args)? {
        Inputs::Known(set) => return known(set, args, options),
        Inputs::Paths(inputs) => inputs,
    };
    let out = match (&args.out, inputs.as_slice()) {
        (Some(out), _) => out.clone(),
        (None, [input]) => {
            let name = input.canonicalize().unwrap_or_else(|_| input.clone());
            let name = name.file_stem().unwrap_or_default().to_string_lossy();
            Path::new("data").join(format!("{name}-{}", size_text(options.size)))
        }
        _ => return Err(usage("--out is required with several inputs")),
    };
    finish(sdft_prepare::prepare(
        &inputs,
        &out,
        &options,
        &progress_of(&out),
    ))
}

/// Height and width of the images in pixels.
fn size_of(args: &Args) -> [usize; 2] {
    args.size.map_or([SIZE; 2], |Size(size)| size)
}

/// Interprets the inputs: the name of one data set, or paths.
fn inputs(args: &Args) -> Result<Inputs> {
    let size = size_of(args);
    // An existing path takes precedence over a name.
    let is_here = |text: &String| Path::new(text).exists();
    let named = |text: &String| ImageSet::named(text, size[0]).filter(|_| !is_here(text));
    if let [name] = args.inputs.as_slice()
        && let Some(set) = named(name)
    {
        let (name, side) = (&set.asset.name, ImageSet::PAIR_SIZE);
        if set.asset.pair {
            if let Some(Size(size)) = args.size.filter(|Size(size)| *size != [side; 2]) {
                return Err(usage(format!(
                    "--size {}: the images of {name} have {side}x{side} pixels",
                    size_text(size)
                )));
            }
            let given = [
                ("--channels", args.channels.is_some()),
                ("--depth", args.depth.is_some()),
                ("--fit", args.fit != Fit::Crop),
                ("--background", args.background.is_some()),
                ("--classes", args.classes.is_some()),
            ];
            if let Some((option, _)) = given.iter().find(|(_, is_given)| *is_given) {
                return Err(usage(format!(
                    "{option}: {name} is always prepared as two sides of {side}x{side} pixels in RGB"
                )));
            }
        }
        return Ok(Inputs::Known(set));
    }
    if let Some(name) = args.inputs.iter().find(|text| named(text).is_some()) {
        return Err(usage(format!(
            "{name}: a named data set cannot be combined with other inputs"
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
                    "{text} is not on the Hub: {}, and save it as {}",
                    known.how, known.file
                )));
            }
            None => {
                let sets = assets().iter().filter(|asset| asset.is_images());
                let hint = did_you_mean(text, sets.map(|asset| asset.name.as_str()));
                return Err(usage(format!(
                    "{text}: expected a file, a folder or the name of a data set (`cargo xtask fetch --list`), found none of them{hint}"
                )));
            }
        }
    }
    Ok(Inputs::Paths(paths))
}

/// Prepares a data set whose files are in the cache.
fn known(set: ImageSet, args: &Args, mut options: Options) -> Result<()> {
    let asset = set.asset;
    if asset.pair {
        return both(asset, args);
    }
    let files = match HubCache::from_environment()?.locate_verified(&asset.name) {
        Ok(files) => files,
        Err(Error::Missing { expected_path, .. }) => bail!(
            "{} is not in the cache: expected {}, which does not exist\n\n{}",
            asset.name,
            expected_path.display(),
            ways(asset)
        ),
        Err(error) => return Err(error.into()),
    };
    options.name = Some(asset.place.to_string());
    let folder = match options.size {
        [height, width] if height == width => set.folder,
        size => Path::new("data").join(format!("{}-{}", asset.name, size_text(size))),
    };
    let out = args.out.clone().unwrap_or(folder);
    finish(sdft_prepare::prepare(
        &files,
        &out,
        &options,
        &progress_of(&out),
    ))
}

/// Prints both sides of a set of classes, which are prepared when they are fetched.
fn both(asset: &Asset, args: &Args) -> Result<()> {
    let folder = folder_of(asset, args);
    let [source, target] = ["source", "target"].map(|side| folder.join(side));
    for side in [&source, &target] {
        if !side.join(INDEX).is_file() {
            bail!(
                "{} is not in the cache and not prepared: expected {}, which does not exist\n\n{}",
                asset.name,
                side.join(INDEX).display(),
                ways(asset)
            );
        }
        print_line(side.display())?;
    }
    note(format_args!(
        "train a source model and fine-tune it:\n  \
         cargo xtask train --method scratch --data {1} --set model.image_size=32 --name {0}-source ..\n  \
         cargo xtask train --source runs/{0}-source/final.safetensors --data {2}",
        asset.name,
        source.display(),
        target.display()
    ));
    Ok(())
}

/// Progress of the set in the folder `out`.
fn progress_of(out: &Path) -> impl Fn(usize, usize) + Sync + use<> {
    let progress = Progress::new(out.display().to_string());
    move |done, total| progress.at(done, total)
}

fn finish(result: std::result::Result<Report, PrepareError>) -> Result<()> {
    match result {
        Ok(report) => print_line(report),
        Err(
            error @ (PrepareError::Option { .. }
            | PrepareError::Input { .. }
            | PrepareError::Nested { .. }),
        ) => Err(usage(error.to_string())),
        Err(error) => Err(error.into()),
    }
}
