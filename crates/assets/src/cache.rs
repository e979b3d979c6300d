use crate::error::{Error, Result};
use crate::manifest::{Asset, AssetFile, RepoType, asset, elsewhere};
use crate::names::nearest;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Where the official client keeps what it downloaded.
///
/// A repository is the folder `models--OWNER--NAME` or `datasets--OWNER--NAME`; in it `snapshots/COMMIT/PATH` is a file, and
/// `refs/REVISION` holds the commit a branch or a pull request was at when it was downloaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubCache {
    root: PathBuf,
    /// Whether the client finds this place by itself.
    is_default: bool,
}

impl HubCache {
    /// The place the environment names, as the Python client reads it: `HF_HUB_CACHE`, else `HUGGINGFACE_HUB_CACHE`, else `hub`
    /// in `HF_HOME`, else `huggingface/hub` in `XDG_CACHE_HOME`, else in `.cache` of the home folder.
    ///
    /// A variable that is set to nothing counts as not set; `~` at the start of the first three is the home folder. Whether
    /// there is such a folder is not looked at.
    ///
    /// # Errors
    /// None of the variables is set, `HOME` included.
    pub fn from_environment() -> Result<Self> {
        Self::from_variables(|name| std::env::var_os(name))
    }

    /// A cache in this folder.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            is_default: false,
        }
    }

    fn from_variables(get: impl Fn(&str) -> Option<OsString>) -> Result<Self> {
        let folder = |name: &str| {
            get(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        let home = || folder("HOME").or_else(|| folder("USERPROFILE"));
        let expanded = |name: &str| {
            let path = folder(name)?;
            Some(match (path.strip_prefix("~"), home()) {
                (Ok(rest), Some(home)) => home.join(rest),
                _ => path,
            })
        };
        let root = expanded("HF_HUB_CACHE")
            .or_else(|| expanded("HUGGINGFACE_HUB_CACHE"))
            .or_else(|| Some(expanded("HF_HOME")?.join("hub")))
            .or_else(|| {
                let caches = folder("XDG_CACHE_HOME").or_else(|| Some(home()?.join(".cache")))?;
                Some(caches.join("huggingface").join("hub"))
            })
            .ok_or(Error::NoHome)?;
        Ok(Self {
            root,
            is_default: true,
        })
    }

    /// The folder of all repositories.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where `file` of `asset` is, if it was downloaded. Its size is not looked at.
    pub fn find(&self, asset: &Asset, file: &AssetFile) -> Option<PathBuf> {
        self.look(asset, file).ok()
    }

    /// Where all files of the asset of this name are, in the order of the manifest.
    ///
    /// # Errors
    /// There is no asset of this name · it is not on the Hub · a file was not downloaded (the message has the command that does it)
    /// · a file has another size than the manifest says.
    pub fn locate(&self, name: &str) -> Result<Vec<PathBuf>> {
        let Some(asset) = asset(name) else {
            return Err(match elsewhere().iter().find(|known| known.name == name) {
                Some(known) => Error::NotOnHub {
                    name: name.to_owned(),
                    how: known.how.clone(),
                },
                None => Error::Unknown {
                    name: name.to_owned(),
                    nearest: nearest(name).to_owned(),
                },
            });
        };
        self.locate_asset(asset)
    }

    fn locate_asset(&self, asset: &Asset) -> Result<Vec<PathBuf>> {
        let mut paths = Vec::with_capacity(asset.files.len());
        for file in &asset.files {
            let path = self.look(asset, file).map_err(|looked_at| Error::Missing {
                name: asset.name.clone(),
                looked_at,
                command: self.command(asset),
            })?;
            if let Some(expected) = file.size {
                let found = match path.metadata() {
                    Ok(metadata) => metadata.len(),
                    Err(source) => return Err(Error::Io { path, source }),
                };
                if found != expected {
                    return Err(Error::Size {
                        name: asset.name.clone(),
                        path,
                        expected,
                        found,
                        command: self.command(asset),
                    });
                }
            }
            paths.push(path);
        }
        Ok(paths)
    }

    /// The file, or else the path where something was missing.
    fn look(&self, asset: &Asset, file: &AssetFile) -> std::result::Result<PathBuf, PathBuf> {
        let kind = match asset.repo_type {
            RepoType::Model => "models",
            RepoType::Dataset => "datasets",
        };
        let repository = self
            .root
            .join(format!("{kind}--{}", asset.repo.replace('/', "--")));
        let commit = if is_commit(&asset.revision) {
            asset.revision.clone()
        } else {
            // A pull request's revision begins with refs/ itself, and the client does not take that off.
            let note = repository.join("refs").join(&asset.revision);
            match std::fs::read_to_string(&note) {
                Ok(commit) if is_commit(commit.trim()) => commit.trim().to_owned(),
                _ => return Err(note),
            }
        };
        let path = repository.join("snapshots").join(commit).join(&file.path);
        if path.is_file() { Ok(path) } else { Err(path) }
    }

    /// What downloads an asset into this cache.
    fn command(&self, asset: &Asset) -> String {
        let command = fetch_command(asset);
        if self.is_default {
            return command;
        }
        format!("{command} --cache-dir \"{}\"", self.root.display())
    }
}

/// Whether a revision names one state for ever.
fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The command of the official client that downloads all files of an asset to where [`HubCache::from_environment`] looks.
pub fn fetch_command(asset: &Asset) -> String {
    let mut command = format!("hf download {}", asset.repo);
    for file in &asset.files {
        command.push(' ');
        command.push_str(&file.path);
    }
    if asset.repo_type == RepoType::Dataset {
        command.push_str(" --repo-type dataset");
    }
    command + " --revision " + &asset.revision
}

#[cfg(test)]
mod tests;
