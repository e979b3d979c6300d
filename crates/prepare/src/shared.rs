//! A file that several threads read, each at its own position.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::Path,
    sync::Arc,
};

/// A shared file with its own read position.
#[derive(Clone)]
pub(crate) struct Shared {
    file: Arc<File>,
    at: u64,
    len: u64,
}

impl Shared {
    /// Opens a regular file.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = sdft_files::open_regular(path)?;
        let len = file.metadata()?.len();
        Ok(Self {
            file: Arc::new(file),
            at: 0,
            len,
        })
    }

    /// The length of the file in bytes.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// The next read begins here.
    pub(crate) fn seek_to(&mut self, at: u64) {
        self.at = at;
    }

    /// Reads the bytes `at..at + len`, which must be in the file.
    pub(crate) fn bytes(&self, at: u64, len: u64) -> io::Result<Vec<u8>> {
        let is_there = at.checked_add(len).is_some_and(|end| end <= self.len);
        let len = usize::try_from(len).ok().filter(|_| is_there);
        let mut bytes = vec![0; len.ok_or(io::ErrorKind::UnexpectedEof)?];
        let mut reader = self.clone();
        reader.seek_to(at);
        reader.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}

impl Read for Shared {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        #[cfg(unix)]
        let n = std::os::unix::fs::FileExt::read_at(&*self.file, buffer, self.at)?;
        #[cfg(windows)]
        let n = std::os::windows::fs::FileExt::seek_read(&*self.file, buffer, self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}

impl Seek for Shared {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.len.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = at.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.at)
    }
}
