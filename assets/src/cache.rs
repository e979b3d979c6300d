//! The cache of the official Hub client.

use crate::error::{Error, Result};
use crate::manifest::{Asset, AssetFile, Place, Remote, RepoType, asset, elsewhere, names};
use crate::place::HubFile;
use crate::web::WebFile;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The folder in which the official client keeps downloads.
///
/// A repository is the folder `models--OWNER--NAME` or `datasets--OWNER--NAME`; in it `snapshots/COMMIT/PATH` is a file, and
/// `refs/REVISION` has the commit of a branch or a pull request at the time of its download. Files of other servers are in a folder of their
/// own, where the client's users keep theirs: `HOST/files/PATH`, links to `HOST/blobs/SHA256`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubCache {
    root: PathBuf,
    /// The folder of files of other servers.
    web: PathBuf,
    /// Whether this is the client's default.
    is_default: bool,
}

impl HubCache {
    /// The folder of the environment, as in the Python client: `HF_HUB_CACHE`, else `HUGGINGFACE_HUB_CACHE`, else `hub`
    /// in `HF_HOME`, else `huggingface/hub` in `XDG_CACHE_HOME`, else in `.cache` of the home folder.
    ///
    /// An empty variable counts as not set; `~` at the start of the first three is the home folder. The folder may be missing.
    /// Files of other servers are in `sdft` in `HF_ASSETS_CACHE`, else in `assets` next to that folder.
    ///
    /// # Errors
    /// None of the variables is set, `HOME` included.
    pub fn from_environment() -> Result<Self> {
        Self::from_variables(|name| std::env::var_os(name))
    }

    /// A cache in this folder; files of other servers are in `web` in it.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        let root = root.into();
        Self {
            web: root.join("web"),
            root,
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
        let assets = expanded("HF_ASSETS_CACHE").unwrap_or_else(|| root.with_file_name("assets"));
        Ok(Self {
            web: assets.join("sdft"),
            root,
            is_default: true,
        })
    }

    /// The folder of all repositories.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The path of `file` of `asset`, if it was downloaded. Its size is not compared.
    pub fn find(&self, asset: &Asset, file: &AssetFile) -> Option<PathBuf> {
        self.locate_remote(&asset.remote(file)).ok()
    }

    /// The paths of all files of the asset of this name, in the order of the manifest.
    ///
    /// # Errors
    /// There is no asset of this name, it is not on the Hub, a file was not downloaded (the message has the command), or a file has
    /// another size than in the manifest.
    pub fn locate(&self, name: &str) -> Result<Vec<PathBuf>> {
        let Some(asset) = asset(name) else {
            return Err(match elsewhere().iter().find(|known| known.name == name) {
                Some(known) => Error::NotOnHub {
                    name: name.to_owned(),
                    how: known.how.clone(),
                    file: PathBuf::from(&known.file),
                },
                None => Error::Unknown {
                    name: name.to_owned(),
                    hint: sdft_files::did_you_mean(name, names()),
                },
            });
        };
        self.locate_asset(asset)
    }

    /// Like [`HubCache::locate`], and compares each file with its hash in the manifest, or with the hash of its download. Reads the files
    /// once.
    ///
    /// # Errors
    /// Those of [`HubCache::locate`]; a file cannot be read or has another hash.
    pub fn locate_verified(&self, name: &str) -> Result<Vec<PathBuf>> {
        let paths = self.locate(name)?;
        let known = asset(name).map_or(&[][..], |asset| &asset.files);
        for (path, known) in paths.iter().zip(known) {
            // Forty digits are git's hash of a small file, which is text.
            let recorded = || recorded_hash(path).filter(|hash| hash.len() == 64);
            let Some(expected) = known.sha256.clone().or_else(recorded) else {
                continue;
            };
            let found = sdft_files::sha256_file(path).map_err(|source| Error::Io {
                path: path.clone(),
                source,
            })?;
            if found != expected {
                return Err(Error::Hash {
                    name: name.to_owned(),
                    path: path.clone(),
                    expected,
                    found,
                });
            }
        }
        Ok(paths)
    }

    /// The path of a file of a repository.
    ///
    /// # Errors
    /// The file was not downloaded.
    pub fn locate_file(&self, file: &HubFile) -> Result<PathBuf> {
        self.path_of(file.repo_type, &file.repo, &file.revision, &file.path)
            .map_err(|expected_path| Error::Missing {
                name: file.to_string(),
                expected_path,
                command: self.command(&file.command()),
            })
    }

    /// The expected path of a file of another server, whether it was downloaded or not.
    ///
    /// # Errors
    /// The address is not a plain one.
    pub fn path_of_web(&self, file: &WebFile) -> Result<PathBuf> {
        file.check()?;
        Ok(self.web_folder(file).join("files").join(file.path()))
    }

    /// The folder of all files of a file's server.
    pub fn web_folder(&self, file: &WebFile) -> PathBuf {
        self.web.join(file.host())
    }

