//! Asking the server what the right bytes are.

use std::time::Duration;

use reqwest::{
    Client, Response, StatusCode, Url,
    header::{AUTHORIZATION, CONTENT_LENGTH, ETAG, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER},
};
use sdft_assets::{HubFile, RepoType, is_commit};

use crate::{HubError, Result, Settings, digest::Hash, fetch::Wanted, secrets::plain_address};

/// What the server says of a file.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) commit: String,
    pub(crate) hash: Hash,
    pub(crate) size: Option<u64>,
}

/// Why an attempt failed.
pub(crate) enum Failure {
    /// No connection.
    Unreachable(String),
    /// It may be different next time.
    Passing {
        reason: String,
        asked: Option<Duration>,
    },
    /// It will be the same next time.
    Lasting(HubError),
}

/// Two clients: one that shows redirections, one that follows them.
pub(crate) struct Web {
    asking: Client,
    fetching: Client,
    pub(crate) settings: Settings,
}

impl Web {
    pub(crate) fn new(settings: Settings) -> Result<Self> {
        settings.check()?;
        let client = || {
            Client::builder()
                .user_agent(concat!("sdft/", env!("CARGO_PKG_VERSION")))
                .connect_timeout(settings.patience.stall.min(Duration::from_secs(15)))
                .read_timeout(settings.patience.stall)
        };
        let failed =
            |e: reqwest::Error| HubError::Environment(format!("no network client: {}", reason(e)));
        Ok(Self {
            asking: client()
                .redirect(reqwest::redirect::Policy::none())
                .build()
                .map_err(failed)?,
            fetching: client().build().map_err(failed)?,
            settings,
        })
    }

    /// The client that follows redirections.
    pub(crate) fn client(&self) -> Client {
        self.fetching.clone()
    }

    /// The server, as it may be shown.
    pub(crate) fn server(&self) -> String {
        plain_address(&self.settings.endpoint)
    }

    pub(crate) fn address(&self, file: &HubFile, revision: &str) -> Result<Url> {
        let bad = |_| HubError::Environment("HF_ENDPOINT: no address".to_owned());
        let mut url = Url::parse(&self.settings.endpoint).map_err(bad)?;
        if let Ok(mut parts) = url.path_segments_mut() {
            parts.pop_if_empty();
            if file.repo_type == RepoType::Dataset {
                parts.push("datasets");
            }
            parts.extend(file.repo.split('/'));
            // A revision is one segment, whatever is in it.
            parts.push("resolve").push(revision);
            parts.extend(file.path.split('/'));
        }
        Ok(url)
    }

    /// What a request to this address says. A token goes to the server of the settings only, by the same protocol and port.
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

    /// The bytes from `from` on, following redirections; a token is not sent on to other hosts.
    pub(crate) async fn get(&self, url: &Url, from: u64) -> std::result::Result<Response, Failure> {
        let mut request = self.fetching.get(url.clone()).headers(self.headers(url));
        if from > 0 {
            request = request.header("range", format!("bytes={from}-"));
        }
        request.send().await.map_err(|e| self.failure(e))
    }

    /// What the file is.
    pub(crate) async fn ask(&self, wanted: &Wanted) -> std::result::Result<Answer, Failure> {
        const REDIRECTIONS: usize = 10;
        let what = wanted.file.to_string();
        let address = self.address(&wanted.file, &wanted.file.revision);
        let mut url = address.map_err(Failure::Lasting)?;
        for _ in 0..REDIRECTIONS {
            let request = self.asking.head(url.clone()).headers(self.headers(&url));
            let response = request.send().await.map_err(|e| self.failure(e))?;
            let status = response.status();
            if status.is_redirection() && !is_answer(response.headers()) {
                // Repositories move.
                let to = response
                    .headers()
                    .get(LOCATION)
                    .and_then(|to| to.to_str().ok());
                let Some(next) = to.and_then(|to| url.join(to).ok()) else {
                    let problem = format!("{status} without an address");
                    return Err(Failure::Lasting(self.protocol(&what, problem)));
                };
                url = next;
                continue;
            }
            if !status.is_success() && !status.is_redirection() {
                return Err(self.refused(&what, &response));
            }
            return self
                .read(wanted, response.headers())
                .map_err(Failure::Lasting);
        }
        let problem = "redirections without end".to_owned();
        Err(Failure::Lasting(self.protocol(&what, problem)))
    }

    fn protocol(&self, what: &str, problem: String) -> HubError {
        HubError::Protocol {
            what: what.to_owned(),
            server: self.server(),
            problem,
        }
    }

