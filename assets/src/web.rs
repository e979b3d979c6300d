//! Files of web servers other than the Hub.

use crate::error::{Error, Result};
use std::fmt;

/// One file of a web server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebFile {
    /// Its address: `https://HOST/PATH`. Plain `http` is allowed for servers on this machine.
    pub url: String,
}

impl WebFile {
    /// The server with its port, and the path without the slash before it.
    fn parts(&self) -> Option<(&str, &str)> {
        let (scheme, rest) = self.url.split_once("://")?;
        let (host, path) = rest.split_once('/')?;
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.parse::<u16>().is_ok() => name,
            _ => host,
        };
        let is_name = |name: &str| {
            let is_plain = |c: char| c.is_ascii_alphanumeric() || "-.".contains(c);
            !name.is_empty() && name.chars().all(is_plain) && !name.starts_with('.')
        };
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let is_path = path
            .split('/')
            .all(|part| !["", ".", ".."].contains(&part) && part.chars().all(is_plain));
        let is_safe = scheme == "https" || scheme == "http" && is_loopback(name);
        (is_safe && is_name(name) && is_path).then_some((host, path))
    }

    /// Fails unless the address is a plain one: https, no user, no query, no `.` or `..`.
    ///
    /// # Errors
    /// The address is not a plain one.
    pub fn check(&self) -> Result<()> {
        match self.parts() {
            Some(_) => Ok(()),
            None => Err(Error::Address {
                url: self.url.clone(),
            }),
        }
    }

    /// The server with its port, as the name of a folder; empty if the address is invalid.
    pub(crate) fn host(&self) -> String {
        let host = self.parts().map_or("", |(host, _)| host);
        host.replace(':', "-")
    }

    /// The path on the server; empty if the address is invalid.
    pub(crate) fn path(&self) -> &str {
        self.parts().map_or("", |(_, path)| path)
    }
}

/// Whether a server is on this machine.
fn is_loopback(host: &str) -> bool {
    ["localhost", "127.0.0.1"].contains(&host)
}

impl fmt::Display for WebFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_addresses_are_accepted() {
        let check = |url: &str| WebFile { url: url.into() }.check().is_ok();
        for url in [
            "https://a.b/c.pt",
            "https://a.b:8443/c/d-e_f.pkl",
            "http://127.0.0.1:1234/c",
            "http://localhost/c",
        ] {
            assert!(check(url), "{url}");
        }
        for url in [
            "a.b/c",
            "https://",
            "https://a.b",
            "https://a.b/",
            "https:///c",
            "http://a.b/c",
            "http://127.0.0.1.a.b/c",
            "ftp://a.b/c",
            "file:///c",
            "https://user@a.b/c",
            "https://a.b/c?d",
            "https://a.b/c#d",
            "https://a.b/../c",
            "https://a.b/c//d",
            "https://a.b/%2e%2e/c",
            "https://../c",
        ] {
            assert!(!check(url), "{url}");
        }
    }
}
