use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use futures::StreamExt as _;
use hf_hub::{HFClient, repository::RepoTreeEntry, split_id};
use sdft_assets::{Asset, HubFile, RepoType, recorded_hash};
use tokio::runtime::Runtime;

use crate::{
    HubError, Result, Settings,
    ask::{Answer, Failure, Web},
    digest::Hash,
    store::BlobPaths,
    transfer::transfer,
};

/// How many files a hint looks at.
const HINT_FILES: usize = 10_000;

/// A file of the Hub, and what it must be as far as that is known beforehand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The file.
    pub file: HubFile,
    /// Its length in bytes.
    pub size: Option<u64>,
    /// Its hash, 64 hexadecimal digits.
    pub sha256: Option<String>,
}

impl Wanted {
    /// The files of an asset.
    pub fn of_asset(asset: &Asset) -> Vec<Self> {
        let files = asset.files.iter().map(|file| Self {
            file: HubFile {
                repo_type: asset.repo_type,
                repo: asset.repo.clone(),
                revision: asset.revision.clone(),
                path: file.path.clone(),
            },
            size: file.size,
            sha256: file.sha256.clone(),
        });
        files.collect()
    }
}

impl From<HubFile> for Wanted {
    fn from(file: HubFile) -> Self {
        Self {
            file,
            size: None,
            sha256: None,
        }
    }
}

/// Hears how a transfer goes.
pub trait FetchProgress {
    /// A file of this length, if that is known, begins to arrive.
    fn begin(&mut self, _name: &str, _size: Option<u64>) {}
    /// So many of its bytes are here.
    fn bytes(&mut self, _have: u64) {}
    /// Its hash is computed.
    fn verifying(&mut self) {}
    /// Something the user should know.
    fn note(&mut self, _text: &str) {}
    /// The file is here.
    fn done(&mut self) {}
}

/// Hears nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quiet;

impl FetchProgress for Quiet {}

/// A file that is here, verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Its path in the cache.
    pub path: PathBuf,
    /// Whether it was here before.
    pub was_here: bool,
    /// Its hash, as it will be compared with from now on.
    pub hash: Option<String>,
}

/// Brings files into the cache.
pub struct Fetcher {
    web: Web,
    runtime: Runtime,
}

