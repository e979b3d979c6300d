//! Files of servers other than the Hub, which state a length and a version of a file, but no hash.

use reqwest::{
    Method, Url,
    header::{CONTENT_LENGTH, CONTENT_TYPE},
};
use sdft_assets::WebFile;

use crate::{
    HubError, Result,
    cache_entry::CacheEntry,
    client::{Failure, Source, version},
    digest::Hash,
    fetch::{FetchProgress, Fetched, Fetcher, Wanted},
    transfer::transfer,
};

impl Fetcher {
    /// Downloads a file of another server. A file that is replaced during its download is downloaded again from the beginning, once.
    pub(crate) async fn download_web(
        &self,
        file: &WebFile,
        wanted: &Wanted,
        progress: &mut dyn FetchProgress,
    ) -> Result<Fetched> {
        match self.download_version(file, wanted, progress).await {
            Err(HubError::Changed { what }) => {
                progress.note(&format!(
                    "{what}: the file changed on the server; downloading it from the beginning"
                ));
                self.download_version(file, wanted, progress).await
            }
            other => other,
        }
    }

    /// Downloads the version of a file that the server has now.
    async fn download_version(
        &self,
        file: &WebFile,
        wanted: &Wanted,
        progress: &mut dyn FetchProgress,
    ) -> Result<Fetched> {
        let source = self.ask(file, wanted, progress).await?;
        let known = wanted.sha256.as_deref().and_then(Hash::parse);
        let version = format!("{:?} {:?} {known:?}", source.web, source.size);
        let entry = CacheEntry::of_web(&self.client.settings.cache, file, &version)?;
        let what = source.what.clone();
        let lock = entry.lock(|| {
            progress.note(&format!(
                "{what}: waiting for another process that is fetching it"
            ));
        })?;
        // The other process may have finished it.
        if let Some(fetched) = self.find_in_cache(wanted, progress)? {
            return Ok(fetched);
        }
        entry.remove_other_versions()?;
        progress.begin(&source.what, source.size);
        transfer(&self.client, &source, known.as_ref(), &entry, progress).await?;
        let hash = match known {
            Some(known) => known,
            None => Hash::sha256_of(&entry.part)?,
        };
        let entry = entry.with_hash(&hash);
        entry.finish()?;
        progress.done();
        entry.link_snapshot()?;
        drop(lock);
        Ok(Fetched {
            path: entry.snapshot,
            was_cached: false,
            hash: Some(hash.hex().to_owned()),
        })
    }

    /// Asks the server for length and version of a file.
    async fn ask(
        &self,
        file: &WebFile,
        wanted: &Wanted,
        progress: &mut dyn FetchProgress,
    ) -> Result<Source> {
        let what = file.to_string();
        let url = Url::parse(&file.url).map_err(|e| HubError::Server {
            what: what.clone(),
            server: file.url.clone(),
            problem: e.to_string(),
        })?;
        let source = Source {
            what: what.clone(),
            url,
            size: wanted.size,
            resumable: wanted.sha256.is_some(),
            web: Some(None),
        };
        let ask = async || self.head(&source, wanted).await;
        let (size, version) = self.retrying(what, source.server(), progress, ask).await?;
        Ok(Source {
            size,
            resumable: source.resumable || version.is_some(),
            web: Some(version),
            ..source
        })
    }

    async fn head(
        &self,
        source: &Source,
        wanted: &Wanted,
    ) -> std::result::Result<(Option<u64>, Option<String>), Failure> {
        let client = &self.client;
        let request = |method: Method, url: &Url| {
            let request = client.no_redirects.request(method, url.clone());
            request.header("accept-encoding", "identity")
        };
        let response = client.follow(source, Method::HEAD, request).await?;
        if !response.status().is_success() {
            return Err(client.refused(source, &response));
        }
        let problem = |problem: &str| {
            Failure::Permanent(HubError::Server {
                what: source.what.clone(),
                server: source.server(),
                problem: problem.to_owned(),
            })
        };
        let text = |name| response.headers().get(name)?.to_str().ok();
        if text(CONTENT_TYPE).is_some_and(|kind| kind.starts_with("text/html")) {
            return Err(problem("expected a file, found a web page"));
        }
        let found = text(CONTENT_LENGTH).and_then(|n| n.trim().parse::<u64>().ok());
        // The length of an empty response is not the file's.
        let found = found.filter(|&n| n > 0);
        match (found, wanted.size) {
            (Some(found), Some(expected)) if found != expected => {
                Err(Failure::Permanent(HubError::UnexpectedFile {
                    what: source.what.clone(),
                    found: format!("{found} bytes"),
                    expected: format!("{expected} bytes"),
                }))
            }
            (None, None) if wanted.sha256.is_none() => Err(problem(
                "it states no length, and no hash is known, so a download that is cut off would not show",
            )),
            (found, expected) => Ok((expected.or(found), version(response.headers()))),
        }
    }
}
