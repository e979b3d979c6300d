//! How the processes of a world find each other.

use crate::error::{Error, Result};
use crate::world::World;
use sha2::{Digest, Sha256};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::thread;
use std::time::{Duration, Instant};

/// What the first bytes of a connection are, so that a stranger is noticed.
const GREETING: [u8; 8] = *b"sdft-3\n\0";
/// Greeting, rank, size, proof of the secret.
const HELLO: usize = 56;
/// What rank 0 answers to another world's process.
const REFUSED: u8 = 0;
/// What it answers when everyone is there, with its own proof.
const WELCOME: u8 = 1;
/// How long a connection may take to say who it is.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// How many connections that have not said it are kept.
const MAX_CALLERS: usize = 256;

/// A connection that has not said yet who it is.
struct Caller {
    stream: TcpStream,
    address: SocketAddr,
    hello: [u8; HELLO],
    got: usize,
    since: Instant,
}

/// What a caller said.
enum Said {
    /// Not everything yet.
    Waiting,
    /// Something else, or it left.
    Stranger,
    /// That it is of another world, or it has another secret.
    Other,
    /// That it is this rank.
    Rank(usize),
}

/// Rank 0's connections to all others, in their order.
pub(crate) fn host(world: &World, patience: Duration) -> Result<Vec<TcpStream>> {
    let failed = |what: String| move |source| Error::Meeting { what, source };
    let place = format!("{}:{}", world.address, world.port);
    let listener = TcpListener::bind((world.address.as_str(), world.port))
        .map_err(failed(format!("rank 0 cannot listen at {place}")))?;
    listener
        .set_nonblocking(true)
        .map_err(failed("rank 0 cannot wait".to_owned()))?;
    let until = Instant::now() + patience;
    let mut callers: Vec<Caller> = Vec::new();
    let mut there: Vec<Option<TcpStream>> = (1..world.size).map(|_| None).collect();
    let mut refused: Option<SocketAddr> = None;
    while there.iter().any(Option::is_none) {
        match listener.accept() {
            Ok((stream, address)) => {
                if stream.set_nonblocking(true).is_ok() {
                    callers.push(Caller::new(stream, address));
                }
                // The oldest that says nothing makes room.
                if callers.len() > MAX_CALLERS {
                    callers.remove(0);
                }
            }
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock => thread::sleep(Duration::from_millis(5)),
                ErrorKind::Interrupted
                | ErrorKind::ConnectionAborted
                | ErrorKind::ConnectionReset => {}
                _ => return Err(failed(format!("waiting at {place}"))(error)),
            },
        }
        let mut waiting = Vec::with_capacity(callers.len());
        for mut caller in callers {
            match caller.read(world) {
                Said::Waiting => waiting.push(caller),
                Said::Stranger => {}
                Said::Other => {
                    let _ = caller.stream.write(&[REFUSED]);
                    refused = Some(caller.address);
                }
                Said::Rank(rank) => there[rank - 1] = Some(caller.stream),
            }
        }
        callers = waiting;
        if Instant::now() > until {
            let mut what = format!(
                "{} of {} processes came to {place} within {} s",
                there.iter().flatten().count() + 1,
                world.size,
                patience.as_secs()
            );
            if let Some(address) = refused {
                what += &format!(
                    "; one at {address} was refused: it has another SDFT_SECRET or WORLD_SIZE"
                );
            }
            return Err(failed(what)(ErrorKind::TimedOut.into()));
        }
    }
    let mut all = Vec::with_capacity(there.len());
    for (rank, mut stream) in (1..).zip(there.into_iter().flatten()) {
        let mut answer = vec![WELCOME];
        answer.extend(proof(world, "rank 0", rank));
        stream
            .set_nonblocking(false)
            .and_then(|()| stream.write_all(&answer))
            .map_err(|source| Error::Gone { rank, source })?;
        all.push(stream);
    }
    Ok(all)
}

impl Caller {
    fn new(stream: TcpStream, address: SocketAddr) -> Self {
        Self {
            stream,
            address,
            hello: [0; HELLO],
            got: 0,
            since: Instant::now(),
        }
    }

    /// Reads what has come of its hello.
    fn read(&mut self, world: &World) -> Said {
        while self.got < HELLO {
            match self.stream.read(&mut self.hello[self.got..]) {
                Ok(0) => return Said::Stranger,
                Ok(n) => self.got += n,
                Err(error) => match error.kind() {
                    ErrorKind::Interrupted => {}
                    ErrorKind::WouldBlock if self.since.elapsed() < HELLO_TIMEOUT => {
                        return Said::Waiting;
                    }
                    _ => return Said::Stranger,
                },
            }
        }
        if self.hello[..8] != GREETING {
            return Said::Stranger;
        }
        let rank = self.hello.as_chunks::<8>().0[1];
        let rank = usize::try_from(u64::from_le_bytes(rank)).ok();
        let known = rank.filter(|rank| (1..world.size).contains(rank));
        // The size is part of the proof, too.
        match known {
            Some(rank) if self.hello == hello(world, rank) => Said::Rank(rank),
            _ => Said::Other,
        }
    }
}

