//! The list of names, with the state of each on this machine.

use crate::cache::HubCache;
use crate::error::{Error, Result};
use crate::manifest::{Asset, Elsewhere, Place, assets, elsewhere, names as known};
use sdft_files::{did_you_mean, human_size};
use std::fmt::Write as _;
use std::path::Path;

/// The list as text, or its entries `names`. Files that no program can download are looked up below `directory`.
///
/// # Errors
/// A name is not in the list; the error has similar names.
pub fn listing(names: &[String], cache: &HubCache, directory: &Path) -> Result<String> {
    if let Some(unknown) = names.iter().find(|name| !known().any(|k| k == *name)) {
        return Err(Error::Unknown {
            name: unknown.clone(),
            hint: did_you_mean(unknown, known()),
        });
    }
    let wanted = |name: &str| names.is_empty() || names.iter().any(|n| n == name);
    let of_kind = |kind: Kind| {
        assets()
            .iter()
            .filter(|asset| Kind::of(asset) == kind && wanted(&asset.name))
            .map(|asset| entry(cache, asset))
            .collect::<String>()
    };
    let by_hand = elsewhere()
        .iter()
        .filter(|known| wanted(&known.name))
        .map(|known| by_hand_entry(directory, known))
        .collect();
    let mut text = match names.is_empty() {
        true => EMBEDDED.to_owned(),
        false => String::new(),
    };
    for (title, entries) in [
        ("Weights on the Hub", of_kind(Kind::Weights)),
        ("Weights on other servers", of_kind(Kind::Web)),
        ("Images on the Hub", of_kind(Kind::Images)),
        ("Elsewhere, to be brought by hand", by_hand),
    ] {
        if !entries.is_empty() {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{title}\n{entries}");
        }
    }
    Ok(text + &format!("{LEGEND}\ncache: {}", cache.root().display()))
}

/// Names that need no file.
const EMBEDDED: &str = "\
In the program
  emoji-source, digits-source, digits-dit-source: models; digits-autoencoder: the autoencoder of the last one
  emoji, digits: images

";

/// What the words of an entry mean.
const LEGEND: &str = "\
here, 2 of 4, -: all, some or none of its files are on this machine
seen: the repository or its authors show the file; named: programs that load it name it; inferred: what it holds follows from its size or its
neighbours
";

/// A part of the list.
#[derive(PartialEq)]
enum Kind {
    Weights,
    Web,
    Images,
}

impl Kind {
    fn of(asset: &Asset) -> Self {
        match asset.place {
            Place::Web { .. } => Self::Web,
            Place::Hub { .. } if asset.is_images() => Self::Images,
            Place::Hub { .. } => Self::Weights,
        }
    }
}

fn entry(cache: &HubCache, asset: &Asset) -> String {
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
        n if rounded => format!("~{}", human_size(n)),
        n => human_size(n),
    };
    let is_known = asset.files.iter().all(|file| file.sha256.is_some());
    let hashed = match (is_known, &asset.place) {
        (true, _) => "hash known",
        (false, Place::Hub { .. }) => "hash from the Hub",
        (false, Place::Web { .. }) => "hash recorded by the first download",
    };
    let place = match &asset.place {
        Place::Hub { repo, revision, .. } => format!("{repo} at {revision:.20}"),
        Place::Web { url } => url.clone(),
    };
    let note = asset
        .note
        .as_ref()
        .map_or_else(String::new, |note| format!("      {note}\n"));
    format!(
        "  {:<24} {size:>10}  {state:<7} {}\n      {place}; {}; {hashed}; licence: {}\n{note}",
        asset.name, asset.what, asset.confidence, asset.licence
    )
}

fn by_hand_entry(directory: &Path, known: &Elsewhere) -> String {
    let state = match directory.join(&known.file).exists() {
        true => "here",
        false => "-",
    };
    format!(
        "  {:<24} {:>10}  {state:<7} {}\n      {}, and put it at {}\n      licence: {}\n",
        known.name, "", known.what, known.how, known.file, known.licence
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str, name: &str) -> String {
        let found = text
            .lines()
            .find(|line| line.split_whitespace().next() == Some(name));
        found.unwrap_or_else(|| panic!("{name}: {text}")).to_owned()
    }

    #[test]
    fn the_list_shows_what_is_present() {
        let home = tempfile::tempdir().unwrap();
        let cache = HubCache::at(home.path().join("hub"));
        let list = || listing(&[], &cache, home.path()).unwrap();
        let text = list();
        assert!(line(&text, "ffhq-10m").contains("374.4 MB  - "), "{text}");
        assert!(line(&text, "ffhq-p2").contains(" - "), "{text}");
        let file = home.path().join(
            "hub/models--deepinv--diffunet/snapshots/57178e9f4ddfa931018774cccb7ccffe4ac969b5/diffusion_ffhq_10m.pt",
        );
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, b"x").unwrap();
        std::fs::create_dir(home.path().join("checkpoints")).unwrap();
        std::fs::write(home.path().join("checkpoints/ffhq_p2.pt"), b"x").unwrap();
        let text = list();
        assert!(line(&text, "ffhq-10m").contains(" here "), "{text}");
        assert!(line(&text, "ffhq-p2").contains(" here "), "{text}");
    }

    #[test]
    fn names_choose_entries_and_a_slip_is_named() {
        let cache = HubCache::at("nowhere");
        let list = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
            listing(&names, &cache, Path::new("nowhere"))
        };
        let text = list(&["metfaces", "ffhq-p2"]).unwrap();
        assert!(
            text.contains("metfaces") && text.contains("ffhq-p2"),
            "{text}"
        );
        assert!(
            !text.contains("inception") && !text.contains("Weights"),
            "{text}"
        );
        let error = list(&["metfaces", "ffhq10m"]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "no asset is called \"ffhq10m\"; did you mean ffhq-10m? (`cargo xtask fetch --list` shows all names)"
        );
    }
}
