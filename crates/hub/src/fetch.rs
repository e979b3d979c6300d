//! Fetching files: from the cache, or from the server with retries.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use futures::StreamExt as _;
use hf_hub::{HFClient, repository::RepoTreeEntry, split_id};
use sdft_assets::{Asset, HubFile, Remote, RepoType, recorded_hash};
use tokio::runtime::Runtime;

use crate::{
    HubError, Result, Settings,
    cache_entry::CacheEntry,
    client::{Failure, FileMetadata, HubClient, Source},
    digest::Hash,
    transfer::transfer,
};

/// How many files are listed to suggest a similar path.
const HINT_FILES: usize = 10_000;

/// A file on a server, with its size and hash if they are known beforehand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Repository, revision and path, or the address on another server.
    pub file: Remote,
    /// Size in bytes, if known.
    pub size: Option<u64>,
    /// SHA-256 as 64 hexadecimal digits, if known.
    pub sha256: Option<String>,
}

impl Wanted {
    /// All files of an asset.
    pub fn of_asset(asset: &Asset) -> Vec<Self> {
        let files = asset.files.iter().map(|file| Self {
            file: asset.remote(file),
            size: file.size,
            sha256: file.sha256.clone(),
        });
        files.collect()
    }
}

impl From<Remote> for Wanted {
    fn from(file: Remote) -> Self {
        Self {
            file,
            size: None,
            sha256: None,
        }
    }
}

impl From<HubFile> for Wanted {
    fn from(file: HubFile) -> Self {
        Remote::Hub(file).into()
    }
}

/// Receives the progress of a download. All methods do nothing by default.
pub trait FetchProgress {
    /// A download of `size` bytes starts; `None` if the size is not known.
    fn begin(&mut self, _name: &str, _size: Option<u64>) {}
    /// `have` bytes have been downloaded, those of earlier calls included.
    fn bytes(&mut self, _have: u64) {}
    /// The download is complete and its hash is being computed.
    fn verifying(&mut self) {}
    /// A message for the user.
    fn note(&mut self, _text: &str) {}
    /// The file is complete and verified.
    fn done(&mut self) {}
}

/// Ignores all progress.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoopFetchProgress;

impl FetchProgress for NoopFetchProgress {}

/// A verified file in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Path in the cache.
    pub path: PathBuf,
    /// Whether it was in the cache before the call.
    pub was_cached: bool,
    /// Its hash, with which later calls compare it; `None` for a copy whose hash is not known.
    pub hash: Option<String>,
}

/// Fetches files into the cache.
pub struct Fetcher {
    pub(crate) client: HubClient,
    runtime: Runtime,
}

