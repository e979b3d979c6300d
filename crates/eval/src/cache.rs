//! A cache of feature vectors on disk.

use crate::error::{EvalError, Result};
use sdft_files::sha256_bytes;
use sdft_imaging::Conversions;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// Feature vectors, by the SHA-256 of their image file.
///
/// There is one file for each network, weights and preprocessing. Its records are `sha256 of the image (32 bytes), conversions (8 bits),
/// vector (f32), checksum (u32)`. Records are only appended; truncated or damaged ones are ignored, and their images are measured again.
pub struct FeatureCache {
    path: Option<PathBuf>,
    rows: HashMap<[u8; 32], Known>,
    dim: usize,
    problem: Option<String>,
}

impl FeatureCache {
    /// A cache in memory only.
    pub fn none(dim: usize) -> Self {
        Self {
            path: None,
            rows: HashMap::new(),
            dim,
            problem: None,
        }
    }

    /// Opens the cache in `folder` for the features that `description` identifies.
    ///
    /// # Errors
    /// Fails if the folder cannot be created or a file cannot be read.
    pub fn open(folder: &Path, description: &str, dim: usize) -> Result<Self> {
        let io = |action, path: &Path| {
            let path = path.to_owned();
            move |source| EvalError::Io {
                action,
                path,
                source,
            }
        };
        fs::create_dir_all(folder).map_err(io("create the folder", folder))?;
        let name = sha256_bytes(format!("features 2, {description}, {dim}").as_bytes());
        let path = folder.join(format!("{}.features", &name[..16]));
        let mut bytes = Vec::new();
        match File::open(&path) {
            Ok(mut file) => {
                file.read_to_end(&mut bytes).map_err(io("read", &path))?;
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(io("open", &path)(error)),
        }
        let mut rows = HashMap::new();
        for record in bytes.chunks_exact(record_len(dim)) {
            let (content, checksum) = record.split_at(record.len() - 4);
            if crc32fast::hash(content).to_le_bytes() != checksum {
                continue;
            }
            let (key, rest) = content.split_at(32);
            let Some((&flags, vector)) = rest.split_first() else {
                continue;
            };
            let vector = vector
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
            if let Ok(key) = key.try_into() {
                let known = Known {
                    conversions: conversions(flags),
                    vector: vector.collect(),
                };
                rows.insert(key, known);
            }
        }
        Ok(Self {
            path: Some(path),
            rows,
            dim,
            problem: None,
        })
    }

    /// The features of an image, if they are cached.
    pub(crate) fn get(&self, key: &[u8; 32]) -> Option<&Known> {
        self.rows.get(key)
    }

    /// Why features are no longer written to disk, if so.
    pub fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// Adds features, and writes them to disk if possible.
    pub(crate) fn put(&mut self, new: Vec<([u8; 32], Known)>) {
        if let Some(path) = &self.path
            && let Err(error) = append(path, self.dim, &new)
        {
            self.problem = Some(format!("cannot write to {}: {error}", path.display()));
            self.path = None;
        }
        self.rows.extend(new);
    }
}

/// The cached values of an image.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Known {
    /// Conversions of the image while it was read, as 0 or 1 each.
    pub(crate) conversions: Conversions,
    pub(crate) vector: Vec<f32>,
}

/// Size of a record: key, flags, vector, checksum.
fn record_len(dim: usize) -> usize {
    32 + 1 + 4 * dim + 4
}

/// One bit for each conversion.
fn flags(conversions: &Conversions) -> u8 {
    let bits = [
        conversions.transparent,
        conversions.sixteen_bit,
        conversions.reoriented,
        conversions.animated,
    ];
    let bits = bits.iter().enumerate();
    bits.fold(0, |all, (i, &n)| all | u8::from(n > 0) << i)
}

fn conversions(flags: u8) -> Conversions {
    let bit = |i: u8| usize::from(flags >> i & 1);
    Conversions {
        transparent: bit(0),
        sixteen_bit: bit(1),
        reoriented: bit(2),
        animated: bit(3),
        ..Conversions::default()
    }
}

fn append(path: &Path, dim: usize, new: &[([u8; 32], Known)]) -> std::io::Result<()> {
    let record = record_len(dim);
    let mut bytes = Vec::with_capacity(new.len() * record);
    for (key, known) in new {
        let start = bytes.len();
        bytes.extend(key);
        bytes.push(flags(&known.conversions));
        bytes.extend(known.vector.iter().flat_map(|v| v.to_le_bytes()));
        bytes.extend(crc32fast::hash(&bytes[start..]).to_le_bytes());
    }
    let mut file = File::options().create(true).append(true).open(path)?;
    // Another process may measure at the same time. Closing the file releases the lock.
    file.lock()?;
    // Pad a record that an earlier process did not finish, so that later records stay aligned.
    let length = file.metadata()?.len();
    let whole = length - length % record as u64;
    if whole < length {
        file.set_len(whole)?;
    }
    file.write_all(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_are_restored_unless_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let known = |vector: [f32; 2]| Known {
            conversions: Conversions {
                transparent: 1,
                animated: 1,
                ..Conversions::default()
            },
            vector: vector.to_vec(),
        };
        let open = || FeatureCache::open(dir.path(), "a", 2).unwrap();
        let mut cache = open();
        cache.put(vec![
            ([1; 32], known([1.0, 2.0])),
            ([2; 32], known([3.0, 4.0])),
        ]);
        let path = cache.path.clone().unwrap();
        assert_eq!(open().get(&[2; 32]), Some(&known([3.0, 4.0])));
        assert!(
            FeatureCache::open(dir.path(), "b", 2)
                .unwrap()
                .get(&[2; 32])
                .is_none()
        );
        // Half a record at the end, then a complete one.
        let mut bytes = fs::read(&path).unwrap();
        bytes.truncate(bytes.len() - 5);
        fs::write(&path, &bytes).unwrap();
        let mut cache = open();
        assert!(cache.get(&[2; 32]).is_none());
        cache.put(vec![([3; 32], known([5.0, 6.0]))]);
        assert_eq!(open().get(&[3; 32]), Some(&known([5.0, 6.0])));
        assert_eq!(open().get(&[1; 32]), Some(&known([1.0, 2.0])));
        // A flipped bit.
        let mut bytes = fs::read(&path).unwrap();
        bytes[35] ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert!(open().get(&[1; 32]).is_none());
    }
}
