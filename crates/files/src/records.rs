//! A file of records of one length, each under a hash, to which records are only appended.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// The key of a record: a SHA-256.
pub type RecordKey = [u8; 32];

const KEY: usize = 32;
const CHECKSUM: usize = 4;

/// Results that were computed before, by the hash of what they were computed from.
///
/// A record is its key, its value and a CRC-32 of both. Truncated and damaged records are ignored, so their results are computed again.
/// Several processes may append to one file. Values stay on disk: an open file takes about 100 bytes of memory for each record.
#[derive(Debug)]
pub struct Records {
    path: PathBuf,
    /// The file for reading, unless it does not exist yet.
    file: Option<Mutex<File>>,
    /// The number of each key's record.
    numbers: HashMap<RecordKey, u64>,
    /// Length of a value in bytes.
    value: usize,
}

impl Records {
    /// Opens a file whose values have `value` bytes. It need not exist.
    ///
    /// # Errors
    /// The file exists and cannot be read.
    pub fn open(path: &Path, value: usize) -> io::Result<Self> {
        let mut records = Self {
            path: path.to_owned(),
            file: None,
            numbers: HashMap::new(),
            value,
        };
        match File::open(path) {
            Ok(file) => {
                records.numbers = index(&file, value)?;
                records.file = Some(Mutex::new(file));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        Ok(records)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether there is a record of this key.
    pub fn contains(&self, key: &RecordKey) -> bool {
        self.numbers.contains_key(key)
    }

    /// The value of a key, if there is one.
    ///
    /// # Errors
    /// The file cannot be read any more, or the record was damaged since the file was opened.
    pub fn get(&self, key: &RecordKey) -> io::Result<Option<Vec<u8>>> {
        let Some(&number) = self.numbers.get(key) else {
            return Ok(None);
        };
        let Some(file) = &self.file else {
            return Ok(None);
        };
        let mut record = vec![0; KEY + self.value + CHECKSUM];
        {
            let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
            file.seek(SeekFrom::Start(number * record.len() as u64))?;
            file.read_exact(&mut record)?;
        }
        if parse(&record) != Some(*key) {
            return Err(io::Error::other("the file changed while it was in use"));
        }
        record.truncate(KEY + self.value);
        record.drain(..KEY);
        Ok(Some(record))
    }

    /// Appends records. A value of another length than that of the file is refused.
    ///
    /// # Errors
    /// The file system fails; then none of them counts.
    pub fn put<'a>(
        &mut self,
        new: impl IntoIterator<Item = (&'a RecordKey, &'a [u8])>,
    ) -> io::Result<()> {
        let record = KEY + self.value + CHECKSUM;
        let (mut bytes, mut keys) = (Vec::new(), Vec::new());
        for (key, value) in new {
            if value.len() != self.value {
                let text = format!("expected {} bytes, found {}", self.value, value.len());
                return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
            }
            let start = bytes.len();
            bytes.extend(key);
            bytes.extend(value);
            bytes.extend(crc32fast::hash(&bytes[start..]).to_le_bytes());
            keys.push(*key);
        }
        // Not for appending alone: Windows would neither lock nor truncate it.
        let options = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .clone();
        let mut file = options.open(&self.path)?;
        // Another process may append at the same time. Closing the file releases the lock.
        file.lock()?;
        // A record that an earlier process did not finish is cut off, so that later ones stay aligned.
        let length = file.metadata()?.len();
        let whole = length - length % record as u64;
        if whole < length {
            file.set_len(whole)?;
        }
        file.seek(SeekFrom::Start(whole))?;
        file.write_all(&bytes)?;
        if self.file.is_none() {
            self.file = Some(Mutex::new(File::open(&self.path)?));
        }
        self.numbers
            .extend(keys.into_iter().zip(whole / record as u64..));
        Ok(())
    }
}

/// The numbers of the undamaged records.
fn index(file: &File, value: usize) -> io::Result<HashMap<RecordKey, u64>> {
    let mut input = BufReader::with_capacity(1 << 20, file);
    let mut numbers = HashMap::new();
    let mut record = vec![0; KEY + value + CHECKSUM];
    for number in 0.. {
        match input.read_exact(&mut record) {
            Ok(()) => numbers.extend(parse(&record).map(|key| (key, number))),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
            Err(error) => return Err(error),
        }
    }
    Ok(numbers)
}

/// The key of a record; `None` if it is damaged.
fn parse(record: &[u8]) -> Option<RecordKey> {
    let (content, checksum) = record.split_last_chunk::<CHECKSUM>()?;
    if crc32fast::hash(content).to_le_bytes() != *checksum {
        return None;
    }
    content.first_chunk::<KEY>().copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn values_are_restored_unless_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.records");
        let open = || Records::open(&path, 2).unwrap();
        let mut records = open();
        assert_eq!(records.get(&[1; 32]).unwrap(), None);
        let (one, two) = ([1u8; 32], [2u8; 32]);
        records
            .put([(&one, &[1u8, 2][..]), (&two, &[3, 4])])
            .unwrap();
        for records in [&records, &open()] {
            assert_eq!(records.get(&two).unwrap(), Some(vec![3, 4]));
        }
        assert!(records.put([(&one, &[1u8][..])]).is_err());
        // Half a record at the end, then a complete one.
        let mut bytes = fs::read(&path).unwrap();
        bytes.truncate(bytes.len() - 5);
        fs::write(&path, &bytes).unwrap();
        let mut records = open();
        assert!(!records.contains(&two));
        records.put([(&[3; 32], &[5u8, 6][..])]).unwrap();
        for records in [&records, &open()] {
            assert_eq!(records.get(&[3; 32]).unwrap(), Some(vec![5, 6]));
            assert_eq!(records.get(&one).unwrap(), Some(vec![1, 2]));
        }
        // A flipped bit.
        let mut bytes = fs::read(&path).unwrap();
        bytes[33] ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert!(!open().contains(&one) && open().contains(&[3; 32]));
        // Damage while the file is in use is an error, not a wrong value.
        assert!(records.get(&one).is_err());
    }
}
