//! Server, cache, token and retries of a fetcher.

use std::{ffi::OsString, path::PathBuf};

use sdft_assets::HubCache;

use crate::{
    HubError, Result, RetryPolicy,
    secrets::{Secret, plain_address},
};

const ENDPOINT: &str = "https://huggingface.co";

/// Server, cache, token and retries of a fetcher.
#[derive(Clone)]
pub struct Settings {
    /// Address of the server.
    pub endpoint: String,
    /// The cache to fetch into.
    pub cache: HubCache,
    /// Whether the network is disabled.
    pub offline: bool,
    /// How failed requests are retried.
    pub retry: RetryPolicy,
    pub(crate) token: Secret,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings")
            .field("endpoint", &plain_address(&self.endpoint))
            .field("cache", &self.cache)
            .field("offline", &self.offline)
            .field("retry", &self.retry)
            .field("token", &self.token)
            .finish()
    }
}

impl Settings {
    /// Reads the environment like the Python client: `HF_ENDPOINT`, the variables of [`HubCache::from_environment`], `HF_HUB_OFFLINE`, and the
    /// token from `HF_TOKEN`, the file `HF_TOKEN_PATH`, or `token` in `HF_HOME`, unless `HF_HUB_DISABLE_IMPLICIT_TOKEN` is set.
    ///
    /// # Errors
    /// Fails if the environment gives no folder for a cache.
    pub fn from_environment() -> Result<Self> {
        let get = |name: &str| std::env::var_os(name);
        Ok(Self {
            endpoint: endpoint(get),
            cache: HubCache::from_environment()?,
            offline: sdft_assets::is_offline(),
            retry: RetryPolicy::default(),
            token: Secret::new(token(get)),
        })
    }

    /// These settings with a token.
    #[must_use]
    pub fn with_token(mut self, token: impl Into<String>) -> Self {
        self.token = Secret::new(Some(token.into()));
        self
    }

    /// Settings for a server and a cache folder; the environment is not read.
    pub fn new(endpoint: impl Into<String>, cache: impl Into<PathBuf>) -> Self {
        Self {
            endpoint: endpoint.into(),
            cache: HubCache::at(cache),
            offline: false,
            retry: RetryPolicy::default(),
            token: Secret::default(),
        }
    }

    pub(crate) fn check(&self) -> Result<()> {
        let is_web = reqwest::Url::parse(&self.endpoint)
            .is_ok_and(|url| ["http", "https"].contains(&url.scheme()) && url.host().is_some());
        let has_odd_token = self
            .token
            .get()
            .is_some_and(|token| !token.bytes().all(|b| b.is_ascii_graphic()));
        if has_odd_token {
            return Err(HubError::Environment(
                "the token (HF_TOKEN, or the file of `hf auth login`) contains invalid characters"
                    .to_owned(),
            ));
        }
        if is_web {
            return Ok(());
        }
        Err(HubError::Environment(
            "HF_ENDPOINT: expected an address that begins with http:// or https://".to_owned(),
        ))
    }
}

fn text(get: impl Fn(&str) -> Option<OsString>, name: &str) -> Option<String> {
    let value = get(name)?.to_string_lossy().trim().to_owned();
    (!value.is_empty()).then_some(value)
}

fn endpoint(get: impl Fn(&str) -> Option<OsString>) -> String {
    let given = text(get, "HF_ENDPOINT");
    let given = given.as_deref().unwrap_or(ENDPOINT);
    given.trim_end_matches('/').to_owned()
}

fn token(get: impl Fn(&str) -> Option<OsString>) -> Option<String> {
    if text(&get, "HF_HUB_DISABLE_IMPLICIT_TOKEN")
        .is_some_and(|value| sdft_assets::says_yes(&value))
    {
        return None;
    }
    if let Some(token) = text(&get, "HF_TOKEN") {
        return Some(token);
    }
    let user = || text(&get, "HOME").or_else(|| text(&get, "USERPROFILE"));
    let expanded = |name: &str| {
        let path = PathBuf::from(text(&get, name)?);
        Some(match (path.strip_prefix("~"), user()) {
            (Ok(rest), Some(home)) => PathBuf::from(home).join(rest),
            _ => path,
        })
    };
    let home = || {
        if let Some(home) = expanded("HF_HOME") {
            return Some(home);
        }
        let caches = text(&get, "XDG_CACHE_HOME").map(PathBuf::from);
        let caches = caches.or_else(|| Some(PathBuf::from(user()?).join(".cache")))?;
        Some(caches.join("huggingface"))
    };
    let files = [
        expanded("HF_TOKEN_PATH"),
        home().map(|home| home.join("token")),
    ];
    let read = |path: PathBuf| std::fs::read_to_string(path).ok();
    files.into_iter().flatten().find_map(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(variables: &[(&str, &str)]) -> impl Fn(&str) -> Option<OsString> {
        let owned: Vec<(String, String)> = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        move |name| {
            let found = owned.iter().find(|(known, _)| known == name)?;
            Some(OsString::from(&found.1))
        }
    }

    #[test]
    fn the_server_is_that_of_the_environment() {
        assert_eq!(endpoint(with(&[])), "https://huggingface.co");
        assert_eq!(
            endpoint(with(&[("HF_ENDPOINT", "http://x:1/ ")])),
            "http://x:1"
        );
    }

    #[test]
    fn tokens_come_from_the_variable_then_the_files() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().display().to_string();
        assert_eq!(token(with(&[("HF_HOME", &home)])), None);
        std::fs::write(folder.path().join("token"), "saved\n").unwrap();
        assert_eq!(token(with(&[("HF_HOME", &home)])).unwrap().trim(), "saved");
        let given = [("HF_HOME", home.as_str()), ("HF_TOKEN", "given")];
        assert_eq!(token(with(&given)).unwrap(), "given");
        let refused = [given[1], ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")];
        assert_eq!(token(with(&refused)), None);
        let allowed = [given[1], ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "0")];
        assert_eq!(token(with(&allowed)).unwrap(), "given");
        let short = [("HF_HOME", "~"), ("HOME", home.as_str())];
        assert_eq!(token(with(&short)).unwrap().trim(), "saved");
    }

    #[test]
    fn an_invalid_address_is_refused() {
        for address in ["", "huggingface.co", "file:///x", "http://"] {
            assert!(Settings::new(address, "x").check().is_err(), "{address}");
        }
        Settings::new("http://127.0.0.1:1", "x").check().unwrap();
        let odd = Settings::new("http://127.0.0.1:1", "x").with_token("two words");
        assert!(
            odd.check()
                .unwrap_err()
                .to_string()
                .contains("contains invalid characters")
        );
        let debug = format!("{:?}", Settings::new("http://user:word@x/", "x"));
        assert!(!debug.contains("word"), "{debug}");
    }
}
