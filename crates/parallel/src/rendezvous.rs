//! How rank 0 meets the processes of a run.

use crate::error::{Error, Result};
use crate::listen::listen;
use crate::proof::{Challenge, Proof, is_same, new_nonce};
use crate::world::World;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

/// The first bytes of a connection, which identify the protocol.
pub(crate) const GREETING: [u8; 8] = *b"sdft-4\n\0";
/// Length of a hello: greeting, rank, size, random bytes.
const HELLO_LENGTH: usize = 56;
/// Rank 0's answer to a hello, followed by its random bytes. The rank then sends its proof of the secret.
pub(crate) const CHALLENGE: u8 = 2;
/// Rank 0's answer to a process of another run.
pub(crate) const REFUSED: u8 = 0;
/// Rank 0's answer when all ranks are connected, followed by its own proof.
pub(crate) const WELCOME: u8 = 1;
/// How long a connection may take to send its hello and its proof.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// How many connections without a complete proof are kept.
const MAX_PENDING: usize = 256;

/// A connection that has not proven yet that it belongs to the run.
struct Pending {
    stream: TcpStream,
    address: SocketAddr,
    /// The hello, then the proof.
    bytes: [u8; HELLO_LENGTH],
    got: usize,
    /// Set once the hello is complete.
    challenge: Option<Challenge>,
    since: Instant,
}

/// What is known of a connection.
enum Hello {
    /// It is not complete yet.
    Waiting,
    /// It is not in this protocol, or the connection closed.
    Stranger,
    /// It is from another run, or has another secret.
    Refused,
    /// It is from the rank of this challenge, which knows the secret.
    Rank(Challenge),
}

/// Where rank 0 is expected, for messages.
fn place(world: &World, listener: &TcpListener) -> String {
    let everywhere = listener.local_addr().is_ok_and(|a| a.ip().is_unspecified());
    let note = match everywhere {
        true => {
            " (rank 0 listens at all its addresses, because this one is unknown to it, or not its own)"
        }
        false => "",
    };
    format!("{}:{}{note}", world.address, world.port)
}

/// Rank 0's connections to all other ranks, in rank order.
pub(crate) fn accept_all(world: &World, timeout: Duration) -> Result<Vec<TcpStream>> {
    let failed = |what: String| move |source| Error::Rendezvous { what, source };
    let listener = listen(&world.address, world.port).map_err(|source| {
        let advice = match source.kind() {
            ErrorKind::AddrInUse => {
                "; another program uses this port: start --gpus again, which selects another one, or with other launchers set SDFT_PORT to a free one for all processes"
            }
            _ => "",
        };
        let place = (&world.address, world.port);
        failed(format!(
            "rank 0 cannot listen at {}:{}{advice}",
            place.0, place.1
        ))(source)
    })?;
    let place = place(world, &listener);
    listener
        .set_nonblocking(true)
        .map_err(failed("rank 0 cannot wait for connections".to_owned()))?;
    let until = Instant::now() + timeout;
    let mut pending: Vec<Pending> = Vec::new();
    let mut connected: Vec<Option<(TcpStream, Challenge)>> =
        (1..world.size).map(|_| None).collect();
    let mut refused: Option<SocketAddr> = None;
    let mut problem: Option<std::io::Error> = None;
    while connected.iter().any(Option::is_none) {
        match listener.accept() {
            Ok((stream, address)) => {
                if stream.set_nonblocking(true).is_ok() {
                    pending.push(Pending::new(stream, address));
                }
                // Drop the oldest connection without a proof.
                if pending.len() > MAX_PENDING {
                    pending.remove(0);
                }
            }
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock => thread::sleep(Duration::from_millis(5)),
                ErrorKind::Interrupted
                | ErrorKind::ConnectionAborted
                | ErrorKind::ConnectionReset => {}
                // Out of descriptors, for example: a connection without a proof makes room.
                _ => {
                    if !pending.is_empty() {
                        pending.remove(0);
                    }
                    problem = Some(error);
                    thread::sleep(Duration::from_millis(5));
                }
            },
        }
        let mut waiting = Vec::with_capacity(pending.len());
        for mut connection in pending {
            match connection.read(world)? {
                Hello::Waiting => waiting.push(connection),
                Hello::Stranger => {}
                Hello::Refused => {
                    let _ = connection.stream.write(&[REFUSED]);
                    refused = Some(connection.address);
                }
                Hello::Rank(challenge) => {
                    connected[challenge.rank - 1] = Some((connection.stream, challenge));
                }
            }
        }
        pending = waiting;
        if Instant::now() > until {
            let mut what = format!(
                "timed out: {} of {} processes connected to {place} within {} s",
                connected.iter().flatten().count() + 1,
                world.size,
                timeout.as_secs()
            );
            if let Some(address) = refused {
                what += &format!(
                    "; a process at {address} was refused because its SDFT_SECRET or WORLD_SIZE differs"
                );
            }
            return Err(failed(what)(
                problem.unwrap_or_else(|| ErrorKind::TimedOut.into()),
            ));
        }
    }
    let mut all = Vec::with_capacity(connected.len());
    for (mut stream, challenge) in connected.into_iter().flatten() {
        let rank = challenge.rank;
        let mut answer = vec![WELCOME];
        answer.extend(challenge.proof_of_leader(world));
        stream
            .set_nonblocking(false)
            .and_then(|()| stream.write_all(&answer))
            .map_err(|source| Error::Disconnected { rank, source })?;
        all.push(stream);
    }
    Ok(all)
}

