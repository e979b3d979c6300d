//! Requests to the server: a file's metadata, and its bytes.

use std::time::Duration;

use reqwest::{
    Client, Method, RequestBuilder, Response, StatusCode, Url,
    header::{
        AUTHORIZATION, CONTENT_LENGTH, ETAG, HeaderMap, HeaderValue, IF_RANGE, LAST_MODIFIED,
        LOCATION, RETRY_AFTER,
    },
};
use sdft_assets::{HubFile, RepoType, is_commit};

use crate::{HubError, Result, Settings, digest::Hash, fetch::Wanted, secrets::plain_address};

/// The most redirects that are followed.
const REDIRECTIONS: usize = 10;

/// What the server reports about a file.
#[derive(Clone, Debug)]
pub(crate) struct FileMetadata {
    pub(crate) commit: String,
    pub(crate) hash: Hash,
    pub(crate) size: Option<u64>,
}

/// What is downloaded, and from where.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// The file as messages name it.
    pub(crate) what: String,
    pub(crate) url: Url,
    /// Length in bytes, if known.
    pub(crate) size: Option<u64>,
    /// Whether the bytes that have arrived belong to this file for certain, or will be compared with its hash.
    pub(crate) resumable: bool,
    /// Of a server other than the Hub: the version of the file by its headers, if it states one.
    pub(crate) web: Option<Option<String>>,
}

impl Source {
    /// A file of the Hub, whose hash is known.
    pub(crate) fn hub(what: String, url: Url, size: Option<u64>) -> Self {
        Self {
            what,
            url,
            size,
            resumable: true,
            web: None,
        }
    }

    /// The address without credentials.
    pub(crate) fn server(&self) -> String {
        self.url.origin().ascii_serialization()
    }

    /// Whether a response is about another version of the file than the one that was asked for. `have` bytes have arrived.
    pub(crate) fn is_other_version(&self, response: &Response, have: u64) -> bool {
        let Some(expected) = &self.web else {
            return false;
        };
        let is_body = response.status().is_success();
        match version(response.headers()) {
            found @ Some(_) => is_body && expected.is_some() && found != *expected,
            // The beginning of a body that is sent again as a whole is skipped, so it must be the same.
            None => have > 0 && response.status() == StatusCode::OK && expected.is_some(),
        }
    }
}

/// The version of a file: its strong ETag, or the time of its last change.
pub(crate) fn version(headers: &HeaderMap) -> Option<String> {
    let text = |name| headers.get(name)?.to_str().ok().map(str::to_owned);
    let etag = text(ETAG).filter(|etag| !etag.starts_with("W/"));
    etag.or_else(|| text(LAST_MODIFIED))
}

/// Why an attempt failed.
pub(crate) enum Failure {
    /// There is no connection.
    Unreachable(String),
    /// Another attempt may succeed.
    Transient {
        reason: String,
        retry_after: Option<Duration>,
    },
    /// Every attempt would fail.
    Permanent(HubError),
}

/// Two HTTP clients: one that returns redirects, one that follows them.
pub(crate) struct HubClient {
    pub(crate) no_redirects: Client,
    redirects: Client,
    pub(crate) settings: Settings,
}

impl HubClient {
    pub(crate) fn new(settings: Settings) -> Result<Self> {
        settings.check()?;
        let client = || {
            Client::builder()
                .user_agent(concat!("sdft/", env!("CARGO_PKG_VERSION")))
                .connect_timeout(settings.retry.read_timeout.min(Duration::from_secs(15)))
                .read_timeout(settings.retry.read_timeout)
        };
        let failed =
            |e: reqwest::Error| HubError::Environment(format!("no network client: {}", reason(e)));
        Ok(Self {
            no_redirects: client()
                .redirect(reqwest::redirect::Policy::none())
                .build()
                .map_err(failed)?,
            redirects: client().build().map_err(failed)?,
            settings,
        })
    }

    /// The client that follows redirects to any server.
    pub(crate) fn client(&self) -> Client {
        self.redirects.clone()
    }

    /// The server's address without credentials.
    pub(crate) fn server(&self) -> String {
        plain_address(&self.settings.endpoint)
    }

    pub(crate) fn address(&self, file: &HubFile, revision: &str) -> Result<Url> {
        let bad = |_| HubError::Environment("HF_ENDPOINT: invalid address".to_owned());
        let mut url = Url::parse(&self.settings.endpoint).map_err(bad)?;
        if let Ok(mut parts) = url.path_segments_mut() {
            parts.pop_if_empty();
            if file.repo_type == RepoType::Dataset {
                parts.push("datasets");
            }
            parts.extend(file.repo.split('/'));
            // A revision is one path segment, even if it contains a slash.
            parts.push("resolve").push(revision);
            parts.extend(file.path.split('/'));
        }
        Ok(url)
    }

