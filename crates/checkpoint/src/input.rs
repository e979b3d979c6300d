//! A file or bytes in memory, read with checked bounds.

use crate::error::{Error, Result};
use std::io::{BufReader, Cursor, ErrorKind, Read, Seek};
use std::path::{Path, PathBuf};

pub(crate) trait ReadSeek: Read + Seek {}
impl<T: Read + Seek> ReadSeek for T {}

/// A file or bytes in memory, with a name for messages and its length.
pub(crate) struct Input<'a> {
    pub(crate) path: PathBuf,
    pub(crate) len: u64,
    /// The position of the next byte.
    at: u64,
    reader: Box<dyn ReadSeek + 'a>,
}

impl<'a> Input<'a> {
    pub(crate) fn open(path: &Path) -> Result<Input<'static>> {
        let io = |source| Error::Io {
            action: "cannot be read",
            path: path.to_owned(),
            source,
        };
        let file = sdft_files::open_regular(path).map_err(|source| match source.kind() {
            ErrorKind::NotFound => Error::Missing {
                path: path.to_owned(),
                hint: sdft_files::similar_path(path),
            },
            ErrorKind::InvalidInput => Error::Format {
                path: path.to_owned(),
                problem: source.to_string(),
            },
            _ => io(source),
        })?;
        let len = file.metadata().map_err(io)?.len();
        let reader = BufReader::with_capacity(1 << 16, file);
        Ok(Input {
            path: path.to_owned(),
            len,
            at: 0,
            reader: Box::new(reader),
        })
    }

    pub(crate) fn bytes(name: &str, bytes: &'a [u8]) -> Self {
        Self {
            path: name.into(),
            len: bytes.len() as u64,
            at: 0,
            reader: Box::new(Cursor::new(bytes)),
        }
    }

    pub(crate) fn bad(&self, problem: impl Into<String>) -> Error {
        Error::Format {
            path: self.path.clone(),
            problem: problem.into(),
        }
    }

    fn io(&self, source: std::io::Error) -> Error {
        Error::Io {
            action: "cannot be read",
            path: self.path.clone(),
            source,
        }
    }

    /// Moves to a byte. Buffered bytes are not read again.
    pub(crate) fn seek(&mut self, to: u64) -> Result<()> {
        let by = i64::try_from(i128::from(to) - i128::from(self.at))
            .map_err(|_| self.bad("the file is cut off"))?;
        let moved = self.reader.seek_relative(by);
        moved.map_err(|source| self.io(source))?;
        self.at = to;
        Ok(())
    }

    /// The reader itself; call [`Self::rewind`] afterwards.
    pub(crate) fn reader(&mut self) -> &mut (dyn ReadSeek + 'a) {
        &mut *self.reader
    }

    /// Moves to the first byte, regardless of the position.
    pub(crate) fn rewind(&mut self) -> Result<()> {
        self.at = 0;
        let moved = self.reader.rewind();
        moved.map_err(|source| self.io(source))
    }

    pub(crate) fn position(&self) -> u64 {
        self.at
    }

    /// The number of bytes that are left.
    pub(crate) fn left(&self) -> u64 {
        self.len.saturating_sub(self.at)
    }

    /// Fills `out`; an error if the file is cut off.
    pub(crate) fn fill(&mut self, out: &mut [u8]) -> Result<()> {
        match self.reader.read_exact(out) {
            Ok(()) => {
                self.at += out.len() as u64;
                Ok(())
            }
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => Err(self.bad("the file is cut off")),
            Err(source) => Err(self.io(source)),
        }
    }

    /// `len` bytes from `start`. Nothing is allocated for bytes that the file does not have.
    pub(crate) fn range(&mut self, start: u64, len: u64) -> Result<Vec<u8>> {
        if start.checked_add(len).is_none_or(|end| end > self.len) {
            return Err(self.bad("the file is cut off"));
        }
        self.seek(start)?;
        let mut out =
            vec![0; usize::try_from(len).map_err(|_| self.bad("too large for this machine"))?];
        self.fill(&mut out)?;
        Ok(out)
    }

    /// `len` bytes from `start`, a piece at a time; pieces hold a whole number of numbers of up to 16 bytes.
    pub(crate) fn pieces(
        &mut self,
        start: u64,
        len: u64,
        mut each: impl FnMut(&[u8]),
    ) -> Result<()> {
        const PIECE: u64 = 1 << 16;
        if start.checked_add(len).is_none_or(|end| end > self.len) {
            return Err(self.bad("the file is cut off"));
        }
        self.seek(start)?;
        let mut buffer = vec![0; usize::try_from(PIECE.min(len)).unwrap_or(0)];
        let mut left = len;
        while left > 0 {
            let now = usize::try_from(left.min(PIECE)).unwrap_or(0);
            self.fill(&mut buffer[..now])?;
            each(&buffer[..now]);
            left -= now as u64;
        }
        Ok(())
    }
}
