use std::{
    path::{Path, PathBuf},
    sync::Mutex,
};

use anyhow::{Context as _, Result};
use sdft_assets::{Asset, ImageSet, elsewhere};
use sdft_hub::{Pair, load_pair};
use sdft_prepare::{Exclusions, Options, PrepareError, Report};

use crate::{
    args::PrepareArgs,
    bars::Bars,
    get::{explain, fetcher, get},
    line, note, usage,
};

/// Side of images if nothing is said.
const SIZE: usize = 256;

pub(crate) fn prepare(args: &PrepareArgs) -> Result<()> {
    let mut options = Options {
        strict: args.strict,
        threads: args.threads,
        ..Options::new(args.size.unwrap_or(SIZE))
    };
    if let Some(list) = &args.exclude {
        options.exclude = Exclusions::read(list)?;
    }
    let named = |text: &String| {
        // What is there under this path was meant.
        let set = ImageSet::named(text, options.size)?;
        (!Path::new(text).exists()).then_some(set)
    };
    if let [name] = args.inputs.as_slice()
        && let Some(set) = named(name)
    {
        return known(set, args, options);
    }
    if let Some(name) = args.inputs.iter().find(|text| named(text).is_some()) {
        return Err(usage(format!(
            "{name}: a data set of the list is prepared by itself"
        )));
    }
    let mut inputs = Vec::with_capacity(args.inputs.len());
    for text in &args.inputs {
        let by_hand = elsewhere().iter().find(|known| known.name == *text);
        match by_hand.filter(|_| !Path::new(text).exists()) {
            None => inputs.push(PathBuf::from(text)),
            Some(known) if Path::new(&known.file).exists() => {
                inputs.push(PathBuf::from(&known.file));
            }
            Some(known) => {
                return Err(usage(format!(
                    "{text} is not on the Hub: {}, and put it at {}",
                    known.how, known.file
                )));
            }
        }
    }
    if let Some(missing) = inputs.iter().find(|path| !path.exists()) {
        return Err(usage(format!(
            "{}: neither a file or folder here nor a data set of the list (`cargo xtask fetch --list`)",
            missing.display()
        )));
    }
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

/// Fetches a data set of the list and prepares it.
fn known(set: ImageSet, args: &PrepareArgs, mut options: Options) -> Result<()> {
    let asset = set.asset;
    if asset.pair && args.size.is_some_and(|size| size != ImageSet::PAIR_SIZE) {
        return Err(usage(format!(
            "{}: its images have {1}x{1} pixels",
            asset.name,
            ImageSet::PAIR_SIZE
        )));
    }
    let fetcher = fetcher(args.offline)?;
    let fetched = get(&fetcher, asset)
        .map_err(|error| anyhow::anyhow!(explain(&asset.name, asset, &error)))?;
    options.name = Some(format!("{} at {}", asset.repo, asset.revision));
    if asset.pair {
        return both(asset, args, options, fetcher.settings().cache.clone());
    }
    let paths: Vec<PathBuf> = fetched.into_iter().map(|fetched| fetched.path).collect();
    let out = args.out.clone().unwrap_or(set.folder);
    finish(sdft_prepare::prepare(&paths, &out, &options, &watch(&out)))
}

/// The two sides of a set of classes.
fn both(
    asset: &Asset,
    args: &PrepareArgs,
    mut options: Options,
    cache: sdft_assets::HubCache,
) -> Result<()> {
    let Pair { source, target } = load_pair(asset, &cache)?;
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
    let bars = Mutex::new(Bars::images(&out.display().to_string()));
    move |done, total| {
        if let Ok(mut bars) = bars.lock() {
            bars.image(done, total);
        }
    }
}

fn finish(result: std::result::Result<Report, PrepareError>) -> Result<()> {
    match result {
        Ok(report) => line(report).context("standard output"),
        Err(
            error @ (PrepareError::Option { .. }
            | PrepareError::Input { .. }
            | PrepareError::Nested { .. }),
        ) => Err(usage(error.to_string())),
        Err(error) => Err(error.into()),
    }
}