    /// The headers of a request. The token goes only to the server of the settings, by the same protocol and port.
    fn headers(&self, url: &Url) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert("accept-encoding", HeaderValue::from_static("identity"));
        let ours = Url::parse(&self.settings.endpoint).map(|ours| ours.origin());
        if let Some(token) = self.settings.token.get()
            && ours.is_ok_and(|ours| ours == url.origin())
            && let Ok(mut value) = HeaderValue::from_str(&format!("Bearer {token}"))
        {
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        headers
    }

    /// The bytes from offset `from`; follows redirects, for a server other than the Hub only to itself. The token is sent to the Hub only.
    pub(crate) async fn get(
        &self,
        source: &Source,
        from: u64,
    ) -> std::result::Result<Response, Failure> {
        let request = |method: Method, url: &Url| {
            let client = match &source.web {
                Some(_) => self.no_redirects.request(method, url.clone()),
                None => self.redirects.request(method, url.clone()),
            };
            let mut request = match &source.web {
                Some(_) => client.header("accept-encoding", "identity"),
                None => client.headers(self.headers(url)),
            };
            if from > 0 {
                request = request.header("range", format!("bytes={from}-"));
                if let Some(Some(version)) = &source.web {
                    request = request.header(IF_RANGE, version);
                }
            }
            request
        };
        match source.web {
            Some(_) => self.follow(source, Method::GET, request).await,
            None => {
                let sent = request(Method::GET, &source.url).send().await;
                sent.map_err(|e| self.failure(e))
            }
        }
    }

    /// The response to a request, after redirects to the same server.
    pub(crate) async fn follow(
        &self,
        source: &Source,
        method: Method,
        request: impl Fn(Method, &Url) -> RequestBuilder,
    ) -> std::result::Result<Response, Failure> {
        let problem = |problem: String| {
            Failure::Permanent(HubError::Server {
                what: source.what.clone(),
                server: source.server(),
                problem,
            })
        };
        let mut url = source.url.clone();
        for _ in 0..REDIRECTIONS {
            let sent = request(method.clone(), &url).send().await;
            let response = sent.map_err(|e| self.failure(e))?;
            if !response.status().is_redirection() {
                return Ok(response);
            }
            let to = response.headers().get(LOCATION);
            let next = to.and_then(|to| url.join(to.to_str().ok()?).ok());
            let Some(next) = next else {
                let status = response.status();
                return Err(problem(format!("{status} without a Location header")));
            };
            if next.origin() != source.url.origin() {
                return Err(problem(format!(
                    "it redirects to {}, another server",
                    next.origin().ascii_serialization()
                )));
            }
            url = next;
        }
        Err(problem("too many redirects".to_owned()))
    }

    /// The file's metadata, from a HEAD request.
    pub(crate) async fn metadata(
        &self,
        file: &HubFile,
        wanted: &Wanted,
    ) -> std::result::Result<FileMetadata, Failure> {
        let what = file.to_string();
        let address = self.address(file, &file.revision);
        let mut url = address.map_err(Failure::Permanent)?;
        for _ in 0..REDIRECTIONS {
            let request = self
                .no_redirects
                .head(url.clone())
                .headers(self.headers(&url));
            let response = request.send().await.map_err(|e| self.failure(e))?;
            let status = response.status();
            if status.is_redirection() && !is_answer(response.headers()) {
                // The repository was moved.
                let to = response
                    .headers()
                    .get(LOCATION)
                    .and_then(|to| to.to_str().ok());
                let Some(next) = to.and_then(|to| url.join(to).ok()) else {
                    let problem = format!("{status} without a Location header");
                    return Err(Failure::Permanent(self.protocol(&what, problem)));
                };
                url = next;
                continue;
            }
            if !status.is_success() && !status.is_redirection() {
                let source = Source::hub(what, url, None);
                return Err(self.refused(&source, &response));
            }
            return self
                .read(file, wanted, response.headers())
                .map_err(Failure::Permanent);
        }
        let problem = "too many redirects".to_owned();
        Err(Failure::Permanent(self.protocol(&what, problem)))
    }

    fn protocol(&self, what: &str, problem: String) -> HubError {
        HubError::Protocol {
            what: what.to_owned(),
            server: self.server(),
            problem,
        }
    }