    /// Reads the headers and compares them with what is known.
    fn read(&self, wanted: &Wanted, headers: &HeaderMap) -> Result<Answer> {
        let what = wanted.file.to_string();
        let text = |name: &str| headers.get(name)?.to_str().ok();
        let etag = text("x-linked-etag").or_else(|| headers.get(ETAG)?.to_str().ok());
        let etag = etag.map(|etag| etag.strip_prefix("W/").unwrap_or(etag).trim_matches('"'));
        let hash = etag.and_then(Hash::named);
        let known = wanted.sha256.as_deref().and_then(Hash::named);
        let hash = match (hash, known) {
            // A hash of git's says nothing about a SHA-256; the transfer will.
            (Some(found @ Hash::Sha256(_)), Some(known)) if found != known => {
                return Err(HubError::Other {
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
                        "its ETag is no hash ({etag:?}), so that the bytes could not be verified"
                    ),
                    None => "no ETag".to_owned(),
                };
                return Err(self.protocol(&what, problem));
            }
        };
        let revision = &wanted.file.revision;
        let commit = match text("x-repo-commit").map(str::to_ascii_lowercase) {
            Some(commit) if is_commit(revision) && commit != revision.to_ascii_lowercase() => {
                return Err(HubError::Other {
                    what,
                    found: format!("commit {commit:.40}"),
                    expected: format!("commit {revision}"),
                });
            }
            Some(commit) if is_commit(&commit) => commit,
            // The commit was asked for, and the hash is known: nothing is left that the server must say.
            None if is_commit(revision) => revision.clone(),
            _ => return Err(self.protocol(&what, "no X-Repo-Commit".to_owned())),
        };
        let length = text("x-linked-size").or_else(|| {
            // The length of an answer that leads elsewhere is that of the note saying so.
            let direct = !headers.contains_key(LOCATION);
            headers
                .get(CONTENT_LENGTH)
                .filter(|_| direct)?
                .to_str()
                .ok()
        });
        let size = length.and_then(|n| n.trim().parse::<u64>().ok());
        // An answer without a body says nothing about the file's.
        let size = size.filter(|&n| n > 0);
        if let (Some(found), Some(expected)) = (size, wanted.size)
            && found != expected
        {
            return Err(HubError::Other {
                what,
                found: format!("{found} bytes"),
                expected: format!("{expected} bytes"),
            });
        }
        Ok(Answer {
            commit,
            hash,
            size: wanted.size.or(size),
        })
    }

    /// What an answer that is none means.
    pub(crate) fn refused(&self, what: &str, response: &Response) -> Failure {
        let status = response.status();
        let headers = response.headers();
        let message = headers.get("x-error-message").and_then(|m| m.to_str().ok());
        let message = message.map(|m| {
            self.settings
                .token
                .hide(&m.chars().take(300).collect::<String>())
        });
        let passing = status.is_server_error()
            || [
                StatusCode::TOO_MANY_REQUESTS,
                StatusCode::REQUEST_TIMEOUT,
                StatusCode::TOO_EARLY,
                StatusCode::RANGE_NOT_SATISFIABLE,
            ]
            .contains(&status);
        if passing {
            let asked = headers.get(RETRY_AFTER).and_then(|s| s.to_str().ok());
            return Failure::Passing {
                reason: format!("{} answered {status}", self.server()),
                asked: asked
                    .and_then(|s| s.trim().parse().ok())
                    .map(Duration::from_secs),
            };
        }
        let has_token = self.settings.token.get().is_some();
        let meaning = match status {
            StatusCode::UNAUTHORIZED if has_token => {
                "there is no such repository, or the token does not open it"
            }
            StatusCode::UNAUTHORIZED => {
                "there is no such repository, or it needs a token (set HF_TOKEN)"
            }
            StatusCode::FORBIDDEN if has_token => {
                "the token does not open it; perhaps its terms must be accepted on its page first"
            }
            StatusCode::FORBIDDEN => "access is refused; a token may be needed (set HF_TOKEN)",
            StatusCode::NOT_FOUND => "there is no such file at this revision",
            StatusCode::GONE => "it was taken down",
            _ => "the request was refused",
        };
        Failure::Lasting(HubError::Refused {
            what: what.to_owned(),
            server: self.server(),
            status: status.as_u16(),
            meaning: match message {
                Some(message) => format!("{meaning} ({message})"),
                None => meaning.to_owned(),
            },
        })
    }

    /// An error of the network, without addresses.
    pub(crate) fn failure(&self, error: reqwest::Error) -> Failure {
        let connecting = error.is_connect();
        let endless = error.is_redirect();
        let text = self.settings.token.hide(&reason(error));
        match (connecting, endless) {
            (true, _) => Failure::Unreachable(text),
            (_, true) => Failure::Lasting(
                self.protocol("the transfer", "redirections without end".to_owned()),
            ),
            _ => Failure::Passing {
                reason: text,
                asked: None,
            },
        }
    }
}

/// Whether headers say what a file is.
fn is_answer(headers: &HeaderMap) -> bool {
    headers.contains_key("x-linked-etag")
        || headers.contains_key("x-repo-commit") && headers.contains_key(ETAG)
}

/// The last cause of an error of the network, without the address.
fn reason(error: reqwest::Error) -> String {
    let error = error.without_url();
    if error.is_timeout() {
        return "nothing arrived for too long".to_owned();
    }
    let mut cause: &dyn std::error::Error = &error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}