/// The connection of another rank to rank 0.
pub(crate) fn guest(world: &World, patience: Duration) -> Result<TcpStream> {
    let until = Instant::now() + patience;
    let place = (world.address.as_str(), world.port);
    let failed = |what: &str, source| Error::Meeting {
        what: format!(
            "rank {} {what} rank 0 at {}:{}",
            world.rank, world.address, world.port
        ),
        source,
    };
    loop {
        let met = connect(place, until).and_then(|mut stream| {
            stream.write_all(&hello(world, world.rank))?;
            // Rank 0 answers when everyone is there.
            let left = until.saturating_duration_since(Instant::now());
            stream.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
            let mut answer = [0];
            stream.read_exact(&mut answer)?;
            if answer == [REFUSED] {
                return Ok(None);
            }
            let mut proven = [0; 32];
            stream.read_exact(&mut proven)?;
            if answer == [WELCOME] && proven == proof(world, "rank 0", world.rank) {
                Ok(Some(stream))
            } else {
                Err(ErrorKind::InvalidData.into())
            }
        });
        match met {
            Ok(Some(stream)) => return Ok(stream),
            Ok(None) => {
                let problem = "it has another SDFT_SECRET or WORLD_SIZE";
                let source = io::Error::new(ErrorKind::PermissionDenied, problem);
                return Err(failed("is refused by", source));
            }
            // Rank 0 may not be there yet.
            Err(_) if Instant::now() < until => thread::sleep(Duration::from_millis(50)),
            Err(source) => {
                let what = format!("within {} s did not meet", patience.as_secs());
                return Err(failed(&what, source));
            }
        }
    }
}

fn connect(place: (&str, u16), until: Instant) -> io::Result<TcpStream> {
    let mut last = io::Error::from(ErrorKind::NotFound);
    for address in place.to_socket_addrs()? {
        let left = until.saturating_duration_since(Instant::now());
        match TcpStream::connect_timeout(&address, left.max(Duration::from_millis(1))) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// What a rank says first.
fn hello(world: &World, rank: usize) -> [u8; HELLO] {
    let mut bytes = [0; HELLO];
    bytes[..8].copy_from_slice(&GREETING);
    bytes[8..16].copy_from_slice(&(rank as u64).to_le_bytes());
    bytes[16..24].copy_from_slice(&(world.size as u64).to_le_bytes());
    bytes[24..].copy_from_slice(&proof(world, "rank N", rank));
    bytes
}

/// Shows that the speaker knows the secret, without saying it. A process that can read the traffic can repeat it.
fn proof(world: &World, speaker: &str, rank: usize) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(speaker);
    hash.update((rank as u64).to_le_bytes());
    hash.update((world.size as u64).to_le_bytes());
    hash.update(&world.secret);
    hash.finalize().into()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::world::free_port;

    /// A connection of a rank that has met rank 0.
    pub(crate) fn call(world: &World) -> TcpStream {
        let stream = guest(world, Duration::from_secs(20)).unwrap();
        stream.set_read_timeout(None).unwrap();
        stream
    }

    fn world(rank: usize, size: usize, port: u16, secret: &str) -> World {
        World {
            secret: secret.to_owned(),
            ..World::here(rank, size, port)
        }
    }

    #[test]
    fn silent_strangers_and_wrong_greetings_cost_no_time() {
        let port = free_port().unwrap();
        let host_world = world(0, 2, port, "s");
        let waiting = thread::spawn(move || {
            let started = Instant::now();
            host(&host_world, Duration::from_secs(30)).map(|streams| (streams, started.elapsed()))
        });
        let stranger = || loop {
            match TcpStream::connect(("127.0.0.1", port)) {
                Ok(stream) => return stream,
                Err(_) => thread::sleep(Duration::from_millis(5)),
            }
        };
        let silent: Vec<TcpStream> = (0..20).map(|_| stranger()).collect();
        let mut browser = stranger();
        browser.write_all(&[b'G'; HELLO]).unwrap();
        let met = guest(&world(1, 2, port, "s"), Duration::from_secs(30)).unwrap();
        let (streams, took) = waiting.join().unwrap().unwrap();
        assert_eq!(streams.len(), 1);
        assert!(took < Duration::from_secs(5), "{took:?}");
        drop((silent, browser, met));
    }

    #[test]
    fn another_secret_or_size_is_refused_at_once_and_said_on_both_sides() {
        let port = free_port().unwrap();
        let host_world = world(0, 2, port, "right");
        let waiting = thread::spawn(move || host(&host_world, Duration::from_secs(1)));
        for (size, secret) in [(2, "wrong"), (2, ""), (3, "right")] {
            let error = guest(&world(1, size, port, secret), Duration::from_secs(30)).unwrap_err();
            let error = error.to_string();
            assert!(
                error.contains("refused") && error.contains("SDFT_SECRET"),
                "{error}"
            );
        }
        let error = waiting.join().unwrap().unwrap_err().to_string();
        assert!(
            error.contains("1 of 2 processes") && error.contains("SDFT_SECRET"),
            "{error}"
        );
    }

    #[test]
    fn an_answer_without_the_secret_is_not_rank_0() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let pretender = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut answer = vec![WELCOME];
            answer.extend([0; 32]);
            stream.write_all(&answer).unwrap();
        });
        let error = guest(&world(1, 2, port, "s"), Duration::from_millis(300)).unwrap_err();
        assert!(error.to_string().contains("did not meet"), "{error}");
        pretender.join().unwrap();
    }
}