    /// Reads the headers and compares them with what is known about the file.
    fn read(&self, file: &HubFile, wanted: &Wanted, headers: &HeaderMap) -> Result<FileMetadata> {
        let what = file.to_string();
        let text = |name: &str| headers.get(name)?.to_str().ok();
        let etag = text("x-linked-etag").or_else(|| headers.get(ETAG)?.to_str().ok());
        let etag = etag.map(|etag| etag.strip_prefix("W/").unwrap_or(etag).trim_matches('"'));
        let hash = etag.and_then(Hash::parse);
        let known = wanted.sha256.as_deref().and_then(Hash::parse);
        let hash = match (hash, known) {
            // A git hash cannot be compared with a SHA-256; the downloaded bytes will be.
            (Some(found @ Hash::Sha256(_)), Some(known)) if found != known => {
                return Err(HubError::UnexpectedFile {
                    what,
                    found: found.to_string(),
                    expected: known.to_string(),
                });
            }
            (_, Some(known)) => known,
            (Some(found), None) => found,
            (None, None) => {
                let problem = match etag {
                    Some(etag) => format!(
                        "its ETag is not a hash ({etag:?}), so the bytes cannot be verified"
                    ),
                    None => "no ETag".to_owned(),
                };
                return Err(self.protocol(&what, problem));
            }
        };
        let revision = &file.revision;
        let commit = match text("x-repo-commit").map(str::to_ascii_lowercase) {
            Some(commit) if is_commit(revision) && commit != revision.to_ascii_lowercase() => {
                return Err(HubError::UnexpectedFile {
                    what,
                    found: format!("commit {commit:.40}"),
                    expected: format!("commit {revision}"),
                });
            }
            Some(commit) if is_commit(&commit) => commit,
            // The revision is a commit and the hash is known, so the server need not report the commit.
            None if is_commit(revision) => revision.clone(),
            _ => return Err(self.protocol(&what, "no X-Repo-Commit".to_owned())),
        };
        let length = text("x-linked-size").or_else(|| {
            // The Content-Length of a redirect is that of the redirect's own body.
            let direct = !headers.contains_key(LOCATION);
            headers
                .get(CONTENT_LENGTH)
                .filter(|_| direct)?
                .to_str()
                .ok()
        });
        let size = length.and_then(|n| n.trim().parse::<u64>().ok());
        // The length of an empty response is not the file's.
        let size = size.filter(|&n| n > 0);
        if let (Some(found), Some(expected)) = (size, wanted.size)
            && found != expected
        {
            return Err(HubError::UnexpectedFile {
                what,
                found: format!("{found} bytes"),
                expected: format!("{expected} bytes"),
            });
        }
        Ok(FileMetadata {
            commit,
            hash,
            size: wanted.size.or(size),
        })
    }

    /// The failure that an error response stands for.
    pub(crate) fn refused(&self, source: &Source, response: &Response) -> Failure {
        let server = match source.web {
            Some(_) => source.server(),
            None => self.server(),
        };
        let status = response.status();
        let headers = response.headers();
        let message = headers.get("x-error-message").and_then(|m| m.to_str().ok());
        let message = message.map(|m| {
            self.settings
                .token
                .hide(&m.chars().take(300).collect::<String>())
        });
        let transient = status.is_server_error()
            || [
                StatusCode::TOO_MANY_REQUESTS,
                StatusCode::REQUEST_TIMEOUT,
                StatusCode::TOO_EARLY,
                StatusCode::RANGE_NOT_SATISFIABLE,
            ]
            .contains(&status);
        if transient {
            let retry_after = headers.get(RETRY_AFTER).and_then(|s| s.to_str().ok());
            return Failure::Transient {
                reason: format!("{server} answered {status}"),
                retry_after: retry_after
                    .and_then(|s| s.trim().parse().ok())
                    .map(Duration::from_secs),
            };
        }
        let has_token = self.settings.token.get().is_some();
        let meaning = match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if source.web.is_some() => {
                "access denied"
            }
            StatusCode::NOT_FOUND if source.web.is_some() => "the file does not exist",
            StatusCode::UNAUTHORIZED if has_token => {
                "the repository does not exist, or the token has no access to it"
            }
            StatusCode::UNAUTHORIZED => {
                "the repository does not exist, or it needs a token (set HF_TOKEN)"
            }
            StatusCode::FORBIDDEN if has_token => {
                "the token has no access; the terms on the repository's page may have to be accepted first"
            }
            StatusCode::FORBIDDEN => "access denied; a token may be needed (set HF_TOKEN)",
            StatusCode::NOT_FOUND => "the file does not exist at this revision",
            StatusCode::GONE => "the file was removed",
            _ => "the request failed",
        };
        Failure::Permanent(HubError::Refused {
            what: source.what.clone(),
            server,
            status: status.as_u16(),
            meaning: match message {
                Some(message) => format!("{meaning} ({message})"),
                None => meaning.to_owned(),
            },
        })
    }

    /// A network error as a failure, without addresses.
    pub(crate) fn failure(&self, error: reqwest::Error) -> Failure {
        let connecting = error.is_connect();
        let endless = error.is_redirect();
        let text = self.settings.token.hide(&reason(error));
        match (connecting, endless) {
            (true, _) => Failure::Unreachable(text),
            (_, true) => {
                Failure::Permanent(self.protocol("the download", "too many redirects".to_owned()))
            }
            _ => Failure::Transient {
                reason: text,
                retry_after: None,
            },
        }
    }
}

/// Whether the headers describe a file.
fn is_answer(headers: &HeaderMap) -> bool {
    headers.contains_key("x-linked-etag")
        || headers.contains_key("x-repo-commit") && headers.contains_key(ETAG)
}

/// The root cause of a network error, without the address.
pub(crate) fn reason(error: reqwest::Error) -> String {
    let error = error.without_url();
    if error.is_timeout() {
        return "timed out without receiving data".to_owned();
    }
    let mut cause: &dyn std::error::Error = &error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}
