//! `SHA256SUMS`: the hashes of a folder's files, as `sha256sum -c` reads them.

use crate::error::{Context, Result, TrainError};
use sdft_files::sha256_file;
use std::io::ErrorKind;
use std::path::Path;

pub(crate) const SUMS: &str = "SHA256SUMS";

/// Longer files are damaged.
const MAX_SUMS: u64 = 64 << 20;

/// File names and hashes. While a file is replaced, its name is listed twice, and both hashes are valid.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Checksums(Vec<(String, String)>);

impl Checksums {
    /// The record of a folder, if it has one.
    pub(crate) fn read(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(SUMS);
        let bytes = match sdft_files::read_regular(&path, MAX_SUMS) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            read => read.at("cannot read", &path)?,
        };
        let line = |line: &str| {
            let (hash, name) = line.split_once("  ")?;
            let is_hash = hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit());
            is_hash.then(|| (name.to_owned(), hash.to_owned()))
        };
        let lines = std::str::from_utf8(&bytes).ok();
        let lines = lines.and_then(|text| text.lines().map(line).collect::<Option<Vec<_>>>());
        let lines = lines.ok_or_else(|| TrainError::Checkpoint {
            path: folder.to_owned(),
            problem: format!("{SUMS} is damaged"),
        })?;
        Ok(Some(Self(lines)))
    }

    /// The record of a folder whose files are about to change. A damaged record counts as empty, because it is written again.
    pub(crate) fn read_or_empty(folder: &Path) -> Self {
        Self::read(folder).ok().flatten().unwrap_or_default()
    }

    /// Adds a hash of this name to those recorded already.
    pub(crate) fn add(&mut self, name: &str, hash: &str) {
        self.0.push((name.to_owned(), hash.to_owned()));
    }

    /// Removes the records of some names.
    pub(crate) fn forget(&mut self, is_gone: impl Fn(&str) -> bool) {
        self.0.retain(|(name, _)| !is_gone(name));
    }

    /// The hash that was recorded last for this name.
    pub(crate) fn of(&self, name: &str) -> Option<&str> {
        let mut lines = self.0.iter().rev();
        lines
            .find(|(known, _)| known == name)
            .map(|(_, hash)| hash.as_str())
    }

    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        let lines = self
            .0
            .iter()
            .map(|(name, hash)| format!("{hash}  {name}\n"));
        let path = folder.join(SUMS);
        sdft_files::write_atomic(&path, lines.collect::<String>().as_bytes())
            .at("cannot write", &path)
    }

    /// Whether the hash of a file is recorded. `false` if there is no record of its name.
    ///
    /// # Errors
    /// The hash differs, or the file cannot be read.
    pub(crate) fn verify(&self, folder: &Path, name: &str) -> Result<bool> {
        let Some(expected) = self.of(name) else {
            return Ok(false);
        };
        let path = folder.join(name);
        let found = sha256_file(&path).at("cannot read", &path)?;
        if self.0.iter().any(|(n, hash)| n == name && *hash == found) {
            return Ok(true);
        }
        Err(TrainError::Checkpoint {
            path: folder.to_owned(),
            problem: format!("{name} is damaged: expected SHA-256 {expected}, found {found}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn files_are_compared_with_their_recorded_checksums() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path();
        assert_eq!(Checksums::read(folder).unwrap(), None);
        let mut sums = Checksums::default();
        fs::write(folder.join("a file"), b"abc").unwrap();
        let abc = sha256_file(&folder.join("a file")).unwrap();
        sums.add("a file", &abc);
        sums.write(folder).unwrap();
        let text = fs::read_to_string(folder.join(SUMS)).unwrap();
        // FIPS 180-2, in the form of sha256sum.
        assert_eq!(
            text,
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  a file\n"
        );
        assert_eq!(Checksums::read(folder).unwrap().as_ref(), Some(&sums));
        assert!(sums.verify(folder, "a file").unwrap());
        assert!(!sums.verify(folder, "other").unwrap());
        fs::write(folder.join("a file"), b"abd").unwrap();
        let error = sums.verify(folder, "a file").unwrap_err().to_string();
        assert!(
            error.contains("a file is damaged") && error.contains(&abc),
            "{error}"
        );
        // While a file is replaced, both hashes are valid.
        let abd = sha256_file(&folder.join("a file")).unwrap();
        sums.add("a file", &abd);
        assert!(sums.verify(folder, "a file").unwrap());
        fs::write(folder.join("a file"), b"abc").unwrap();
        assert!(sums.verify(folder, "a file").unwrap());
        fs::write(folder.join(SUMS), b"\xff  a file\n").unwrap();
        let error = Checksums::read(folder).unwrap_err().to_string();
        assert!(error.contains("SHA256SUMS is damaged"), "{error}");
    }
}