impl Fetcher {
    /// A fetcher with these settings. It opens no connection.
    ///
    /// # Errors
    /// Fails if the server's address is invalid or the network client cannot be created.
    pub fn new(settings: Settings) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| HubError::Environment(format!("no network client: {e}")))?;
        Ok(Self {
            client: HubClient::new(settings)?,
            runtime,
        })
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.client.settings
    }

    /// Returns a file from the cache, or downloads it; verifies its hash in both cases.
    ///
    /// An interrupted download is resumed. If another process is fetching the same file, this call waits for it. A file of a branch stays at
    /// the commit that was fetched first. The hash of a file of another server is recorded by its first download, and compared by later calls.
    ///
    /// # Errors
    /// See [`HubError`]. After an error, no file with unverified content has the file's name.
    pub fn fetch(&self, wanted: &Wanted, progress: &mut dyn FetchProgress) -> Result<Fetched> {
        match &wanted.file {
            Remote::Hub(file) => file.check()?,
            Remote::Web(file) => file.check()?,
        }
        if let Some(fetched) = self.find_in_cache(wanted, progress)? {
            return Ok(fetched);
        }
        if self.client.settings.offline {
            return Err(HubError::Offline {
                what: wanted.file.to_string(),
                expected_path: self.expected_path(&wanted.file),
            });
        }
        match &wanted.file {
            Remote::Hub(file) => self.runtime.block_on(self.download(file, wanted, progress)),
            Remote::Web(file) => self
                .runtime
                .block_on(self.download_web(file, wanted, progress)),
        }
    }

    /// Lists the files of a repository whose paths begin with the folder's path, which ends in `/`.
    ///
    /// # Errors
    /// Fails if the server does not respond or the network is disabled.
    pub fn files_below(&self, folder: &HubFile) -> Result<Vec<HubFile>> {
        let what = folder.to_string();
        if self.client.settings.offline {
            return Err(HubError::Environment(format!(
                "{what}: the server must list the folder, and the network is disabled"
            )));
        }
        let timeout = self.client.settings.retry.read_timeout;
        let paths = self
            .runtime
            .block_on(self.list(folder, 2 * timeout, usize::MAX))?;
        let below = paths
            .into_iter()
            .filter(|path| path.starts_with(&folder.path));
        below
            .map(|path| {
                let file = HubFile {
                    path,
                    ..folder.clone()
                };
                // The server chooses these names, so they must be checked.
                file.check()?;
                Ok(file)
            })
            .collect()
    }

    /// Lists up to `most` paths of a repository with the Hub's API, within a time limit.
    async fn list(&self, file: &HubFile, within: Duration, most: usize) -> Result<Vec<String>> {
        let listed = tokio::time::timeout(within, self.list_pages(file, most));
        listed.await.unwrap_or_else(|_| {
            Err(HubError::Unreachable {
                what: file.to_string(),
                server: self.client.server(),
                reason: format!("timed out listing its files after {} s", within.as_secs()),
            })
        })
    }

    async fn list_pages(&self, file: &HubFile, most: usize) -> Result<Vec<String>> {
        let failed = |error: hf_hub::HFError| {
            // The client's own message contains addresses.
            let reason = match &error {
                hf_hub::HFError::RepoNotFound { .. } => "the repository does not exist",
                hf_hub::HFError::RevisionNotFound { .. } => "the revision does not exist",
                hf_hub::HFError::AuthRequired { .. } | hf_hub::HFError::Forbidden { .. } => {
                    "access denied; a token may be needed (set HF_TOKEN)"
                }
                _ => "its files cannot be listed",
            };
            HubError::Unreachable {
                what: file.to_string(),
                server: self.client.server(),
                reason: reason.to_owned(),
            }
        };
        let settings = &self.client.settings;
        let mut builder = HFClient::builder()
            .endpoint(&settings.endpoint)
            .cache_dir(settings.cache.root());
        if let Some(token) = settings.token.get() {
            builder = builder.token(token);
        }
        // The default client has no timeout.
        builder = builder.client(self.client.client());
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

    fn expected_path(&self, file: &Remote) -> PathBuf {
        match self.client.settings.cache.locate_remote(file) {
            Err(sdft_assets::Error::Missing { expected_path, .. }) => expected_path,
            _ => self.client.settings.cache.root().to_owned(),
        }
    }

    /// The file in the cache, if it has the expected size and hash.
    pub(crate) fn find_in_cache(
        &self,
        wanted: &Wanted,
        progress: &mut dyn FetchProgress,
    ) -> Result<Option<Fetched>> {
        let Ok(path) = self.client.settings.cache.locate_remote(&wanted.file) else {
            return Ok(None);
        };
        let Err((found, expected)) = matches(&path, wanted)? else {
            return Ok(Some(Fetched {
                hash: recorded_hash(&path).or_else(|| wanted.sha256.clone()),
                path,
                was_cached: true,
            }));
        };
        if self.client.settings.offline {
            return Err(HubError::Damaged {
                what: wanted.file.to_string(),
                path,
                found,
                expected,
            });
        }
        // It stays until it is replaced.
        progress.note(&format!(
            "{}: damaged or another file ({found}, expected {expected}); fetching it again",
            path.display()
        ));
        Ok(None)
    }

    async fn download(
        &self,
        file: &HubFile,
        wanted: &Wanted,
        progress: &mut dyn FetchProgress,
    ) -> Result<Fetched> {
        let metadata = self.resolve(file, wanted, progress).await?;
        let entry = CacheEntry::of(
            &self.client.settings.cache,
            file,
            &metadata.commit,
            &metadata.hash,
        );
        let what = file.to_string();
        let lock = entry.lock(|| {
            progress.note(&format!(
                "{what}: waiting for another process that is fetching it"
            ));
        })?;
        // The other process may have finished it, or another revision may have the same bytes.
        if !entry.has_blob(&metadata.hash)? {
            progress.begin(&what, metadata.size);
            let url = self.client.address(file, &metadata.commit)?;
            let source = Source::hub(what, url, metadata.size);
            let hash = Some(&metadata.hash);
            transfer(&self.client, &source, hash, &entry, progress).await?;
            entry.finish()?;
            progress.done();
        }
        entry.link_snapshot()?;
        drop(lock);
        Ok(Fetched {
            path: entry.snapshot,
            was_cached: false,
            hash: Some(metadata.hash.hex().to_owned()),
        })
    }

    /// The metadata of the file at the commit at which its branch was first fetched, so that files fetched at different times match. If the file
    /// exists only at the branch's current commit, the recorded commit moves there.
    async fn resolve(
        &self,
        file: &HubFile,
        wanted: &Wanted,
        progress: &mut dyn FetchProgress,
    ) -> Result<FileMetadata> {
        let recorded =
            self.client
                .settings
                .cache
                .commit(file.repo_type, &file.repo, &file.revision);
        if let Some(commit) = recorded.filter(|commit| *commit != file.revision) {
            let pinned = HubFile {
                revision: commit,
                ..file.clone()
            };
            match self.metadata(&pinned, wanted, progress).await {
                Err(HubError::Refused { status: 404, .. }) => {}
                other => return other,
            }
        }
        match self.metadata(file, wanted, progress).await {
            Err(HubError::Refused {
                what,
                server,
                status: 404,
                meaning,
            }) => {
                let timeout = self.client.settings.retry.read_timeout;
                // A typing error in the path is the usual cause.
                let names = self
                    .list(file, timeout.min(Duration::from_secs(10)), HINT_FILES)
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

    /// The file's metadata, with retries.
    async fn metadata(
        &self,
        file: &HubFile,
        wanted: &Wanted,
        progress: &mut dyn FetchProgress,
    ) -> Result<FileMetadata> {
        let (what, server) = (file.to_string(), self.client.server());
        let ask = async || self.client.metadata(file, wanted).await;
        self.retrying(what, server, progress, ask).await
    }

    /// The result of a request, repeated as the settings say.
    pub(crate) async fn retrying<T>(
        &self,
        what: String,
        server: String,
        progress: &mut dyn FetchProgress,
        ask: impl AsyncFn() -> std::result::Result<T, Failure>,
    ) -> Result<T> {
        let retry = &self.client.settings.retry;
        let mut failures = 0;
        loop {
            failures += 1;
            let (reason, retry_after, limit) = match ask().await {
                Ok(found) => return Ok(found),
                Err(Failure::Permanent(error)) => return Err(error),
                Err(Failure::Unreachable(reason)) => (reason, None, retry.max_connect_attempts),
                Err(Failure::Transient {
                    reason,
                    retry_after,
                }) => (reason, retry_after, retry.max_attempts),
            };
            if failures >= limit || retry_after.is_some_and(|delay| delay > retry.max_retry_after) {
                return Err(HubError::Unreachable {
                    what,
                    server,
                    reason,
                });
            }
            let wait = retry.delay(failures, retry_after);
            progress.note(&format!(
                "{what}: {reason}; trying again in {:.1} s",
                wait.as_secs_f64()
            ));
            tokio::time::sleep(wait).await;
        }
    }
}

/// Whether a file has the wanted size and hash, and the hash that its name in the cache records. `Err` holds what was found and expected.
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
        .filter_map(|name| Hash::parse(name))
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
