//! Sets of ten classes, fetched and prepared as a source and a small target.

use std::path::Path;

use anyhow::{Result, anyhow};
use sdft_assets::{ImageSet, ways};
use sdft_hub::{Pair, load_pair};
use sdft_prepare::{Exclusions, Options, prepare_pictures};
use sdft_runtime::{print_line, usage};

use crate::{
    args::Args,
    get::{fetcher, get},
};

/// Prepares both sides of the set `name`.
pub(crate) fn prepare(name: &str, args: &Args) -> Result<()> {
    let size = ImageSet::PAIR_SIZE;
    let set = ImageSet::named(name, size).filter(|set| set.asset.pair);
    let asset = set
        .ok_or_else(|| usage(format!("--pair {name}: not a set of classes")))?
        .asset;
    let mut options = Options {
        name: Some(asset.place.to_string()),
        strict: args.strict,
        threads: args.threads,
        ..Options::new(size)
    };
    if let Some(list) = &args.exclude {
        options.exclude = Exclusions::read(list)?;
    }
    let fetcher = fetcher(args.offline)?;
    get(&fetcher, asset).map_err(|error| anyhow!("{error}\n\n{}", ways(asset)))?;
    let Pair { source, target } = load_pair(asset, &fetcher.settings().cache)?;
    let folder = args.out.clone().unwrap_or_else(|| {
        let name = format!("{}-{size}", asset.name);
        Path::new("data").join(name)
    });
    for (side, pictures) in [("source", source), ("target", target)] {
        let out = folder.join(side);
        print_line(prepare_pictures(pictures, &out, &options, &|_, _| {})?)?;
    }
    Ok(())
}
