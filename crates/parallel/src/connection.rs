//! One connection: frames, heartbeats, timeouts.

use crate::error::{Error, Result};
use crate::transfer::{HEARTBEAT, TICKS, lock, made_no_progress, transfer_all};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A message: its length in 8 bytes and its bytes. The bytes of a long message follow in a [`BODY`], after the receiver has sent [`READY`].
pub(crate) const MESSAGE: u8 = 1;
/// The receiver is reading a long message, so a write that makes no progress means that the receiver has stopped.
pub(crate) const READY: u8 = 2;
/// The sender has failed: the length of the reason in 2 bytes, and the reason.
pub(crate) const FAILED: u8 = 3;
/// The bytes of a long message. Heartbeats sent since the message's length come before this byte, and none come after it.
pub(crate) const BODY: u8 = 4;

/// Rank 0 has finished with the others.
pub(crate) const ENDED: u8 = 5;

/// Messages up to this many bytes fit into any socket's buffer.
pub(crate) const SHORT: usize = 1024;

#[derive(Debug)]
pub(crate) struct Connection {
    /// The rank at the other end.
    pub(crate) rank: usize,
    pub(crate) reader: TcpStream,
    pub(crate) writer: Arc<Mutex<TcpStream>>,
    timeout: Duration,
    /// For how long polls have found nothing, since the last byte that was read.
    silence: Duration,
    /// The reason why the other process failed, if it reported one.
    failed: Option<String>,
}

/// What begins after a byte of its kind.
pub(crate) enum Frame {
    Message(u64),
    Ready,
    Body,
}

impl Frame {
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Message(length) => format!("a message of {}", bytes_of(*length)),
            Self::Ready => "a ready frame".to_owned(),
            Self::Body => "the bytes of a message".to_owned(),
        }
    }
}

impl Connection {
    pub(crate) fn new(rank: usize, stream: TcpStream, timeout: Duration) -> io::Result<Self> {
        let tick = (timeout / TICKS).max(Duration::from_millis(1));
        stream.set_read_timeout(Some(tick))?;
        stream.set_write_timeout(Some(tick))?;
        // Messages are written whole, and steps wait for them.
        let _ = stream.set_nodelay(true);
        Ok(Self {
            rank,
            writer: Arc::new(Mutex::new(stream.try_clone()?)),
            reader: stream,
            timeout,
            silence: Duration::ZERO,
            failed: None,
        })
    }

    fn disconnected(&self, source: io::Error) -> Error {
        let source = match source.kind() {
            ErrorKind::TimedOut => io::Error::new(
                ErrorKind::TimedOut,
                format!(
                    "timed out after {:?} without a response (SDFT_PEER_TIMEOUT)",
                    self.timeout
                ),
            ),
            ErrorKind::UnexpectedEof => {
                io::Error::new(ErrorKind::UnexpectedEof, "connection closed")
            }
            _ => source,
        };
        Error::Disconnected {
            rank: self.rank,
            source,
        }
    }

    fn failure(&self, why: &str) -> Error {
        Error::Failed {
            rank: self.rank,
            why: why.to_owned(),
        }
    }

    pub(crate) fn mismatch(&self, expected: &str, found: String) -> Error {
        Error::Mismatch {
            rank: self.rank,
            expected: expected.to_owned(),
            found,
        }
    }

    /// The next frame other than a heartbeat.
    pub(crate) fn next(&mut self) -> Result<Frame> {
        if let Some(why) = &self.failed {
            return Err(self.failure(why));
        }
        loop {
            let mut kind = [0];
            self.read(&mut kind)?;
            match kind[0] {
                HEARTBEAT => {}
                MESSAGE => {
                    let mut length = [0; 8];
                    self.read(&mut length)?;
                    return Ok(Frame::Message(u64::from_le_bytes(length)));
                }
                READY => return Ok(Frame::Ready),
                BODY => return Ok(Frame::Body),
                FAILED => {
                    let why = self.reason()?;
                    let error = self.failure(&why);
                    self.failed = Some(why);
                    return Err(error);
                }
                ENDED => return Err(Error::Ended),
                other => return Err(self.mismatch("a message", format!("a frame of kind {other}"))),
            }
        }
    }

