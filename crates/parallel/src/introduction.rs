//! How a rank introduces itself to rank 0.

use crate::error::{Error, Result};
use crate::proof::{Challenge, is_same, new_nonce};
use crate::rendezvous::{CHALLENGE, GREETING, REFUSED, WELCOME};
use crate::transfer::made_no_progress;
use crate::world::World;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::thread;
use std::time::{Duration, Instant};

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
        let met = connect(place, until).and_then(|stream| introduce(world, stream, until));
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
                let what = format!("could not join within {} s at", timeout.as_secs());
                return Err(failed(&what, source));
            }
        }
    }
}

/// Proves to rank 0 that this process belongs to the run, and waits until all ranks are connected. `None` if rank 0 refuses.
fn introduce(
    world: &World,
    mut stream: TcpStream,
    until: Instant,
) -> io::Result<Option<TcpStream>> {
    let left = until.saturating_duration_since(Instant::now());
    stream.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
    let of_rank = new_nonce().map_err(io::Error::other)?;
    let mut hello = GREETING.to_vec();
    for number in [world.rank as u64, world.size as u64] {
        hello.extend(number.to_le_bytes());
    }
    hello.extend(of_rank);
    stream.write_all(&hello)?;
    let (mut answer, mut bytes) = ([0], [0; 32]);
    stream.read_exact(&mut answer)?;
    match answer {
        [CHALLENGE] => stream.read_exact(&mut bytes)?,
        [REFUSED] => return Ok(None),
        _ => return Err(ErrorKind::InvalidData.into()),
    }
    let challenge = Challenge {
        rank: world.rank,
        of_rank,
        of_leader: bytes,
    };
    stream.write_all(&challenge.proof_of_rank(world))?;
    // Rank 0 answers when all ranks are connected.
    stream
        .read_exact(&mut answer)
        .map_err(|error| match made_no_progress(&error) {
            true => io::Error::new(
                ErrorKind::TimedOut,
                "connected, but rank 0 still waits for other processes",
            ),
            false => error,
        })?;
    if answer == [REFUSED] {
        return Ok(None);
    }
    stream.read_exact(&mut bytes)?;
    match answer == [WELCOME] && is_same(&bytes, &challenge.proof_of_leader(world)) {
        true => Ok(Some(stream)),
        false => Err(ErrorKind::InvalidData.into()),
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