impl Fetcher {
    /// A fetcher; opens no connection yet.
    ///
    /// # Errors
    /// A server's address that is none, or no network client in this system.
    pub fn new(settings: Settings) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| HubError::Environment(format!("no network client: {e}")))?;
        Ok(Self {
            web: Web::new(settings)?,
            runtime,
        })
    }

    /// Where from, where to.
    pub fn settings(&self) -> &Settings {
        &self.web.settings
    }

    /// The file, from the cache or from the server, verified by its hash.
    ///
    /// What a broken transfer brought is kept and built upon. If another process fetches the same file, this one waits for it. A file of a
    /// branch stays the one that was fetched first.
    ///
    /// # Errors
    /// See [`HubError`]; whatever happens, no other bytes than the right ones have the file's name.
    pub fn fetch(&self, wanted: &Wanted, watch: &mut dyn FetchProgress) -> Result<Fetched> {
        wanted.file.check()?;
        if let Some(fetched) = self.look_in_cache(wanted, watch)? {
            return Ok(fetched);
        }
        if self.web.settings.offline {
            return Err(HubError::Offline {
                what: wanted.file.to_string(),
                looked_at: self.looked_at(&wanted.file),
            });
        }
        self.runtime.block_on(self.download(wanted, watch))
    }

    /// The files of a repository whose paths begin with this one's, which ends in `/`.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub fn files_below(&self, folder: &HubFile) -> Result<Vec<HubFile>> {
        let what = folder.to_string();
        if self.web.settings.offline {
            return Err(HubError::Environment(format!(
                "{what}: what is in a folder is asked of the server, and the network may not be used"
            )));
        }
        let patience = self.web.settings.patience.stall;
        let paths = self
            .runtime
            .block_on(self.list(folder, 2 * patience, usize::MAX))?;
        let below = paths
            .into_iter()
            .filter(|path| path.starts_with(&folder.path));
        below
            .map(|path| {
                let file = HubFile {
                    path,
                    ..folder.clone()
                };
                // A server may call its files what it likes.
                file.check()?;
                Ok(file)
            })
            .collect()
    }

    /// Paths of a repository, by the API of the Hub; up to so many, within this time.
    async fn list(&self, file: &HubFile, within: Duration, most: usize) -> Result<Vec<String>> {
        let listed = tokio::time::timeout(within, self.list_at_leisure(file, most));
        listed.await.unwrap_or_else(|_| {
            Err(HubError::Unreachable {
                what: file.to_string(),
                server: self.web.server(),
                reason: format!("its files were not listed within {} s", within.as_secs()),
            })
        })
    }

    async fn list_at_leisure(&self, file: &HubFile, most: usize) -> Result<Vec<String>> {
        let failed = |error: hf_hub::HFError| {
            // The client's own text has addresses in it.
            let reason = match &error {
                hf_hub::HFError::RepoNotFound { .. } => "there is no such repository",
                hf_hub::HFError::RevisionNotFound { .. } => "there is no such revision",
                hf_hub::HFError::AuthRequired { .. } | hf_hub::HFError::Forbidden { .. } => {
                    "access is refused; a token may be needed (set HF_TOKEN)"
                }
                _ => "its files cannot be listed",
            };
            HubError::Unreachable {
                what: file.to_string(),
                server: self.web.server(),
                reason: reason.to_owned(),
            }
        };
        let settings = &self.web.settings;
        let mut builder = HFClient::builder()
            .endpoint(&settings.endpoint)
            .cache_dir(settings.cache.root());
        if let Some(token) = settings.token.get() {
            builder = builder.token(token);
        }
        // The one it would make waits for ever.
        builder = builder.client(self.web.client());
        let client = builder.build().map_err(failed)?;
        let (owner, name) = split_id(&file.repo);
        let mut paths = Vec::new();
        macro_rules! collect {
            ($repository:expr) => {{
                let repository = $repository;
                let entries = repository
                    .list_tree()
                    .revision(file.revision.clone())
                    .recursive(true)
                    .send()
                    .map_err(failed)?;
                let mut entries = std::pin::pin!(entries);
                while let Some(entry) = entries.next().await {
                    if let RepoTreeEntry::File { path, .. } = entry.map_err(failed)? {
                        paths.push(path);
                        if paths.len() == most {
                            break;
                        }
                    }
                }
            }};
        }
        match file.repo_type {
            RepoType::Model => collect!(client.model(owner, name)),
            RepoType::Dataset => collect!(client.dataset(owner, name)),
        }
        Ok(paths)
    }

    fn looked_at(&self, file: &HubFile) -> PathBuf {
        match self.web.settings.cache.locate_file(file) {
            Err(sdft_assets::Error::Missing { looked_at, .. }) => looked_at,
            _ => self.web.settings.cache.root().to_owned(),
        }
    }

    /// A file that was fetched before, if it is still what it was.
    fn look_in_cache(
        &self,
        wanted: &Wanted,
        watch: &mut dyn FetchProgress,
    ) -> Result<Option<Fetched>> {
        let Ok(path) = self.web.settings.cache.locate_file(&wanted.file) else {
            return Ok(None);
        };
        let Err((found, expected)) = matches(&path, wanted)? else {
            return Ok(Some(Fetched {
                hash: recorded_hash(&path).or_else(|| wanted.sha256.clone()),
                path,
                was_here: true,
            }));
        };
        if self.web.settings.offline {
            return Err(HubError::Damaged {
                what: wanted.file.to_string(),
                path,
                found,
                expected,
            });
        }
        // It stays until there is something better.
        watch.note(&format!(
            "{}: damaged or another file ({found}, expected {expected}); it is fetched again",
            path.display()
        ));
        Ok(None)
    }

    async fn download(&self, wanted: &Wanted, watch: &mut dyn FetchProgress) -> Result<Fetched> {
        let answer = self.ask_near(wanted, watch).await?;
        let place = BlobPaths::of(
            &self.web.settings.cache,
            &wanted.file,
            &answer.commit,
            &answer.hash,
        );
        let what = wanted.file.to_string();
        let lock = place.lock(|| {
            watch.note(&format!(
                "{what}: waiting for another process that fetches it"
            ));
        })?;
        // Whoever had the lock may have finished it; another revision may have had the same bytes.
        if !place.has_blob(&answer.hash)? {
            watch.begin(&what, answer.size);
            transfer(&self.web, wanted, &answer, &place, watch).await?;
            watch.done();
        }
        place.publish()?;
        drop(lock);
        Ok(Fetched {
            path: place.snapshot,
            was_here: false,
            hash: Some(answer.hash.name().to_owned()),
        })
    }

    /// Asks for the file at the commit that its branch was first seen at, so that files fetched together stay together; a file that is not
    /// there, but at the branch now, moves the note of the branch.
    async fn ask_near(&self, wanted: &Wanted, watch: &mut dyn FetchProgress) -> Result<Answer> {
        let file = &wanted.file;
        let noted = self
            .web
            .settings
            .cache
            .commit(file.repo_type, &file.repo, &file.revision);
        if let Some(commit) = noted.filter(|commit| *commit != file.revision) {
            let mut then = wanted.clone();
            then.file.revision = commit;
            match self.ask(&then, watch).await {
                Err(HubError::Refused { status: 404, .. }) => {}
                other => return other,
            }
        }
        match self.ask(wanted, watch).await {
            Err(HubError::Refused {
                what,
                server,
                status: 404,
                meaning,
            }) => {
                let patience = self.web.settings.patience.stall;
                // A slip in the path is the usual cause.
                let names = self
                    .list(file, patience.min(Duration::from_secs(10)), HINT_FILES)
                    .await
                    .unwrap_or_default();
                let near = sdft_files::nearest(&file.path, names.iter().map(String::as_str));
                Err(HubError::Refused {
                    what,
                    server,
                    status: 404,
                    meaning: match near {
                        Some(near) => {
                            format!("{meaning}; the nearest of {} files is {near}", names.len())
                        }
                        None => meaning,
                    },
                })
            }
            other => other,
        }
    }

    /// Asks until there is an answer.
    async fn ask(&self, wanted: &Wanted, watch: &mut dyn FetchProgress) -> Result<Answer> {
        let patience = &self.web.settings.patience;
        let what = wanted.file.to_string();
        let mut failures = 0;
        loop {
            failures += 1;
            let (reason, asked, limit) = match self.web.ask(wanted).await {
                Ok(answer) => return Ok(answer),
                Err(Failure::Lasting(error)) => return Err(error),
                Err(Failure::Unreachable(reason)) => (reason, None, patience.attempts_to_connect),
                Err(Failure::Passing { reason, asked }) => (reason, asked, patience.attempts),
            };
            if failures >= limit || asked.is_some_and(|asked| asked > patience.longest_asked) {
                return Err(HubError::Unreachable {
                    what,
                    server: self.web.server(),
                    reason,
                });
            }
            let wait = patience.wait(failures, asked);
            watch.note(&format!(
                "{what}: {reason}; trying again in {:.1} s",
                wait.as_secs_f64()
            ));
            tokio::time::sleep(wait).await;
        }
    }
}

/// Whether a file is what is wanted and what its name in the cache says; else what was found and what was expected.
fn matches(path: &Path, wanted: &Wanted) -> Result<std::result::Result<(), (String, String)>> {
    let len = std::fs::metadata(path)
        .map_err(crate::error::io(path))?
        .len();
    if let Some(size) = wanted.size
        && size != len
    {
        return Ok(Err((format!("{len} bytes"), format!("{size} bytes"))));
    }
    let names = [wanted.sha256.clone(), recorded_hash(path)];
    let mut hashes: Vec<Hash> = names
        .iter()
        .flatten()
        .filter_map(|name| Hash::named(name))
        .collect();
    hashes.dedup();
    for expected in hashes {
        let found = expected.of_file(path)?;
        if found != expected {
            return Ok(Err((found.to_string(), expected.to_string())));
        }
    }
    Ok(Ok(()))
}
