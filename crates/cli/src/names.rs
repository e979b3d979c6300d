//! Names of weights and data sets, and files of the Hub, as paths on this machine.

use crate::console;
use crate::device::world;
use anyhow::Result;
use sdft_assets::{Error, HubCache, HubFile, INDEX, ImageSet, Need, asset, assets, elsewhere};
use sdft_files::{similar, similar_path, suggest};
use sdft_jobs::is_embedded;
use sdft_parallel::World;
use sdft_runtime::usage;
use sdft_train::runs_near;
use std::path::{Path, PathBuf};

/// Replaces names by paths.
#[derive(Debug, Default)]
pub(crate) struct Names {
    /// Whether missing files are collected instead of reported.
    collects: bool,
    /// Whether paths where nothing is are left to the command: it lists them itself, or reports to the rank that leads.
    pub(crate) keeps_paths: bool,
    /// The missing files.
    pub(crate) needs: Vec<Need>,
}

impl Names {
    /// Resolves names; a missing file is an error. Ranks that follow another need no images and no run.
    pub(crate) fn resolving() -> Self {
        let follows = matches!(world(), Ok(Some(World { rank: 1.., .. })));
        Self {
            keeps_paths: follows,
            ..Self::default()
        }
    }

    /// Collects missing files and keeps their names.
    pub(crate) fn collecting() -> Self {
        Self {
            collects: true,
            ..Self::default()
        }
    }

    fn miss(&mut self, need: Need, problem: String) -> Result<()> {
        if !self.collects {
            return Err(usage(problem));
        }
        if !self.needs.iter().any(|known| known.command == need.command) {
            self.needs.push(need);
        }
        Ok(())
    }

    /// A file of weights: a path is kept; a name or `hf:..` becomes the path of its file.
    pub(crate) fn weights(&mut self, option: &str, text: &mut String) -> Result<()> {
        if self.is_at_hand(text) {
            return Ok(());
        }
        if let Some(file) = HubFile::parse(text) {
            let file = file.map_err(|error| usage(format!("{option} {error}")))?;
            return match HubCache::from_environment().and_then(|cache| cache.locate_file(&file)) {
                Ok(path) => {
                    *text = path.display().to_string();
                    Ok(())
                }
                Err(error) => self.miss(Need::file(text), format!("{option} {error}")),
            };
        }
        if let Some(known) = elsewhere().iter().find(|known| known.name == *text) {
            if Path::new(&known.file).is_file() {
                text.clone_from(&known.file);
                return Ok(());
            }
            let error = Error::NotOnHub {
                name: text.clone(),
                how: known.how.clone(),
                file: PathBuf::from(&known.file),
            };
            return self.explain(format!("{option} {error}"));
        }
        let Some(asset) = asset(text) else {
            return self.nothing_at(option, text, false);
        };
        if asset.is_images() {
            return self.explain(format!(
                "{option} {text}: expected weights, found a data set"
            ));
        }
        let cache = HubCache::from_environment();
        match cache.and_then(|cache| match self.collects {
            true => cache.locate(&asset.name),
            false => cache.locate_verified(&asset.name),
        }) {
            Ok(paths) => {
                if let Some(path) = asset.path_of_model(&paths) {
                    *text = path.display().to_string();
                }
                Ok(())
            }
            // A damaged file is reported, not downloaded again.
            Err(error @ Error::Hash { .. }) => Err(error.into()),
            Err(error) => self.miss(Need::asset(asset), format!("{option} {error}")),
        }
    }

