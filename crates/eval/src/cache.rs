//! A cache of feature vectors on disk.

use crate::error::{EvalError, Result};
use sdft_files::sha256_bytes;
use sdft_imaging::Conversions;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Feature vectors, by the SHA-256 of their image file.
///
/// There is one file for each network, weights and preprocessing. Its records are `sha256 of the image (32 bytes), conversions (8 bits),
/// vector (f32), checksum (u32)`. Records are only appended; truncated or damaged ones are ignored, and their images are measured again.
/// Vectors stay on disk: an open cache takes about 100 bytes for each image.
pub struct FeatureCache {
    path: Option<PathBuf>,
    /// The file for reading, unless it does not exist yet.
    file: Option<File>,
    /// The number of each image's record.
    records: HashMap<[u8; 32], u64>,
    dim: usize,
    problem: Option<String>,
}

impl FeatureCache {
    /// A cache that keeps nothing.
    pub fn none(dim: usize) -> Self {
        Self {
            path: None,
            file: None,
            records: HashMap::new(),
            dim,
            problem: None,
        }
    }

    /// Opens the cache in `folder` for the features that `description` identifies.
    ///
    /// # Errors
    /// Fails if the folder cannot be created or a file cannot be read.
    pub fn open(folder: &Path, description: &str, dim: usize) -> Result<Self> {
        fs::create_dir_all(folder).map_err(io_error("create the folder", folder))?;
        // The number is that of the way in which images are read: 3 converts colour profiles to sRGB.
        let name = sha256_bytes(format!("features 3, {description}, {dim}").as_bytes());
        let path = folder.join(format!("{}.features", &name[..16]));
        let mut cache = Self::none(dim);
        match File::open(&path) {
            Ok(file) => {
                cache.records = index(&file, dim).map_err(io_error("read", &path))?;
                cache.file = Some(file);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(io_error("open", &path)(error)),
        }
        cache.path = Some(path);
        Ok(cache)
    }

    /// Whether the features of an image are cached.
    pub(crate) fn contains(&self, key: &[u8; 32]) -> bool {
        self.records.contains_key(key)
    }

    /// The features of an image, if they are cached.
    ///
    /// # Errors
    /// Fails if the file cannot be read any more.
    pub(crate) fn get(&mut self, key: &[u8; 32]) -> Result<Option<Known>> {
        let (Some(path), Some(&number)) = (&self.path, self.records.get(key)) else {
            return Ok(None);
        };
        let mut record = vec![0; record_len(self.dim)];
        let read = match &mut self.file {
            Some(file) => file
                .seek(SeekFrom::Start(number * record.len() as u64))
                .and_then(|_| file.read_exact(&mut record)),
            None => Err(io::ErrorKind::NotFound.into()),
        };
        read.map_err(io_error("read", path))?;
        let changed = || io::Error::other("the file changed while it was in use");
        let (_, known) = parse(&record).ok_or_else(|| io_error("read", path)(changed()))?;
        Ok(Some(known))
    }

    /// Why features are no longer written to disk, if so.
    pub fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// Writes features to disk if possible.
    pub(crate) fn put(&mut self, new: &[([u8; 32], Known)]) {
        let Some(path) = &self.path else { return };
        let added = append(path, self.dim, new).and_then(|first| {
            if self.file.is_none() {
                self.file = Some(File::open(path)?);
            }
            Ok(first)
        });
        match added {
            Ok(first) => self
                .records
                .extend(new.iter().map(|(key, _)| *key).zip(first..)),
            Err(error) => {
                self.problem = Some(format!("cannot write to {}: {error}", path.display()));
                self.path = None;
                self.records.clear();
            }
        }
    }
}

fn io_error<'a>(action: &'static str, path: &'a Path) -> impl Fn(io::Error) -> EvalError + 'a {
    move |source| EvalError::Io {
        action,
        path: path.to_owned(),
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

/// Size of a record: key, flags, vector, checksum.
fn record_len(dim: usize) -> usize {
    32 + 1 + 4 * dim + 4
}

/// The numbers of the undamaged records.
fn index(file: &File, dim: usize) -> io::Result<HashMap<[u8; 32], u64>> {
    let mut input = BufReader::with_capacity(1 << 20, file);
    let mut records = HashMap::new();
    let mut record = vec![0; record_len(dim)];
    for number in 0.. {
        match input.read_exact(&mut record) {
            Ok(()) => records.extend(parse(&record).map(|(key, _)| (key, number))),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
            Err(error) => return Err(error),
        }
    }
    Ok(records)
}

/// The content of a record; `None` if it is damaged.
fn parse(record: &[u8]) -> Option<([u8; 32], Known)> {
    let (content, checksum) = record.split_last_chunk::<4>()?;
    if crc32fast::hash(content).to_le_bytes() != *checksum {
        return None;
    }
    let (key, rest) = content.split_first_chunk::<32>()?;
    let (&flags, vector) = rest.split_first()?;
    let vector = vector.as_chunks::<4>().0.iter();
    let known = Known {
        conversions: Conversions::from_bits(flags),
        vector: vector.map(|b| f32::from_le_bytes(*b)).collect(),
    };
    Some((*key, known))
}

/// Appends records; returns the number of the first one.
fn append(path: &Path, dim: usize, new: &[([u8; 32], Known)]) -> io::Result<u64> {
    let record = record_len(dim);
    let mut bytes = Vec::with_capacity(new.len() * record);
    for (key, known) in new {
        let start = bytes.len();
        bytes.extend(key);
        bytes.push(known.conversions.bits());
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
    file.write_all(&bytes)?;
    Ok(whole / record as u64)
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
        cache.put(&[([1; 32], known([1.0, 2.0])), ([2; 32], known([3.0, 4.0]))]);
        let path = cache.path.clone().unwrap();
        for cache in [&mut cache, &mut open()] {
            assert_eq!(cache.get(&[2; 32]).unwrap(), Some(known([3.0, 4.0])));
        }
        let other = FeatureCache::open(dir.path(), "b", 2).unwrap();
        assert!(!other.contains(&[2; 32]));
        // Half a record at the end, then a complete one.
        let mut bytes = fs::read(&path).unwrap();
        bytes.truncate(bytes.len() - 5);
        fs::write(&path, &bytes).unwrap();
        let mut cache = open();
        assert!(!cache.contains(&[2; 32]));
        cache.put(&[([3; 32], known([5.0, 6.0]))]);
        for cache in [&mut cache, &mut open()] {
            assert_eq!(cache.get(&[3; 32]).unwrap(), Some(known([5.0, 6.0])));
            assert_eq!(cache.get(&[1; 32]).unwrap(), Some(known([1.0, 2.0])));
        }
        // A flipped bit.
        let mut bytes = fs::read(&path).unwrap();
        bytes[35] ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert!(!open().contains(&[1; 32]) && open().contains(&[3; 32]));
        // Damage while the cache is in use is an error, not a wrong vector.
        assert!(cache.get(&[1; 32]).is_err());
    }
}