impl Pending {
    fn new(stream: TcpStream, address: SocketAddr) -> Self {
        Self {
            stream,
            address,
            bytes: [0; HELLO_LENGTH],
            got: 0,
            challenge: None,
            since: Instant::now(),
        }
    }

    /// Reads what has arrived of the hello, answers it with a challenge, and reads the proof.
    fn read(&mut self, world: &World) -> Result<Hello> {
        if self.challenge.is_none() {
            if let Some(early) = self.fill(HELLO_LENGTH) {
                return Ok(early);
            }
            let hello = &self.bytes;
            if hello[..8] != GREETING {
                return Ok(Hello::Stranger);
            }
            let numbers = hello.as_chunks::<8>().0;
            let [rank, size] = [1, 2].map(|i| usize::try_from(u64::from_le_bytes(numbers[i])).ok());
            let known = rank.filter(|rank| (1..world.size).contains(rank));
            let (Some(rank), true) = (known, size == Some(world.size)) else {
                return Ok(Hello::Refused);
            };
            let mut of_rank = [0; 32];
            of_rank.copy_from_slice(&hello[24..]);
            let challenge = Challenge {
                rank,
                of_rank,
                of_leader: new_nonce()?,
            };
            let mut answer = vec![CHALLENGE];
            answer.extend(challenge.of_leader);
            // A new connection has room for so few bytes.
            match self.stream.write(&answer) {
                Ok(n) if n == answer.len() => {}
                _ => return Ok(Hello::Stranger),
            }
            (self.challenge, self.got) = (Some(challenge), 0);
        }
        let Some(challenge) = self.challenge else {
            return Ok(Hello::Waiting);
        };
        let mut proof: Proof = [0; 32];
        if let Some(early) = self.fill(proof.len()) {
            return Ok(early);
        }
        proof.copy_from_slice(&self.bytes[..32]);
        Ok(match is_same(&proof, &challenge.proof_of_rank(world)) {
            true => Hello::Rank(challenge),
            false => Hello::Refused,
        })
    }

