//! What there is, and what of it is here.

use std::path::Path;

use anyhow::Result;
use sdft_assets::{Asset, Elsewhere, HubCache, assets, elsewhere};

use crate::{bars::bytes, line, usage};

/// Prints the list, or the entries of these names.
pub(crate) fn list(names: &[String]) -> Result<()> {
    let cache = HubCache::from_environment()?;
    let wanted = |name: &str| names.is_empty() || names.iter().any(|n| n == name);
    let weights = assets()
        .iter()
        .filter(|asset| !asset.is_images() && wanted(&asset.name));
    let images = assets()
        .iter()
        .filter(|asset| asset.is_images() && wanted(&asset.name));
    let by_hand: Vec<&Elsewhere> = elsewhere()
        .iter()
        .filter(|known| wanted(&known.name))
        .collect();
    let mut shown = by_hand.len();
    for (title, entries) in [
        ("Weights on the Hub", weights.collect::<Vec<_>>()),
        ("Images on the Hub", images.collect()),
    ] {
        shown += entries.len();
        if entries.is_empty() {
            continue;
        }
        line(format_args!("{title}"))?;
        for asset in entries {
            entry(&cache, asset)?;
        }
        line("")?;
    }
    if !by_hand.is_empty() {
        line("Elsewhere, to be brought by hand")?;
        for known in by_hand {
            by_hand_entry(known)?;
        }
        line("")?;
    }
    if shown == 0 {
        return Err(usage(format!(
            "--list {}: there is nothing of this name",
            names.join(" ")
        )));
    }
    line(format_args!("cache: {}", cache.root().display()))?;
    Ok(())
}

fn entry(cache: &HubCache, asset: &Asset) -> Result<()> {
    let found = asset
        .files
        .iter()
        .filter(|file| cache.find(asset, file).is_some())
        .count();
    let state = match (found, asset.files.len()) {
        (0, _) => "-".to_owned(),
        (n, all) if n == all => "here".to_owned(),
        (n, all) => format!("{n} of {all}"),
    };
    let rounded = asset.files.iter().any(|file| file.size.is_none());
    let size = match asset.bytes() {
        0 => "?".to_owned(),
        n if rounded => format!("~{}", bytes(n)),
        n => bytes(n),
    };
    line(format_args!(
        "  {:<24} {size:>10}  {state:<7} {}",
        asset.name, asset.what
    ))?;
    let hashed = match asset.files.iter().all(|file| file.sha256.is_some()) {
        true => "hash known",
        false => "hash from the Hub",
    };
    let revision: String = asset.revision.chars().take(20).collect();
    line(format_args!(
        "      {} at {revision}; {}; {hashed}; licence: {}",
        asset.repo, asset.confidence, asset.licence
    ))?;
    if let Some(note) = &asset.note {
        line(format_args!("      {note}"))?;
    }
    Ok(())
}

fn by_hand_entry(known: &Elsewhere) -> Result<()> {
    let state = if Path::new(&known.file).exists() {
        "here"
    } else {
        "-"
    };
    line(format_args!(
        "  {:<24} {:>10}  {state:<7} {}",
        known.name, "", known.what
    ))?;
    line(format_args!(
        "      {}, and put it at {}",
        known.how, known.file
    ))?;
    line(format_args!("      licence: {}", known.licence))?;
    Ok(())
}
