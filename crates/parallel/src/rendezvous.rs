//! How the processes of a run connect to rank 0.

use crate::error::{Error, Result};
use crate::world::World;
use sha2::{Digest, Sha256};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::thread;
use std::time::{Duration, Instant};

/// The first bytes of a connection, which identify the protocol.
const GREETING: [u8; 8] = *b"sdft-3\n\0";
/// Length of a hello: greeting, rank, size, proof of the secret.
const HELLO_LENGTH: usize = 56;
/// Rank 0's answer to a process of another run.
const REFUSED: u8 = 0;
/// Rank 0's answer when all ranks are connected, followed by its own proof.
const WELCOME: u8 = 1;
/// How long a connection may take to send its hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// How many connections without a complete hello are kept.
const MAX_PENDING: usize = 256;

/// A connection whose hello is not complete.
struct Pending {
    stream: TcpStream,
    address: SocketAddr,
    hello: [u8; HELLO_LENGTH],
    got: usize,
    since: Instant,
}

/// What a connection's hello says.
enum Hello {
    /// It is not complete yet.
    Waiting,
    /// It is not in this protocol, or the connection closed.
    Stranger,
    /// It is from another run, or has another secret.
    Refused,
    /// It is from this rank of this run.
    Rank(usize),
}

/// Listens at an address of this machine. Listens at all addresses if this one belongs to another machine that forwards connections (NAT,
/// services of Kubernetes), or if [`says_nothing`].
fn listen(host: &str, port: u16) -> io::Result<TcpListener> {
    let named: Vec<SocketAddr> = (host, port)
        .to_socket_addrs()
        .map_or_else(|_| Vec::new(), Iterator::collect);
    if !says_nothing(host, &named) {
        match TcpListener::bind(&named[..]) {
            Err(error) if error.kind() == ErrorKind::AddrNotAvailable => {}
            other => return other,
        }
    }
    let all: [SocketAddr; 2] = [
        (Ipv6Addr::UNSPECIFIED, port).into(),
        (Ipv4Addr::UNSPECIFIED, port).into(),
    ];
    // An IPv6 socket takes connections of both kinds, unless the system is set up otherwise.
    let only_v4 = !named.is_empty() && named.iter().all(SocketAddr::is_ipv4);
    TcpListener::bind(&all[usize::from(only_v4)..])
}

