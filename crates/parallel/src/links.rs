//! Connections between rank 0 and every other: messages of expected sizes, heartbeats, timeouts.

use crate::error::{Error, Result};
use crate::meeting::{guest, host};
use crate::world::World;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::ops::RangeInclusive;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// The first byte of a frame. A heartbeat: every process sends them all the time.
const HEARTBEAT: u8 = 0;
/// A message: its length in 8 bytes, and its bytes; those of a long one follow as a [`BODY`] when the receiver has said [`READY`].
const MESSAGE: u8 = 1;
/// The receiver reads a long message now. So a write that does not proceed means that the receiver has stopped.
const READY: u8 = 2;
/// The sender cannot go on.
const FAILED: u8 = 3;
/// The bytes of a long message. Heartbeats that were sent since its length come before this byte, and none comes after it.
const BODY: u8 = 4;

/// Messages of up to so many bytes fit into any socket's buffer.
const SHORT: usize = 1024;

/// A timeout is counted in so many parts: a process that was itself stopped for a while counts only one of them.
const TICKS: u32 = 10;

/// How long the others may take to close their connections when all is done.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// Rank 0 has one to each other rank, in their order; the others have one to rank 0.
#[derive(Debug)]
pub(crate) struct Links {
    links: Vec<Link>,
    /// Heartbeats end when it is dropped.
    _beat: Sender<()>,
}

#[derive(Debug)]
struct Link {
    /// The rank at the other end.
    rank: usize,
    reader: TcpStream,
    writer: Arc<Mutex<TcpStream>>,
    timeout: Duration,
}

impl Links {
    /// Meets the others.
    pub(crate) fn meet(world: &World, patience: Duration) -> Result<Self> {
        let (first, streams) = if world.rank == 0 {
            (1, host(world, patience)?)
        } else {
            (0, vec![guest(world, patience)?])
        };
        let links = (first..).zip(streams).map(|(rank, stream)| {
            Link::new(rank, stream, world.timeout).map_err(|source| Error::Gone { rank, source })
        });
        let links = links.collect::<Result<Vec<_>>>()?;
        let writers = links.iter().map(|link| link.writer.clone()).collect();
        let beat =
            start_heartbeats(writers, world.timeout / 4).map_err(|source| Error::Meeting {
                what: "heartbeats cannot be started".to_owned(),
                source,
            })?;
        Ok(Self { links, _beat: beat })
    }

    pub(crate) fn len(&self) -> usize {
        self.links.len()
    }

    /// Sends a message. Waits for the receiver where it is long.
    pub(crate) fn send(&mut self, link: usize, bytes: &[u8]) -> Result<()> {
        let link = &mut self.links[link];
        let mut frame = vec![MESSAGE];
        frame.extend((bytes.len() as u64).to_le_bytes());
        if bytes.len() <= SHORT {
            frame.extend(bytes);
            return link.write(&[&frame]);
        }
        link.write(&[&frame])?;
        match link.next()? {
            Frame::Ready => link.write(&[&[BODY], bytes]),
            other => Err(link.unlike("that it reads", other.describe())),
        }
    }

    /// The next message, whose length has to be one of those expected.
    pub(crate) fn receive(
        &mut self,
        link: usize,
        expected: RangeInclusive<usize>,
    ) -> Result<Vec<u8>> {
        let link = &mut self.links[link];
        let length = match link.next()? {
            Frame::Message(length) => length,
            other => return Err(link.unlike("a message", other.describe())),
        };
        let Some(length) = usize::try_from(length)
            .ok()
            .filter(|n| expected.contains(n))
        else {
            let most = bytes_of(*expected.end() as u64);
            let wanted = match expected.start() == expected.end() {
                true => most,
                false => format!("up to {most}"),
            };
            return Err(link.unlike(&wanted, bytes_of(length)));
        };
        if length > SHORT {
            link.write(&[&[READY]])?;
            match link.next()? {
                Frame::Body => {}
                other => return Err(link.unlike("the bytes of a message", other.describe())),
            }
        }
        let mut bytes = vec![0; length];
        link.read(&mut bytes)?;
        Ok(bytes)
    }

