//! Connections between rank 0 and every other.

use crate::error::{Error, Result};
use crate::world::World;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// What the first bytes of a connection are, so that a stranger is noticed.
const GREETING: [u8; 8] = *b"sdft-1\n\0";
/// The longest message: more than any model's state.
const MOST_BYTES: u64 = 1 << 40;

/// Rank 0 has one to each other rank, in their order; the others have one to rank 0.
#[derive(Debug)]
pub(crate) struct Links {
    own: usize,
    streams: Vec<TcpStream>,
}

impl Links {
    /// Meets the others.
    pub(crate) fn meet(world: &World, patience: Duration) -> Result<Self> {
        let streams = if world.rank == 0 {
            host(world, patience)?
        } else {
            vec![guest(world, patience)?]
        };
        for stream in &streams {
            // Messages are whole when they are written, and steps wait for them.
            let _ = stream.set_nodelay(true);
            let _ = stream.set_read_timeout(None);
        }
        Ok(Self {
            own: world.rank,
            streams,
        })
    }

    /// The rank behind a connection.
    fn rank_of(&self, link: usize) -> usize {
        if self.own == 0 { link + 1 } else { 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.streams.len()
    }

    pub(crate) fn send(&mut self, link: usize, bytes: &[u8]) -> Result<()> {
        let rank = self.rank_of(link);
        let stream = &mut self.streams[link];
        let length = (bytes.len() as u64).to_le_bytes();
        stream
            .write_all(&length)
            .and_then(|()| stream.write_all(bytes))
            .map_err(|source| Error::Gone { rank, source })
    }

    pub(crate) fn receive(&mut self, link: usize) -> Result<Vec<u8>> {
        let rank = self.rank_of(link);
        let gone = |source| Error::Gone { rank, source };
        let stream = &mut self.streams[link];
        let mut length = [0; 8];
        stream.read_exact(&mut length).map_err(gone)?;
        let length = u64::from_le_bytes(length);
        if length > MOST_BYTES {
            return Err(Error::Unlike {
                rank,
                expected: "a message".to_owned(),
                found: format!("one of {length} bytes"),
            });
        }
        let mut bytes = Vec::new();
        stream.take(length).read_to_end(&mut bytes).map_err(gone)?;
        if bytes.len() as u64 != length {
            return Err(gone(io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(bytes)
    }
}

fn host(world: &World, patience: Duration) -> Result<Vec<TcpStream>> {
    let meeting = |what: String| move |source| Error::Meeting { what, source };
    let place = format!("{}:{}", world.address, world.port);
    let listener = TcpListener::bind((world.address.as_str(), world.port))
        .map_err(meeting(format!("rank 0 cannot listen at {place}")))?;
    listener
        .set_nonblocking(true)
        .map_err(meeting("rank 0 cannot wait".to_owned()))?;
    let until = Instant::now() + patience;
    let mut streams: Vec<Option<TcpStream>> = (1..world.size).map(|_| None).collect();
    while streams.iter().any(Option::is_none) {
        match listener.accept() {
            Ok((stream, _)) => {
                // Somebody else at the door is sent away.
                if let Some((rank, stream)) = welcome(stream, world)
                    && let Some(place) = streams.get_mut(rank.wrapping_sub(1))
                {
                    *place = Some(stream);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if Instant::now() > until {
                    let there = streams.iter().flatten().count() + 1;
                    let what = format!(
                        "{there} of {} processes came to {place} within {} s",
                        world.size,
                        patience.as_secs()
                    );
                    return Err(meeting(what)(io::ErrorKind::TimedOut.into()));
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(error) => return Err(meeting(format!("waiting at {place}"))(error)),
        }
    }
    let mut all = Vec::with_capacity(streams.len());
    for (i, mut stream) in streams.into_iter().flatten().enumerate() {
        let rank = i + 1;
        stream
            .write_all(&GREETING)
            .map_err(|source| Error::Gone { rank, source })?;
        all.push(stream);
    }
    Ok(all)
}

/// The rank of whoever has come, if it is one of this world.
fn welcome(mut stream: TcpStream, world: &World) -> Option<(usize, TcpStream)> {
    stream.set_nonblocking(false).ok()?;
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .ok()?;
    let mut hello = [0; 24];
    stream.read_exact(&mut hello).ok()?;
    let number = |at: usize| {
        let bytes: [u8; 8] = hello[at..at + 8].try_into().ok()?;
        usize::try_from(u64::from_le_bytes(bytes)).ok()
    };
    let fits = hello[..8] == GREETING && number(16)? == world.size;
    fits.then_some((number(8)?, stream))
}

fn guest(world: &World, patience: Duration) -> Result<TcpStream> {
    let until = Instant::now() + patience;
    let place = (world.address.as_str(), world.port);
    loop {
        let met = TcpStream::connect(place).and_then(|mut stream| {
            let mut hello = GREETING.to_vec();
            hello.extend((world.rank as u64).to_le_bytes());
            hello.extend((world.size as u64).to_le_bytes());
            stream.write_all(&hello)?;
            // Rank 0 answers when everybody is there.
            stream.set_read_timeout(Some(patience))?;
            let mut answer = [0; 8];
            stream.read_exact(&mut answer)?;
            if answer == GREETING {
                Ok(stream)
            } else {
                Err(io::ErrorKind::InvalidData.into())
            }
        });
        match met {
            Ok(stream) => return Ok(stream),
            // Rank 0 may not be there yet.
            Err(_) if Instant::now() < until => std::thread::sleep(Duration::from_millis(50)),
            Err(source) => {
                return Err(Error::Meeting {
                    what: format!(
                        "rank {} does not meet rank 0 at {}:{} within {} s",
                        world.rank,
                        world.address,
                        world.port,
                        patience.as_secs()
                    ),
                    source,
                });
            }
        }
    }
}