    /// The path of a file on a server, if it was downloaded.
    ///
    /// # Errors
    /// The file was not downloaded.
    pub fn locate_remote(&self, remote: &Remote) -> Result<PathBuf> {
        match remote {
            Remote::Hub(file) => self.locate_file(file),
            Remote::Web(file) => {
                let path = self.path_of_web(file)?;
                match path.is_file() {
                    true => Ok(path),
                    false => Err(Error::Missing {
                        name: file.to_string(),
                        expected_path: path,
                        command: format!("curl --fail -O {file}"),
                    }),
                }
            }
        }
    }

    /// The folder of a repository.
    pub fn repository(&self, repo_type: RepoType, repo: &str) -> PathBuf {
        self.root.join(repository_name(repo_type, repo))
    }

    /// The file that a process locks while it downloads the file with this hash.
    pub fn lock(&self, repo_type: RepoType, repo: &str, hash: &str) -> PathBuf {
        self.root
            .join(".locks")
            .join(repository_name(repo_type, repo))
            .join(format!("{hash}.lock"))
    }

    /// The commit of a revision at the time of its first download.
    pub fn commit(&self, repo_type: RepoType, repo: &str, revision: &str) -> Option<String> {
        if is_commit(revision) {
            return Some(revision.to_owned());
        }
        let note = self.note(repo_type, repo, revision);
        let commit = std::fs::read_to_string(note).ok()?.trim().to_owned();
        is_commit(&commit).then_some(commit)
    }

    /// The file with [`HubCache::commit`]. The revision of a pull request starts with `refs/`, which the client keeps.
    pub fn note(&self, repo_type: RepoType, repo: &str, revision: &str) -> PathBuf {
        self.repository(repo_type, repo).join("refs").join(revision)
    }

    fn locate_asset(&self, asset: &Asset) -> Result<Vec<PathBuf>> {
        let mut paths = Vec::with_capacity(asset.files.len());
        for file in &asset.files {
            let path = self
                .locate_remote(&asset.remote(file))
                .map_err(|error| match error {
                    Error::Missing { expected_path, .. } => Error::Missing {
                        name: asset.name.clone(),
                        expected_path,
                        command: match asset.place {
                            Place::Hub { .. } => self.command(&fetch_command(asset)),
                            Place::Web { .. } => fetch_command(asset),
                        },
                    },
                    error => error,
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
                    });
                }
            }
            paths.push(path);
        }
        Ok(paths)
    }

    /// The file, or the missing path.
    fn path_of(
        &self,
        repo_type: RepoType,
        repo: &str,
        revision: &str,
        file: &str,
    ) -> std::result::Result<PathBuf, PathBuf> {
        let Some(commit) = self.commit(repo_type, repo, revision) else {
            return Err(self.note(repo_type, repo, revision));
        };
        let snapshots = self.repository(repo_type, repo).join("snapshots");
        let path = snapshots.join(commit).join(file);
        if path.is_file() { Ok(path) } else { Err(path) }
    }

    /// The command of the official client for this cache.
    fn command(&self, command: &str) -> String {
        if self.is_default {
            return command.to_owned();
        }
        format!("{command} --cache-dir \"{}\"", self.root.display())
    }
}

fn repository_name(repo_type: RepoType, repo: &str) -> String {
    let kind = match repo_type {
        RepoType::Model => "models",
        RepoType::Dataset => "datasets",
    };
    format!("{kind}--{}", repo.replace('/', "--"))
}

/// The hash of a file in a cache: the client names files by their hashes.
///
/// 64 hexadecimal digits are its SHA-256, 40 are git's hash of small files; none if the file is not a link into a cache.
pub fn recorded_hash(path: &Path) -> Option<String> {
    let target = std::fs::read_link(path).ok()?;
    let name = target.file_name()?.to_str()?;
    let is_hash = [40, 64].contains(&name.len()) && name.bytes().all(|b| b.is_ascii_hexdigit());
    is_hash.then(|| name.to_owned())
}

/// Whether a revision is a commit, which never changes.
pub fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The command of the official client that downloads all files of an asset to [`HubCache::from_environment`]; for a file of another server the
/// command that downloads it to the working directory.
pub fn fetch_command(asset: &Asset) -> String {
    match &asset.place {
        Place::Hub {
            repo_type,
            repo,
            revision,
        } => {
            let mut command = format!("hf download {repo}");
            for file in &asset.files {
                command.push(' ');
                command.push_str(&file.path);
            }
            if *repo_type == RepoType::Dataset {
                command.push_str(" --repo-type dataset");
            }
            command + " --revision " + revision
        }
        Place::Web { url } => {
            let files = asset.files.iter();
            let files = files.map(|file| format!(" -O {url}/{}", file.path));
            format!("curl --fail{}", files.collect::<String>())
        }
    }
}

#[cfg(test)]
mod tests;
