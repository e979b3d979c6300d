//! The hashes by which the Hub names files.

use std::{fmt, fs::File, io::Read, path::Path};

use sha1::{Digest as _, Sha1};

use crate::error::{Result, io};

/// What the bytes of a file must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Hash {
    /// Of a large file: SHA-256.
    Sha256(String),
    /// Of a small one, as git has it: SHA-1 of `blob LENGTH`, a zero and the bytes.
    Git(String),
}

impl Hash {
    /// The hash that a name of 64 or 40 hexadecimal digits is.
    pub(crate) fn named(name: &str) -> Option<Self> {
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

    /// The digits.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Sha256(name) | Self::Git(name) => name,
        }
    }

    /// The same kind of hash, of a file.
    pub(crate) fn of_file(&self, path: &Path) -> Result<Self> {
        Ok(match self {
            Self::Sha256(_) => Self::Sha256(sdft_files::sha256_file(path).map_err(io(path))?),
            Self::Git(_) => Self::Git(git(path)?),
        })
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sha256(name) => write!(f, "SHA-256 {name}"),
            Self::Git(name) => write!(f, "git hash {name}"),
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
        let git = Hash::named("CE013625030BA8DBA906F756967F9E9CA394464A").unwrap();
        assert_eq!(git.of_file(&path).unwrap(), git);
        let sha = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
        let sha = Hash::named(sha).unwrap();
        assert_eq!(sha.of_file(&path).unwrap(), sha);
        for other in ["", "abc", &"g".repeat(40), &"../".repeat(20)] {
            assert_eq!(Hash::named(other), None);
        }
    }
}