    /// Waits until the others have read what was sent last and closed their connections. Closing first could lose it.
    pub(crate) fn wait_closed(&mut self) {
        let until = Instant::now() + CLOSE_TIMEOUT;
        for link in &mut self.links {
            let mut rest = [0; 64];
            while Instant::now() < until {
                match link.reader.read(&mut rest) {
                    Ok(n) if n > 0 => {}
                    Err(error) if is_quiet(&error) => {}
                    _ => break,
                }
            }
        }
    }

    /// Tells everyone who can be reached that this process cannot go on.
    pub(crate) fn fail(&mut self) {
        for link in &self.links {
            // Those that cannot be told notice that the connection ends.
            let _ = link.write(&[&[FAILED]]);
        }
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        for link in &self.links {
            let _ = link.reader.shutdown(Shutdown::Both);
        }
    }
}

enum Frame {
    Message(u64),
    Ready,
    Body,
}

impl Frame {
    fn describe(&self) -> String {
        match self {
            Self::Message(length) => format!("a message of {}", bytes_of(*length)),
            Self::Ready => "that it reads".to_owned(),
            Self::Body => "the bytes of a message".to_owned(),
        }
    }
}

impl Link {
    fn new(rank: usize, stream: TcpStream, timeout: Duration) -> io::Result<Self> {
        let tick = (timeout / TICKS).max(Duration::from_millis(1));
        stream.set_read_timeout(Some(tick))?;
        stream.set_write_timeout(Some(tick))?;
        // Messages are whole when they are written, and steps wait for them.
        let _ = stream.set_nodelay(true);
        Ok(Self {
            rank,
            writer: Arc::new(Mutex::new(stream.try_clone()?)),
            reader: stream,
            timeout,
        })
    }

    fn gone(&self, source: io::Error) -> Error {
        let source = match source.kind() {
            ErrorKind::TimedOut => io::Error::new(
                ErrorKind::TimedOut,
                format!(
                    "it did not respond for {:?} (SDFT_PEER_TIMEOUT)",
                    self.timeout
                ),
            ),
            ErrorKind::UnexpectedEof => {
                io::Error::new(ErrorKind::UnexpectedEof, "it closed the connection")
            }
            _ => source,
        };
        Error::Gone {
            rank: self.rank,
            source,
        }
    }

    fn unlike(&self, expected: &str, found: String) -> Error {
        Error::Unlike {
            rank: self.rank,
            expected: expected.to_owned(),
            found,
        }
    }

    /// The next frame other than a heartbeat.
    fn next(&mut self) -> Result<Frame> {
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
                FAILED => return Err(Error::Failed { rank: self.rank }),
                other => return Err(self.unlike("a message", format!("a frame of kind {other}"))),
            }
        }
    }

    fn read(&mut self, bytes: &mut [u8]) -> Result<()> {
        let reader = &mut self.reader;
        transfer_all(bytes.len(), |done| reader.read(&mut bytes[done..]))
            .map_err(|source| self.gone(source))
    }

    /// Writes all parts of a frame, with no heartbeat between them.
    fn write(&self, parts: &[&[u8]]) -> Result<()> {
        let mut writer = lock(&self.writer);
        for part in parts {
            let written = transfer_all(part.len(), |done| writer.write(&part[done..]));
            if let Err(source) = written {
                // A heartbeat or a failure would be taken for the rest of this frame.
                let _ = writer.shutdown(Shutdown::Write);
                return Err(self.gone(source));
            }
        }
        Ok(())
    }
}