    /// A folder of images: a path is kept; the name of a data set becomes the folder of the set prepared at this size.
    pub(crate) fn images(&mut self, option: &str, text: &mut String, size: usize) -> Result<()> {
        if self.is_at_hand(text) {
            return Ok(());
        }
        if let Some(known) = elsewhere().iter().find(|known| known.name == *text) {
            // Prepared or downloaded.
            let raw = Path::new(&known.file);
            let prepared = PathBuf::from(format!("{}-{size}", known.file));
            for folder in [prepared.as_path(), raw] {
                if folder.is_dir() {
                    *text = folder.display().to_string();
                    return Ok(());
                }
            }
            let error = Error::NotOnHub {
                name: text.clone(),
                how: known.how.clone(),
                file: raw.to_owned(),
            };
            return self.explain(format!("{option} {error}"));
        }
        let Some(set) = ImageSet::named(text, size) else {
            return match asset(text) {
                Some(_) => self.explain(format!("{option} {text}: expected images, found weights")),
                None => self.nothing_at(option, text, true),
            };
        };
        if set.is_here(Path::new("")) {
            *text = set.folder.display().to_string();
            return Ok(());
        }
        let problem = format!(
            "{option} {text} is missing: expected {}, found nothing there\n  \
             get it with    cargo xtask data prepare {} --size {}\n  \
             or with        {} and cargo xtask data prepare {} ..\n  \
             or give a folder of images that you have",
            set.folder.join(INDEX).display(),
            set.asset.name,
            set.size,
            sdft_assets::fetch_command(set.asset),
            set.asset.name
        );
        self.miss(Need::images(&set), problem)
    }

    /// A network that measures, unless its files were given. Its absence is collected only; the job that reads it reports it.
    pub(crate) fn network(&mut self, name: &str, given: &[String]) {
        let is_given = given
            .iter()
            .any(|text| text.split('=').next() == Some(name));
        let is_here = || HubCache::from_environment().is_ok_and(|cache| cache.locate(name).is_ok());
        if let Some(asset) = asset(name)
            && self.collects
            && !is_given
            && !is_here()
            && !self.needs.contains(&Need::asset(asset))
        {
            self.needs.push(Need::asset(asset));
        }
    }

    /// Whether a text is a path where something is, or the name of an embedded model or set. These names hide paths, which is noted.
    fn is_at_hand(&self, text: &str) -> bool {
        let exists = Path::new(text).exists();
        if exists && is_embedded(text) && !self.collects && !self.keeps_paths {
            console::note(format!(
                "{text} is the name of one in the program; write ./{text} for the path"
            ));
        }
        text.is_empty() || exists || is_embedded(text)
    }

    /// An error that no download corrects. It also stops collecting, so that nothing is downloaded for a command that cannot start.
    fn explain(&self, problem: String) -> Result<()> {
        Err(usage(problem))
    }

    /// Reports text that is neither a name nor the path of anything.
    fn nothing_at(&self, option: &str, text: &str, images: bool) -> Result<()> {
        let near = match text.contains(['/', '\\', '.']) {
            true => Vec::new(),
            false => known_near(text, images),
        };
        if !near.is_empty() {
            return self.explain(format!(
                "{option} {text}: neither a path here nor a known name{} (`cargo xtask fetch --list` shows all names)",
                suggest(&near)
            ));
        }
        self.path(option, Path::new(text), !images)
    }

    /// A path that must lead to something; to a run or a file of it if `in_run`.
    pub(crate) fn path(&self, option: &str, path: &Path, in_run: bool) -> Result<()> {
        if self.keeps_paths || path.exists() {
            return Ok(());
        }
        let runs = || runs_near(path).filter(|_| in_run);
        let near = match similar_path(path) {
            similar if similar.ends_with('?') => similar,
            no_folder => runs().map_or(no_folder, |runs| format!("; {runs}")),
        };
        let path = path.display();
        self.explain(format!("{option} {path}: no such file or folder{near}"))
    }
}

/// The known names that a text may stand for.
fn known_near(text: &str, images: bool) -> Vec<&'static str> {
    let of_kind = assets().iter().filter(|asset| asset.is_images() == images);
    let of_kind = of_kind.map(|asset| asset.name.as_str());
    let others = elsewhere()
        .iter()
        .filter(|known| known.file.starts_with("data/") == images);
    let embedded = match images {
        true => &sdft_jobs::EMBEDDED_IMAGES[..],
        false => &sdft_jobs::EMBEDDED_MODELS,
    };
    let names = of_kind.chain(others.map(|known| known.name.as_str()));
    similar(text, names.chain(embedded.iter().copied()))
}