/// Whether the addresses of a host do not say where other machines connect to: its name is not known yet, or it is this machine's own name
/// and stands for the loopback here.
fn says_nothing(host: &str, named: &[SocketAddr]) -> bool {
    let means_loopback = host == "localhost" || host.parse::<IpAddr>().is_ok();
    !means_loopback && named.iter().all(|address| address.ip().is_loopback())
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
                "; another program uses this port: set SDFT_PORT to a free one for all processes"
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
    let mut connected: Vec<Option<TcpStream>> = (1..world.size).map(|_| None).collect();
    let mut refused: Option<SocketAddr> = None;
    while connected.iter().any(Option::is_none) {
        match listener.accept() {
            Ok((stream, address)) => {
                if stream.set_nonblocking(true).is_ok() {
                    pending.push(Pending::new(stream, address));
                }
                // Drop the oldest connection without a hello.
                if pending.len() > MAX_PENDING {
                    pending.remove(0);
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
        let mut waiting = Vec::with_capacity(pending.len());
        for mut connection in pending {
            match connection.read(world) {
                Hello::Waiting => waiting.push(connection),
                Hello::Stranger => {}
                Hello::Refused => {
                    let _ = connection.stream.write(&[REFUSED]);
                    refused = Some(connection.address);
                }
                Hello::Rank(rank) => connected[rank - 1] = Some(connection.stream),
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
            return Err(failed(what)(ErrorKind::TimedOut.into()));
        }
    }
    let mut all = Vec::with_capacity(connected.len());
    for (rank, mut stream) in (1..).zip(connected.into_iter().flatten()) {
        let mut answer = vec![WELCOME];
        answer.extend(proof(world, "rank 0", rank));
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
            hello: [0; HELLO_LENGTH],
            got: 0,
            since: Instant::now(),
        }
    }

    /// Reads what has arrived of the hello.
    fn read(&mut self, world: &World) -> Hello {
        while self.got < HELLO_LENGTH {
            match self.stream.read(&mut self.hello[self.got..]) {
                Ok(0) => return Hello::Stranger,
                Ok(n) => self.got += n,
                Err(error) => match error.kind() {
                    ErrorKind::Interrupted => {}
                    ErrorKind::WouldBlock if self.since.elapsed() < HELLO_TIMEOUT => {
                        return Hello::Waiting;
                    }
                    _ => return Hello::Stranger,
                },
            }
        }
        if self.hello[..8] != GREETING {
            return Hello::Stranger;
        }
        let rank = self.hello.as_chunks::<8>().0[1];
        let rank = usize::try_from(u64::from_le_bytes(rank)).ok();
        let known = rank.filter(|rank| (1..world.size).contains(rank));
        // The proof covers the size, too.
        match known {
            Some(rank) if self.hello == hello(world, rank) => Hello::Rank(rank),
            _ => Hello::Refused,
        }
    }
}

/// The connection of another rank to rank 0.
pub(crate) fn connect_to_leader(world: &World, timeout: Duration) -> Result<TcpStream> {
    let until = Instant::now() + timeout;
    let place = (world.address.as_str(), world.port);
    let failed = |what: &str, source| Error::Rendezvous {
        what: format!(
            "rank {} {what} rank 0 at {}:{}",
            world.rank, world.address, world.port
        ),
        source,
    };
    loop {
        let met = connect(place, until).and_then(|mut stream| {
            stream.write_all(&hello(world, world.rank))?;
            // Rank 0 answers when all ranks are connected.
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
                let problem = "SDFT_SECRET or WORLD_SIZE differs";
                let source = io::Error::new(ErrorKind::PermissionDenied, problem);
                return Err(failed("was refused by", source));
            }
            // Rank 0 may not be listening yet.
            Err(_) if Instant::now() < until => thread::sleep(Duration::from_millis(50)),
            Err(source) => {
                let what = format!("could not connect within {} s to", timeout.as_secs());
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

/// The hello of a rank.
fn hello(world: &World, rank: usize) -> [u8; HELLO_LENGTH] {
    let mut bytes = [0; HELLO_LENGTH];
    bytes[..8].copy_from_slice(&GREETING);
    bytes[8..16].copy_from_slice(&(rank as u64).to_le_bytes());
    bytes[16..24].copy_from_slice(&(world.size as u64).to_le_bytes());
    bytes[24..].copy_from_slice(&proof(world, "rank N", rank));
    bytes
}

/// Proves knowledge of the secret without sending it. A process that can read the traffic can replay the proof.
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

    #[test]
    fn loopback_addresses_are_not_opened_to_other_machines() {
        for host in ["127.0.0.1", "localhost"] {
            let listener = listen(host, 0).unwrap();
            assert!(listener.local_addr().unwrap().ip().is_loopback(), "{host}");
        }
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        for (host, named, nothing) in [
            ("localhost", &[at("127.0.0.1:1"), at("[::1]:1")][..], false),
            ("127.0.1.1", &[at("127.0.1.1:1")], false),
            ("node0", &[at("10.0.0.7:1")], false),
            // The name of this machine in its own list of hosts.
            ("node0", &[at("127.0.1.1:1")], true),
            ("node0", &[], true),
        ] {
            assert_eq!(says_nothing(host, named), nothing, "{host}, {named:?}");
        }
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
        let error =
            connect_to_leader(&world(1, 2, port, "s"), Duration::from_millis(300)).unwrap_err();
        assert!(
            error.to_string().contains("could not connect within"),
            "{error}"
        );
        pretender.join().unwrap();
    }
}
