//! `sdft-fetch NAME ..`: fetches assets and files by name.

use std::path::Path;

use anyhow::Result;
use sdft_assets::{Asset, Elsewhere, HubFile, asset, assets, elsewhere, listing, names, ways};
use sdft_files::did_you_mean;
use sdft_hub::{Fetched, Fetcher, HubError, Settings, Wanted};
use sdft_runtime::{note, print_line, usage};

use crate::{
    args::Args,
    bars::{Bars, bytes},
};

pub(crate) fn fetch(args: &Args) -> Result<()> {
    if args.list {
        let cache = sdft_assets::HubCache::from_environment()?;
        return print_line(
            listing(&args.names, &cache, Path::new(""))
                .map_err(|error| usage(error.to_string()))?,
        );
    }
    let (mut here, mut by_hand) = (Vec::new(), Vec::new());
    let mut files = Vec::new();
    for name in &args.names {
        match Named::read(name)? {
            Named::Asset(asset) => here.push(asset),
            Named::Elsewhere(known) => by_hand.push(known),
            Named::File(file) => files.push(file),
        }
    }
    if let Some(goal) = &args.all_for {
        let all = goals();
        if !all.contains(goal) {
            return Err(usage(format!(
                "--all-for {goal}: expected one of {}{}",
                all.join(", "),
                did_you_mean(goal, all.iter().map(String::as_str))
            )));
        }
        here.extend(assets().iter().filter(|asset| asset.goals.contains(goal)));
        by_hand.extend(
            elsewhere()
                .iter()
                .filter(|known| known.goals.contains(goal)),
        );
    }
    if here.is_empty() && by_hand.is_empty() && files.is_empty() {
        return Err(usage(
            "nothing to fetch: pass names (`--list` shows them), hf:OWNER/NAME/PATH, or --all-for metfaces",
        ));
    }
    let fetcher = fetcher(args.offline)?;
    let cache = &fetcher.settings().cache;
    let missing = here
        .iter()
        .filter(|asset| cache.locate(&asset.name).is_err());
    let (n, size) = missing.fold((0, 0), |(n, size), asset| (n + 1, size + asset.bytes()));
    if here.len() > 1 && n > 0 {
        note(format_args!(
            "{n} of {} are not in the cache, about {}",
            here.len(),
            bytes(size)
        ));
    }
    let mut failed = false;
    for asset in &here {
        match get(&fetcher, asset) {
            Ok(all) => all.iter().try_for_each(print_fetched)?,
            Err(error) if args.names.len() == 1 && here.len() == 1 => {
                anyhow::bail!("{error}\n\n{}", ways(asset));
            }
            Err(error) => {
                failed = true;
                note(format_args!("error: {}: {error}", asset.name));
            }
        }
    }
    for file in files {
        let wanted = match file.path.ends_with('/') {
            true => fetcher.files_below(&file)?,
            false => vec![file.clone()],
        };
        if wanted.is_empty() {
            return Err(usage(format!(
                "{file}: the folder is empty or does not exist"
            )));
        }
        for file in wanted {
            let fetched = fetcher.fetch(&file.into(), &mut Bars::default())?;
            print_fetched(&fetched)?;
        }
    }
    for known in &by_hand {
        let Elsewhere {
            name,
            file,
            how,
            licence,
            ..
        } = known;
        if Path::new(file).exists() {
            print_line(format_args!("{file}"))?;
            continue;
        }
        // An asset requested by name must be found; one of an experiment may be missing.
        failed |= args.names.contains(name);
        note(format_args!(
            "{name} is not on the Hub: {how}, and save it as {file}\n  license: {licence}"
        ));
    }
    if failed {
        anyhow::bail!(
            "some assets are missing; `cargo xtask fetch NAME` shows how to get one of them"
        );
    }
    Ok(())
}

/// What a name refers to.
enum Named {
    Asset(&'static Asset),
    Elsewhere(&'static Elsewhere),
    File(HubFile),
}

impl Named {
    fn read(name: &str) -> Result<Self> {
        if let Some(folder) = name.strip_suffix('/')
            && let Some(file) = HubFile::parse(folder)
        {
            let mut file = file.map_err(|error| usage(error.to_string()))?;
            file.path.push('/');
            return Ok(Self::File(file));
        }
        if let Some(file) = HubFile::parse(name) {
            return Ok(Self::File(file.map_err(|error| usage(error.to_string()))?));
        }
        if let Some(asset) = asset(name) {
            return Ok(Self::Asset(asset));
        }
        if let Some(known) = elsewhere().iter().find(|known| known.name == name) {
            return Ok(Self::Elsewhere(known));
        }
        // Both sides of a pair are prepared from the same files.
        if let Some(set) = sdft_assets::ImageSet::named(name, 256) {
            return Ok(Self::Asset(set.asset));
        }
        Err(usage(format!(
            "unknown name {name}{} (`cargo xtask fetch --list` lists all names, hf:OWNER/NAME/PATH fetches any file of the Hub)",
            did_you_mean(name, names())
        )))
    }
}

fn goals() -> Vec<String> {
    let all = assets().iter().flat_map(|asset| asset.goals.clone());
    let mut goals: Vec<String> = all.collect();
    goals.sort();
    goals.dedup();
    goals
}

/// A fetcher with the settings of the environment.
pub(crate) fn fetcher(offline: bool) -> Result<Fetcher> {
    let mut settings = Settings::from_environment()?;
    settings.offline |= offline;
    Ok(Fetcher::new(settings)?)
}

/// Fetches all files of an asset.
pub(crate) fn get(fetcher: &Fetcher, asset: &Asset) -> std::result::Result<Vec<Fetched>, HubError> {
    let mut bars = Bars::default();
    let wanted = Wanted::of_asset(asset);
    wanted
        .iter()
        .map(|wanted| fetcher.fetch(wanted, &mut bars))
        .collect()
}

fn print_fetched(fetched: &Fetched) -> Result<()> {
    match (fetched.was_cached, &fetched.hash) {
        (true, Some(_)) => note("already in the cache, verified:"),
        (true, None) => note("already in the cache (not verified: its hash is not known):"),
        _ => {}
    }
    print_line(fetched.path.display())?;
    Ok(())
}
