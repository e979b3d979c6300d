use crate::error::{EvalError, Result};
use sdft_checkpoint::sha256_bytes;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// Feature vectors by the content of the image file that they came from.
///
/// One file per network, weights and preprocessing, of records `sha256 of the image (32 bytes), vector (f32), checksum (u32)`. It only grows;
/// a record that was cut off or damaged is passed over, and its image is looked at again.
pub struct FeatureCache {
    path: Option<PathBuf>,
    rows: HashMap<[u8; 32], Vec<f32>>,
    dim: usize,
    problem: Option<String>,
}

impl FeatureCache {
    /// Nothing is kept.
    pub fn none(dim: usize) -> Self {
        Self {
            path: None,
            rows: HashMap::new(),
            dim,
            problem: None,
        }
    }

    /// The cache in `folder` for features that `description` tells apart from all others.
    ///
    /// # Errors
    /// A folder that cannot be made, a file that cannot be read.
    pub fn open(folder: &Path, description: &str, dim: usize) -> Result<Self> {
        let io = |action, path: &Path| {
            let path = path.to_owned();
            move |source| EvalError::Io {
                action,
                path,
                source,
            }
        };
        fs::create_dir_all(folder).map_err(io("make the folder", folder))?;
        let name = sha256_bytes(format!("features 1, {description}, {dim}").as_bytes());
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
        for record in bytes.chunks_exact(36 + 4 * dim) {
            let (content, checksum) = record.split_at(record.len() - 4);
            if crc32fast::hash(content).to_le_bytes() != checksum {
                continue;
            }
            let (key, vector) = content.split_at(32);
            let vector = vector
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
            if let Ok(key) = key.try_into() {
                rows.insert(key, vector.collect());
            }
        }
        Ok(Self {
            path: Some(path),
            rows,
            dim,
            problem: None,
        })
    }

    /// The vector of an image, if it is there.
    pub(crate) fn get(&self, key: &[u8; 32]) -> Option<&[f32]> {
        self.rows.get(key).map(Vec::as_slice)
    }

    /// Why vectors are not kept on disk any more, if that is so.
    pub fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// Keeps vectors, on disk too as long as that works: nobody depends on it.
    pub(crate) fn put(&mut self, new: Vec<([u8; 32], Vec<f32>)>) {
        if let Some(path) = &self.path
            && let Err(error) = append(path, self.dim, &new)
        {
            self.problem = Some(format!("cannot write to {}: {error}", path.display()));
            self.path = None;
        }
        self.rows.extend(new);
    }
}

fn append(path: &Path, dim: usize, new: &[([u8; 32], Vec<f32>)]) -> std::io::Result<()> {
    let record = 36 + 4 * dim;
    let mut bytes = Vec::with_capacity(new.len() * record);
    for (key, vector) in new {
        let start = bytes.len();
        bytes.extend(key);
        bytes.extend(vector.iter().flat_map(|v| v.to_le_bytes()));
        bytes.extend(crc32fast::hash(&bytes[start..]).to_le_bytes());
    }
    let mut file = File::options().create(true).append(true).open(path)?;
    // Two programs may measure at once; the lock goes when the file is closed.
    file.lock()?;
    // A record that an earlier program left unfinished must not move the later ones out of step.
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
    fn vectors_come_back_and_damaged_ones_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let open = || FeatureCache::open(dir.path(), "a", 2).unwrap();
        let mut cache = open();
        cache.put(vec![([1; 32], vec![1.0, 2.0]), ([2; 32], vec![3.0, 4.0])]);
        let path = cache.path.clone().unwrap();
        assert_eq!(open().get(&[2; 32]), Some(&[3.0, 4.0][..]));
        assert!(
            FeatureCache::open(dir.path(), "b", 2)
                .unwrap()
                .get(&[2; 32])
                .is_none()
        );
        // Half a record at the end, then another whole one.
        let mut bytes = fs::read(&path).unwrap();
        bytes.truncate(bytes.len() - 5);
        fs::write(&path, &bytes).unwrap();
        let mut cache = open();
        assert!(cache.get(&[2; 32]).is_none());
        cache.put(vec![([3; 32], vec![5.0, 6.0])]);
        assert_eq!(open().get(&[3; 32]), Some(&[5.0, 6.0][..]));
        assert_eq!(open().get(&[1; 32]), Some(&[1.0, 2.0][..]));
        // A flipped bit.
        let mut bytes = fs::read(&path).unwrap();
        bytes[35] ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert!(open().get(&[1; 32]).is_none());
    }
}