    /// The reason of a failure, without characters that would control a terminal.
    fn reason(&mut self) -> Result<String> {
        let mut length = [0; 2];
        self.read(&mut length)?;
        let length = usize::from(u16::from_le_bytes(length));
        if length > SHORT {
            return Err(self.mismatch(
                &format!("up to {}", bytes_of(SHORT as u64)),
                bytes_of(length as u64),
            ));
        }
        let mut bytes = vec![0; length];
        self.read(&mut bytes)?;
        let text = String::from_utf8_lossy(&bytes).replace('\n', "; ");
        Ok(text.chars().filter(|c| !c.is_control()).collect())
    }

    /// Does [`Self::check`], and fails if the other process has sent nothing for its timeout. It must be called once per `every`. Only that
    /// time counts, so a process that was itself suspended counts little.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub(crate) fn poll(&mut self, every: Duration) -> Result<()> {
        self.silence = match self.check()? {
            true => Duration::ZERO,
            false => self.silence + every,
        };
        if self.silence < self.timeout {
            return Ok(());
        }
        Err(self.disconnected(ErrorKind::TimedOut.into()))
    }

    /// Whether the other process has sent something. Fails if it has ended, failed or disconnected; does not wait.
    ///
    /// # Errors
    /// As [`Self::next`]. The bytes of a message stay.
    pub(crate) fn check(&mut self) -> Result<bool> {
        if let Some(why) = &self.failed {
            return Err(self.failure(why));
        }
        let mut has_sent = false;
        loop {
            let mut kind = [0];
            // Heartbeats are written without waiting meanwhile, which changes nothing for a single byte.
            let peeked = self
                .reader
                .set_nonblocking(true)
                .and_then(|()| self.reader.peek(&mut kind));
            self.reader
                .set_nonblocking(false)
                .map_err(|source| self.disconnected(source))?;
            match (peeked, kind) {
                (Ok(0), _) => return Err(self.disconnected(ErrorKind::UnexpectedEof.into())),
                (Ok(_), [HEARTBEAT]) => {
                    self.read(&mut kind)?;
                    has_sent = true;
                }
                (Ok(_), [FAILED]) => return self.next().map(|_| true),
                // It stays, for the next call.
                (Ok(_), [ENDED]) => return Err(Error::Ended),
                (Ok(_), _) => return Ok(true),
                (Err(error), _) if error.kind() == ErrorKind::Interrupted => {}
                (Err(error), _) if made_no_progress(&error) => return Ok(has_sent),
                (Err(error), _) => return Err(self.disconnected(error)),
            }
        }
    }

    pub(crate) fn read(&mut self, bytes: &mut [u8]) -> Result<()> {
        let reader = &mut self.reader;
        transfer_all(bytes.len(), |done| reader.read(&mut bytes[done..]))
            .map_err(|source| self.disconnected(source))?;
        self.silence = Duration::ZERO;
        Ok(())
    }

    /// [`Self::write`], which fails with the reason of the other process if it sent one before its end.
    pub(crate) fn write_or_reason(&mut self, parts: &[&[u8]]) -> Result<()> {
        self.write(parts).map_err(|error| match self.check() {
            Err(reason @ (Error::Failed { .. } | Error::Ended)) => reason,
            _ => error,
        })
    }

    /// Writes all parts of a frame, with no heartbeat between them.
    pub(crate) fn write(&self, parts: &[&[u8]]) -> Result<()> {
        let mut writer = lock(&self.writer);
        for part in parts {
            let written = transfer_all(part.len(), |done| writer.write(&part[done..]));
            if let Err(source) = written {
                // A heartbeat or a failure frame would be read as the rest of this frame.
                let _ = writer.shutdown(Shutdown::Write);
                return Err(self.disconnected(source));
            }
        }
        Ok(())
    }
}

pub(crate) fn bytes_of(length: u64) -> String {
    format!("{length} bytes")
}
