//! The hashes that name files on the Hub.

use std::{fmt, fs::File, io::Read, path::Path};

use sha1::{Digest as _, Sha1};

use crate::error::{Result, io};

/// The expected hash of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Hash {
    /// SHA-256, for large files.
    Sha256(String),
    /// For small files, the SHA-1 of the git blob: `blob LENGTH`, a zero byte and the content.
    Git(String),
}

impl Hash {
    /// Parses 64 or 40 hexadecimal digits.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        if !name.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        let name = name.to_ascii_lowercase();
        match name.len() {
            64 => Some(Self::Sha256(name)),
            40 => Some(Self::Git(name)),
            _ => None,
        }
    }

    /// The hexadecimal digits.
    pub(crate) fn hex(&self) -> &str {
        match self {
            Self::Sha256(hex) | Self::Git(hex) => hex,
        }
    }

    /// The SHA-256 of a file on disk.
    pub(crate) fn sha256_of(path: &Path) -> Result<Self> {
        Ok(Self::Sha256(
            sdft_files::sha256_file(path).map_err(io(path))?,
        ))
    }

    /// The hash of the same kind of a file on disk.
    pub(crate) fn of_file(&self, path: &Path) -> Result<Self> {
        Ok(match self {
            Self::Sha256(_) => Self::sha256_of(path)?,
            Self::Git(_) => Self::Git(git(path)?),
        })
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sha256(hex) => write!(f, "SHA-256 {hex}"),
            Self::Git(hex) => write!(f, "git hash {hex}"),
        }
    }
}

fn git(path: &Path) -> Result<String> {
    let mut file = File::open(path).map_err(io(path))?;
    let len = file.metadata().map_err(io(path))?.len();
    let mut hash = Sha1::new();
    hash.update(format!("blob {len}\0"));
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer).map_err(io(path))? {
            0 => break,
            n => hash.update(&buffer[..n]),
        }
    }
    Ok(hash.finalize().iter().map(|b| format!("{b:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_git_and_sha256sum() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        std::fs::write(&path, "hello\n").unwrap();
        // `printf 'hello\n' | git hash-object --stdin`, `| sha256sum`.
        let git = Hash::parse("CE013625030BA8DBA906F756967F9E9CA394464A").unwrap();
        assert_eq!(git.of_file(&path).unwrap(), git);
        let sha = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
        let sha = Hash::parse(sha).unwrap();
        assert_eq!(sha.of_file(&path).unwrap(), sha);
        for other in ["", "abc", &"g".repeat(40), &"../".repeat(20)] {
            assert_eq!(Hash::parse(other), None);
        }
    }
}