/// Repeats `transfer` from where it is until `length` bytes are done, or nothing has moved for all [`TICKS`].
fn transfer_all(
    length: usize,
    mut transfer: impl FnMut(usize) -> io::Result<usize>,
) -> io::Result<()> {
    let (mut done, mut quiet) = (0, 0);
    while done < length {
        match transfer(done) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(n) => (done, quiet) = (done + n, 0),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if is_quiet(&error) => {
                quiet += 1;
                if quiet >= TICKS {
                    return Err(ErrorKind::TimedOut.into());
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Whether nothing moved for as long as a connection waits at a time.
fn is_quiet(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// Sends heartbeats until what it returns is dropped.
fn start_heartbeats(
    writers: Vec<Arc<Mutex<TcpStream>>>,
    every: Duration,
) -> io::Result<Sender<()>> {
    let (stop, stopped) = mpsc::channel::<()>();
    thread::Builder::new()
        .name("heartbeats".to_owned())
        .spawn(move || {
            while stopped.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                for writer in &writers {
                    // A message under way is as good as a heartbeat, and a receiver that has gone is noticed elsewhere.
                    if let Ok(mut writer) = writer.try_lock() {
                        let _ = writer.write(&[HEARTBEAT]);
                    }
                }
            }
        })?;
    Ok(stop)
}

fn lock(writer: &Mutex<TcpStream>) -> MutexGuard<'_, TcpStream> {
    writer.lock().unwrap_or_else(PoisonError::into_inner)
}

fn bytes_of(length: u64) -> String {
    format!("{length} bytes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meeting::tests::call;
    use crate::world::free_port;

    /// Rank 0 with a timeout of half a second, and a peer that does what the test wants.
    fn with_peer<T: Send + 'static>(
        peer: impl FnOnce(TcpStream) -> T + Send + 'static,
    ) -> (Links, thread::JoinHandle<T>) {
        let mut world = World::here(0, 2, free_port().unwrap());
        world.timeout = Duration::from_millis(500);
        let other = World {
            rank: 1,
            ..world.clone()
        };
        let peer = thread::spawn(move || peer(call(&other)));
        let links = Links::meet(&world, Duration::from_secs(20)).unwrap();
        (links, peer)
    }

    #[test]
    fn an_announced_size_that_is_not_expected_ends_it_before_a_byte_is_read() {
        for announced in [1u64 << 39, u64::MAX, 17, 15] {
            let (mut links, peer) = with_peer(move |mut stream| {
                stream.write_all(&[MESSAGE]).unwrap();
                stream.write_all(&announced.to_le_bytes()).unwrap();
                stream
            });
            let error = links.receive(0, 16..=16).unwrap_err().to_string();
            let found = format!("expected 16 bytes, found {announced} bytes");
            assert!(
                error.contains("rank 1") && error.contains(&found),
                "{error}"
            );
            drop(peer.join().unwrap());
        }
    }

    #[test]
    fn heartbeats_stay_out_of_long_messages_that_wait_for_their_receiver() {
        let port = free_port().unwrap();
        // Heartbeats come every 100 ms.
        let meet = move |rank| {
            let mut world = World::here(rank, 2, port);
            world.timeout = Duration::from_millis(400);
            Links::meet(&world, Duration::from_secs(20)).unwrap()
        };
        let body = |round: u8, length: usize| {
            let mut bytes: Vec<u8> = (0..length).map(|i| 1 + round + (i % 200) as u8).collect();
            bytes[length - 40..].fill(0);
            bytes
        };
        let lengths = [SHORT - 1, SHORT, SHORT + 1, 5000, 3 << 20];
        let other = thread::spawn(move || {
            let mut links = meet(1);
            for (round, length) in (0..).zip(lengths) {
                links.send(0, &body(round, length)).unwrap();
                thread::sleep(Duration::from_millis(500));
                let back = links.receive(0, 0..=length).unwrap();
                assert!(back == body(round + 9, length), "{length} bytes back");
            }
            links.send(0, &[42]).unwrap();
            links.wait_closed();
        });
        let mut links = meet(0);
        for (round, length) in (0..).zip(lengths) {
            thread::sleep(Duration::from_millis(500));
            let came = links.receive(0, length..=length).unwrap();
            assert!(came == body(round, length), "{length} bytes");
            links.send(0, &body(round + 9, length)).unwrap();
        }
        assert_eq!(links.receive(0, 1..=1).unwrap(), [42]);
        drop(links);
        other.join().unwrap();
    }

    #[test]
    fn nothing_follows_a_message_that_was_cut_short() {
        let (mut links, peer) = with_peer(|mut stream| {
            stream.write_all(&[READY]).unwrap();
            thread::sleep(Duration::from_secs(1));
            let mut read = Vec::new();
            stream.read_to_end(&mut read).unwrap();
            read
        });
        links.send(0, &vec![7; 64 << 20]).unwrap_err();
        links.fail();
        // Time for heartbeats, were there any.
        thread::sleep(Duration::from_millis(700));
        drop(links);
        let read = peer.join().unwrap();
        assert!(read.len() < 64 << 20);
        let last_other = read.iter().rfind(|&&byte| byte != 7);
        assert_eq!(last_other, Some(&BODY));
    }

    #[test]
    fn a_peer_that_stops_is_given_up_in_reading_and_in_writing() {
        let long = vec![7; 64 << 20];
        for writes in [false, true] {
            let (mut links, peer) = with_peer(move |mut stream| {
                if writes {
                    // It says that it reads, and does not.
                    stream.write_all(&[READY]).unwrap();
                }
                thread::sleep(Duration::from_secs(3));
                stream
            });
            let started = Instant::now();
            let error = match writes {
                true => links.send(0, &long).unwrap_err(),
                false => links.receive(0, 0..=16).unwrap_err(),
            };
            let error = error.to_string();
            assert!(
                error.contains("rank 1") && error.contains("SDFT_PEER_TIMEOUT"),
                "{error}"
            );
            let waited = started.elapsed();
            assert!(
                waited > Duration::from_millis(400) && waited < Duration::from_secs(3),
                "{waited:?}"
            );
            drop(links);
            peer.join().unwrap();
        }
    }

    #[test]
    fn a_peer_that_computes_for_long_is_waited_for() {
        let (mut links, peer) = with_peer(|mut stream| {
            // Four times as long as the timeout.
            for _ in 0..20 {
                thread::sleep(Duration::from_millis(100));
                stream.write_all(&[HEARTBEAT]).unwrap();
            }
            stream
                .write_all(&[MESSAGE, 1, 0, 0, 0, 0, 0, 0, 0, 42])
                .unwrap();
            // Rank 0 sends heartbeats meanwhile.
            let mut read = [0; 4];
            stream.read_exact(&mut read).unwrap();
            (stream, read)
        });
        assert_eq!(links.receive(0, 1..=1).unwrap(), [42]);
        assert_eq!(peer.join().unwrap().1, [HEARTBEAT; 4]);
    }

    #[test]
    fn the_last_word_reaches_a_peer_that_is_busy() {
        let (mut links, peer) = with_peer(|mut stream| {
            thread::sleep(Duration::from_millis(300));
            for _ in 0..5 {
                // A connection that is closed would answer with a reset.
                stream.write_all(&[HEARTBEAT]).unwrap();
                thread::sleep(Duration::from_millis(20));
            }
            let mut read = Vec::new();
            while read.last() != Some(&42) {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                read.extend(byte);
            }
        });
        links.send(0, &[42]).unwrap();
        let started = Instant::now();
        links.wait_closed();
        drop(links);
        peer.join().unwrap();
        assert!(started.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn a_failure_reaches_a_peer_wherever_it_waits() {
        for sends in [false, true] {
            let (mut links, peer) = with_peer(|mut stream| {
                stream.write_all(&[FAILED]).unwrap();
                stream
            });
            let error = match sends {
                true => links.send(0, &[0; 2000]).unwrap_err(),
                false => links.receive(0, 0..=4000).unwrap_err(),
            };
            assert!(matches!(error, Error::Failed { rank: 1 }), "{error}");
            peer.join().unwrap();
        }
    }
}