    /// Reads what has arrived of the first `length` bytes. `None` once they are complete.
    fn fill(&mut self, length: usize) -> Option<Hello> {
        while self.got < length {
            match self.stream.read(&mut self.bytes[self.got..length]) {
                Ok(0) => return Some(Hello::Stranger),
                Ok(n) => self.got += n,
                Err(error) => match error.kind() {
                    ErrorKind::Interrupted => {}
                    ErrorKind::WouldBlock if self.since.elapsed() < HELLO_TIMEOUT => {
                        return Some(Hello::Waiting);
                    }
                    _ => return Some(Hello::Stranger),
                },
            }
        }
        None
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::introduction::connect_to_leader;
    use crate::world::free_port;
    use crate::world::tests::of;

    /// A connection of a rank that rank 0 has accepted.
    pub(crate) fn call(world: &World) -> TcpStream {
        let stream = connect_to_leader(world, Duration::from_secs(20)).unwrap();
        stream.set_read_timeout(None).unwrap();
        stream
    }

    fn world(rank: usize, size: usize, port: u16, secret: &str) -> World {
        World {
            secret: secret.to_owned(),
            ..World::local(rank, size, port)
        }
    }

    #[test]
    fn silent_or_unknown_connections_do_not_delay_the_start() {
        let port = free_port().unwrap();
        let accept_all_world = world(0, 2, port, "s");
        let waiting = thread::spawn(move || {
            let started = Instant::now();
            accept_all(&accept_all_world, Duration::from_secs(30))
                .map(|streams| (streams, started.elapsed()))
        });
        let stranger = || loop {
            match TcpStream::connect(("127.0.0.1", port)) {
                Ok(stream) => return stream,
                Err(_) => thread::sleep(Duration::from_millis(5)),
            }
        };
        let silent: Vec<TcpStream> = (0..20).map(|_| stranger()).collect();
        let mut browser = stranger();
        browser.write_all(&[b'G'; HELLO_LENGTH]).unwrap();
        let met = connect_to_leader(&world(1, 2, port, "s"), Duration::from_secs(30)).unwrap();
        let (streams, took) = waiting.join().unwrap().unwrap();
        assert_eq!(streams.len(), 1);
        assert!(took < Duration::from_secs(5), "{took:?}");
        drop((silent, browser, met));
    }

    #[test]
    fn another_secret_or_size_is_refused_at_once_and_reported_on_both_sides() {
        let port = free_port().unwrap();
        let accept_all_world = world(0, 2, port, "right");
        let waiting = thread::spawn(move || accept_all(&accept_all_world, Duration::from_secs(1)));
        for (size, secret) in [(2, "wrong"), (2, ""), (3, "right")] {
            let error = connect_to_leader(&world(1, size, port, secret), Duration::from_secs(30))
                .unwrap_err();
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

    /// Connects two ranks of these worlds, as two threads.
    fn meet(worlds: [World; 2]) -> Result<Vec<TcpStream>> {
        let [first, second] = worlds;
        let other = thread::spawn(move || connect_to_leader(&second, Duration::from_secs(20)));
        let streams = accept_all(&first, Duration::from_secs(20));
        other.join().unwrap().map(drop)?;
        streams
    }

    #[test]
    fn ranks_meet_next_to_an_agent_that_listens_at_the_master_port() {
        // An agent whose next port is free.
        let (agent, port) = loop {
            let agent = TcpListener::bind(("127.0.0.1", 0)).unwrap();
            let port = agent.local_addr().unwrap().port();
            if port < u16::MAX && TcpListener::bind(("127.0.0.1", port + 1)).is_ok() {
                break (agent, port);
            }
        };
        let port = port.to_string();
        let world = |rank, store| {
            let world = of(&[
                ("RANK", rank),
                ("WORLD_SIZE", "2"),
                ("MASTER_ADDR", "127.0.0.1"),
                ("MASTER_PORT", &port),
                ("TORCHELASTIC_USE_AGENT_STORE", store),
            ]);
            world.unwrap().unwrap()
        };
        assert_eq!(
            meet(["0", "1"].map(|rank| world(rank, "True")))
                .unwrap()
                .len(),
            1
        );
        // Another launcher whose port is in use.
        let error = accept_all(&world("0", "False"), Duration::from_secs(1));
        let error = error.unwrap_err().to_string();
        assert!(
            error.contains(&port) && error.contains("SDFT_PORT"),
            "{error}"
        );
        drop(agent);
    }

    #[test]
    fn rank_0_listens_at_all_addresses_if_the_given_one_is_not_its_own() {
        // An address for documentation, which no machine has.
        let address = "192.0.2.1";
        let port = free_port().unwrap();
        let mut worlds = [0, 1].map(|rank| world(rank, 2, port, "s"));
        worlds[0].address = address.to_owned();
        assert_eq!(meet(worlds.clone()).unwrap().len(), 1);
        let error = accept_all(&worlds[0], Duration::ZERO).unwrap_err();
        let error = error.to_string();
        assert!(
            error.contains(address) && error.contains("or not its own"),
            "{error}"
        );
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn another_address_of_the_loopback_stands_for_another_machine() {
        let port = free_port().unwrap();
        let worlds = ["127.0.0.2", "127.0.0.3"].map(|address| {
            [0, 1].map(|rank| World {
                address: address.to_owned(),
                ..world(rank, 2, port, "s")
            })
        });
        // Two runs with the same port.
        for world in worlds {
            assert_eq!(meet(world).unwrap().len(), 1);
        }
    }

    #[test]
    fn a_recorded_proof_is_worthless() {
        let port = free_port().unwrap();
        let leader = world(0, 2, port, "s");
        let waiting = thread::spawn(move || accept_all(&leader, Duration::from_secs(2)));
        let hello = [
            &GREETING[..],
            &1u64.to_le_bytes(),
            &2u64.to_le_bytes(),
            &[5; 32],
        ]
        .concat();
        let challenge = Challenge {
            rank: 1,
            of_rank: [5; 32],
            of_leader: [6; 32],
        };
        // A proof of an earlier connection.
        let proof = challenge.proof_of_rank(&world(1, 2, port, "s"));
        let mut stream = loop {
            match TcpStream::connect(("127.0.0.1", port)) {
                Ok(stream) => break stream,
                Err(_) => thread::sleep(Duration::from_millis(5)),
            }
        };
        stream.write_all(&hello).unwrap();
        let mut answer = [0; 33];
        stream.read_exact(&mut answer).unwrap();
        assert!(answer[0] == CHALLENGE && answer[1..] != [6; 32]);
        stream.write_all(&proof).unwrap();
        let mut verdict = [9];
        stream.read_exact(&mut verdict).unwrap();
        assert_eq!(verdict, [REFUSED]);
        assert!(waiting.join().unwrap().is_err());
    }

    #[test]
    fn an_answer_without_the_secret_is_not_rank_0() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let pretender = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut hello = [0; HELLO_LENGTH];
            stream.read_exact(&mut hello).unwrap();
            stream
                .write_all(&[&[CHALLENGE][..], &[7; 32]].concat())
                .unwrap();
            let mut proof = [0; 32];
            stream.read_exact(&mut proof).unwrap();
            // It repeats what it has heard.
            stream
                .write_all(&[&[WELCOME][..], &proof].concat())
                .unwrap();
        });
        let error =
            connect_to_leader(&world(1, 2, port, "s"), Duration::from_millis(300)).unwrap_err();
        assert!(
            error.to_string().contains("could not join within"),
            "{error}"
        );
        pretender.join().unwrap();
    }
}
