//! A cache of feature vectors on disk.

use crate::error::{EvalError, Result};
use sdft_files::{RecordKey, Records, sha256_bytes};
use sdft_imaging::Conversions;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Feature vectors, by the SHA-256 of their image file.
///
/// There is one file of [`Records`] for each network, weights and preprocessing. A value is the image's conversions (8 bits) and its vector
/// (f32).
pub struct FeatureCache {
    /// `None` keeps nothing.
    records: Option<Records>,
    problem: Option<String>,
}

impl FeatureCache {
    /// A cache that keeps nothing.
    pub fn none() -> Self {
        Self {
            records: None,
            problem: None,
        }
    }

    /// Opens the cache in `folder` for the features of length `dim` that `description` identifies.
    ///
    /// # Errors
    /// Fails if the folder cannot be created or a file cannot be read.
    pub fn open(folder: &Path, description: &str, dim: usize) -> Result<Self> {
        fs::create_dir_all(folder).map_err(io_error("create the folder", folder))?;
        // The number is that of the way in which images are read: 3 converts colour profiles to sRGB.
        let name = sha256_bytes(format!("features 3, {description}, {dim}").as_bytes());
        let path = folder.join(format!("{}.features", &name[..16]));
        let records = Records::open(&path, 1 + 4 * dim).map_err(io_error("read", &path))?;
        Ok(Self {
            records: Some(records),
            problem: None,
        })
    }

    /// Whether the features of an image are cached.
    pub(crate) fn contains(&self, key: &RecordKey) -> bool {
        let records = self.records.as_ref();
        records.is_some_and(|records| records.contains(key))
    }

    /// The features of an image, if they are cached.
    ///
    /// # Errors
    /// Fails if the file cannot be read any more.
    pub(crate) fn get(&self, key: &RecordKey) -> Result<Option<Known>> {
        let Some(records) = &self.records else {
            return Ok(None);
        };
        let value = records.get(key);
        let value = value.map_err(io_error("read", records.path()))?;
        Ok(value.as_deref().and_then(Known::of))
    }

    /// Why features are no longer written to disk, if so.
    pub fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// Writes features to disk if possible.
    pub(crate) fn put(&mut self, new: &[(RecordKey, Known)]) {
        let Some(records) = &mut self.records else {
            return;
        };
        let values: Vec<Vec<u8>> = new.iter().map(|(_, known)| known.bytes()).collect();
        let new = new.iter().map(|(key, _)| key);
        if let Err(error) = records.put(new.zip(values.iter().map(Vec::as_slice))) {
            let path = records.path().display();
            self.problem = Some(format!("cannot write to {path}: {error}"));
            self.records = None;
        }
    }
}

fn io_error(action: &'static str, path: &Path) -> impl Fn(io::Error) -> EvalError {
    let path: PathBuf = path.to_owned();
    move |source| EvalError::Io {
        action,
        path: path.clone(),
        source,
    }
}

/// The cached values of an image.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Known {
    /// Conversions of the image while it was read, as 0 or 1 each.
    pub(crate) conversions: Conversions,
    pub(crate) vector: Vec<f32>,
}

impl Known {
    fn bytes(&self) -> Vec<u8> {
        let vector = self.vector.iter().flat_map(|v| v.to_le_bytes());
        [self.conversions.bits()]
            .into_iter()
            .chain(vector)
            .collect()
    }

    fn of(value: &[u8]) -> Option<Self> {
        let (&flags, vector) = value.split_first()?;
        let vector = vector.as_chunks::<4>().0.iter();
        Some(Self {
            conversions: Conversions::from_bits(flags),
            vector: vector.map(|b| f32::from_le_bytes(*b)).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_are_kept_for_their_network_alone() {
        let dir = tempfile::tempdir().unwrap();
        let known = |vector: [f32; 2]| Known {
            conversions: Conversions {
                transparent: 1,
                animated: 1,
                ..Conversions::default()
            },
            vector: vector.to_vec(),
        };
        let open = |name| FeatureCache::open(dir.path(), name, 2).unwrap();
        let mut cache = open("a");
        cache.put(&[([1; 32], known([1.0, 2.0])), ([2; 32], known([3.0, 4.0]))]);
        for cache in [&cache, &open("a")] {
            assert_eq!(cache.get(&[2; 32]).unwrap(), Some(known([3.0, 4.0])));
        }
        assert!(!open("b").contains(&[2; 32]));
    }
}
