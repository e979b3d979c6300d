//! Keeps tokens out of messages.

/// An access token; its `Debug` output is dots.
#[derive(Clone, Default)]
pub(crate) struct Secret(Option<String>);

impl Secret {
    pub(crate) fn new(token: Option<String>) -> Self {
        Self(token.map(|t| t.trim().to_owned()).filter(|t| !t.is_empty()))
    }

    pub(crate) fn get(&self) -> Option<&str> {
        self.0.as_deref()
    }

    /// Replaces the token in a text from the server.
    pub(crate) fn hide(&self, text: &str) -> String {
        match &self.0 {
            Some(token) => text.replace(token.as_str(), "..."),
            None => text.to_owned(),
        }
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "..." } else { "none" })
    }
}

/// An address without user, password and query.
pub(crate) fn plain_address(address: &str) -> String {
    match reqwest::Url::parse(address) {
        Ok(mut url) => {
            // These fail for addresses without a host.
            let _ = url.set_username("");
            let _ = url.set_password(None);
            url.set_query(None);
            url.set_fragment(None);
            url.as_str().trim_end_matches('/').to_owned()
        }
        Err(_) => "the address given".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let secret = Secret::new(Some(" hf_abc\n".to_owned()));
        assert_eq!(secret.get(), Some("hf_abc"));
        assert_eq!(format!("{secret:?}"), "...");
        assert_eq!(secret.hide("no such user: hf_abc!"), "no such user: ...!");
        assert_eq!(Secret::new(Some(" ".to_owned())).get(), None);
        let address = "https://user:word@mirror.example/hub/?key=1";
        assert_eq!(plain_address(address), "https://mirror.example/hub");
    }
}
