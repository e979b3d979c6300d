//! Connections between rank 0 and every other rank: messages of expected sizes, heartbeats, timeouts.

use crate::connection::{BODY, Connection, ENDED, FAILED, Frame, MESSAGE, READY, SHORT, bytes_of};
use crate::error::{Error, Result};
use crate::introduction::connect_to_leader;
use crate::rendezvous::accept_all;
use crate::transfer::{made_no_progress, start_heartbeats};
use crate::world::World;
use std::io::Read;
use std::net::Shutdown;
use std::ops::RangeInclusive;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

/// How long the other ranks may take to close their connections at the end.
pub(crate) const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// The time between two heartbeats, unless the timeout is short. It does not depend on the timeout, because processes may have different ones.
const HEARTBEATS: Duration = Duration::from_secs(1);

/// On rank 0 one connection to each other rank, in rank order; on another rank one to rank 0.
#[derive(Debug)]
pub(crate) struct Connections {
    connections: Vec<Connection>,
    /// Dropping it stops the heartbeats.
    _beat: Sender<()>,
}

impl Connections {
    /// Connects the ranks to each other.
    pub(crate) fn meet(world: &World, timeout: Duration) -> Result<Self> {
        let (first, streams) = if world.rank == 0 {
            (1, accept_all(world, timeout)?)
        } else {
            (0, vec![connect_to_leader(world, timeout)?])
        };
        let connections = (first..).zip(streams).map(|(rank, stream)| {
            Connection::new(rank, stream, world.timeout)
                .map_err(|source| Error::Disconnected { rank, source })
        });
        let connections = connections.collect::<Result<Vec<_>>>()?;
        let writers = connections
            .iter()
            .map(|connection| connection.writer.clone())
            .collect();
        let beat =
            start_heartbeats(writers, HEARTBEATS.min(world.timeout / 4)).map_err(|source| {
                Error::Rendezvous {
                    what: "cannot start the heartbeat thread".to_owned(),
                    source,
                }
            })?;
        Ok(Self {
            connections,
            _beat: beat,
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.connections.len()
    }

    /// Sends a message. A long one waits for the receiver.
    pub(crate) fn send(&mut self, connection: usize, bytes: &[u8]) -> Result<()> {
        let connection = &mut self.connections[connection];
        let mut frame = vec![MESSAGE];
        frame.extend((bytes.len() as u64).to_le_bytes());
        if bytes.len() <= SHORT {
            frame.extend(bytes);
            return connection.write_or_reason(&[&frame]);
        }
        connection.write_or_reason(&[&frame])?;
        match connection.next()? {
            Frame::Ready => connection.write_or_reason(&[&[BODY], bytes]),
            other => Err(connection.mismatch("a ready frame", other.describe())),
        }
    }

    /// Receives the next message. Its length must be one of those expected.
    pub(crate) fn receive(
        &mut self,
        connection: usize,
        expected: RangeInclusive<usize>,
    ) -> Result<Vec<u8>> {
        let connection = &mut self.connections[connection];
        let length = match connection.next()? {
            Frame::Message(length) => length,
            other => return Err(connection.mismatch("a message", other.describe())),
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
            return Err(connection.mismatch(&wanted, bytes_of(length)));
        };
        if length > SHORT {
            connection.write_or_reason(&[&[READY]])?;
            match connection.next()? {
                Frame::Body => {}
                other => {
                    return Err(connection.mismatch("the bytes of a message", other.describe()));
                }
            }
        }
        let mut bytes = vec![0; length];
        connection.read(&mut bytes)?;
        Ok(bytes)
    }

    /// Waits up to `timeout`, usually [`CLOSE_TIMEOUT`], until the other ranks have read the last message and closed their connections. Closing
    /// first could lose that message.
    pub(crate) fn wait_closed(&mut self, timeout: Duration) {
        let until = Instant::now() + timeout;
        for connection in &mut self.connections {
            let mut rest = [0; 64];
            loop {
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() || connection.reader.set_read_timeout(Some(left)).is_err() {
                    break;
                }
                match connection.reader.read(&mut rest) {
                    Ok(n) if n > 0 => {}
                    Err(error) if made_no_progress(&error) => {}
                    _ => break,
                }
            }
        }
    }

    /// Tells all connected processes that this process has failed, and why.
    pub(crate) fn fail(&mut self, why: &str) {
        let why = &why.as_bytes()[..why.floor_char_boundary(SHORT)];
        let mut frame = vec![FAILED];
        #[expect(clippy::cast_possible_truncation, reason = "up to 1024")]
        frame.extend((why.len() as u16).to_le_bytes());
        frame.extend(why);
        for connection in &self.connections {
            // A process that cannot be reached notices the end of the connection.
            let _ = connection.write(&[&frame]);
        }
    }

    /// Tells all connected processes that this process has finished with them.
    pub(crate) fn end(&mut self) {
        for connection in &self.connections {
            // As above.
            let _ = connection.write(&[&[ENDED]]);
        }
    }

    /// Fails if a connected process has ended, failed or disconnected; does not wait.
    pub(crate) fn check(&mut self) -> Result<()> {
        let mut all = self.connections.iter_mut();
        all.try_for_each(|connection| connection.check().map(drop))
    }

    /// Does [`Self::check`], and fails if a process has sent nothing for its timeout. It must be called once per `every`.
    pub(crate) fn poll(&mut self, every: Duration) -> Result<()> {
        let mut all = self.connections.iter_mut();
        all.try_for_each(|connection| connection.poll(every))
    }
}

impl Drop for Connections {
    fn drop(&mut self) {
        for connection in &self.connections {
            let _ = connection.reader.shutdown(Shutdown::Both);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rendezvous::tests::call;
    use crate::transfer::HEARTBEAT;
    use crate::world::free_port;
    use std::io::Write;
    use std::net::TcpStream;
    use std::thread;

    /// Rank 0 with a timeout of half a second, and a peer controlled by the test.
    fn with_peer<T: Send + 'static>(
        peer: impl FnOnce(TcpStream) -> T + Send + 'static,
    ) -> (Connections, thread::JoinHandle<T>) {
        let mut world = World::local(0, 2, free_port().unwrap());
        world.timeout = Duration::from_millis(500);
        let other = World {
            rank: 1,
            ..world.clone()
        };
        let peer = thread::spawn(move || peer(call(&other)));
        let connections = Connections::meet(&world, Duration::from_secs(20)).unwrap();
        (connections, peer)
    }

    #[test]
    fn an_unexpected_size_is_refused_before_any_byte_is_read() {
        for announced in [1u64 << 39, u64::MAX, 17, 15] {
            let (mut connections, peer) = with_peer(move |mut stream| {
                stream.write_all(&[MESSAGE]).unwrap();
                stream.write_all(&announced.to_le_bytes()).unwrap();
                stream
            });
            let error = connections.receive(0, 16..=16).unwrap_err().to_string();
            let found = format!("expected 16 bytes, found {announced} bytes");
            assert!(
                error.contains("rank 1") && error.contains(&found),
                "{error}"
            );
            drop(peer.join().unwrap());
        }
    }

    #[test]
    fn what_a_process_reads_itself_counts_when_it_polls() {
        use std::sync::mpsc::channel;
        let (request, requests) = channel();
        let (mut connections, peer) = with_peer(move |mut stream| {
            for () in requests {
                stream.write_all(&[MESSAGE]).unwrap();
                stream.write_all(&1u64.to_le_bytes()).unwrap();
                stream.write_all(&[7]).unwrap();
            }
        });
        let most = Duration::from_millis(400);
        for _ in 0..3 {
            request.send(()).unwrap();
            assert_eq!(connections.receive(0, 1..=1).unwrap(), [7]);
            connections.poll(most).unwrap();
        }
        let error = connections.poll(most).unwrap_err().to_string();
        assert!(
            error.contains("rank 1 is disconnected: timed out"),
            "{error}"
        );
        drop(request);
        peer.join().unwrap();
    }

    #[test]
    fn a_reason_is_read_where_the_next_operation_is_a_write() {
        let (mut connections, peer) = with_peer(|mut stream| {
            stream.write_all(&[FAILED, 2, 0]).unwrap();
            stream.write_all(b"no").unwrap();
        });
        peer.join().unwrap();
        thread::sleep(Duration::from_millis(50));
        // The first write may reach a socket that the other process has closed.
        let errors = (0..3).filter_map(|_| {
            thread::sleep(Duration::from_millis(20));
            connections.send(0, &[1]).err()
        });
        let errors: Vec<String> = errors.map(|error| error.to_string()).collect();
        assert!(!errors.is_empty());
        assert!(
            errors.iter().all(|e| e == "rank 1 failed: no"),
            "{errors:?}"
        );
    }

    #[test]
    fn waiting_for_others_to_close_ends_in_time() {
        let (mut connections, peer) = with_peer(|stream| {
            thread::sleep(Duration::from_secs(1));
            drop(stream);
        });
        for connection in &connections.connections {
            let long = Some(Duration::from_secs(60));
            connection.reader.set_read_timeout(long).unwrap();
        }
        let started = Instant::now();
        connections.wait_closed(Duration::from_millis(200));
        assert!(started.elapsed() < Duration::from_millis(900));
        peer.join().unwrap();
    }

    #[test]
    fn heartbeats_stay_out_of_long_messages_that_wait_for_their_receiver() {
        let port = free_port().unwrap();
        // Heartbeats come every 100 ms.
        let meet = move |rank| {
            let mut world = World::local(rank, 2, port);
            world.timeout = Duration::from_millis(400);
            Connections::meet(&world, Duration::from_secs(20)).unwrap()
        };
        let body = |round: u8, length: usize| {
            let mut bytes: Vec<u8> = (0..length).map(|i| 1 + round + (i % 200) as u8).collect();
            bytes[length - 40..].fill(0);
            bytes
        };
        let lengths = [SHORT - 1, SHORT, SHORT + 1, 5000, 3 << 20];
        let other = thread::spawn(move || {
            let mut connections = meet(1);
            for (round, length) in (0..).zip(lengths) {
                connections.send(0, &body(round, length)).unwrap();
                thread::sleep(Duration::from_millis(500));
                let back = connections.receive(0, 0..=length).unwrap();
                assert!(back == body(round + 9, length), "{length} bytes back");
            }
            connections.send(0, &[42]).unwrap();
            connections.wait_closed(CLOSE_TIMEOUT);
        });
        let mut connections = meet(0);
        for (round, length) in (0..).zip(lengths) {
            thread::sleep(Duration::from_millis(500));
            let came = connections.receive(0, length..=length).unwrap();
            assert!(came == body(round, length), "{length} bytes");
            connections.send(0, &body(round + 9, length)).unwrap();
        }
        assert_eq!(connections.receive(0, 1..=1).unwrap(), [42]);
        drop(connections);
        other.join().unwrap();
    }

    #[test]
    fn nothing_follows_a_truncated_message() {
        let (mut connections, peer) = with_peer(|mut stream| {
            stream.write_all(&[READY]).unwrap();
            thread::sleep(Duration::from_secs(1));
            let mut read = Vec::new();
            stream.read_to_end(&mut read).unwrap();
            read
        });
        connections.send(0, &vec![7; 64 << 20]).unwrap_err();
        connections.fail("a reason");
        // Long enough for heartbeats, if there were any.
        thread::sleep(Duration::from_millis(700));
        drop(connections);
        let read = peer.join().unwrap();
        assert!(read.len() < 64 << 20);
        let last_other = read.iter().rfind(|&&byte| byte != 7);
        assert_eq!(last_other, Some(&BODY));
    }

    #[test]
    fn a_stopped_peer_times_out_when_reading_and_when_writing() {
        let long = vec![7; 64 << 20];
        for writes in [false, true] {
            let (mut connections, peer) = with_peer(move |mut stream| {
                if writes {
                    // The peer sends READY and then does not read.
                    stream.write_all(&[READY]).unwrap();
                }
                thread::sleep(Duration::from_secs(3));
                stream
            });
            let started = Instant::now();
            let error = match writes {
                true => connections.send(0, &long).unwrap_err(),
                false => connections.receive(0, 0..=16).unwrap_err(),
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
            drop(connections);
            peer.join().unwrap();
        }
    }

    #[test]
    fn a_peer_that_computes_for_a_long_time_does_not_time_out() {
        let (mut connections, peer) = with_peer(|mut stream| {
            // Four times the timeout.
            for _ in 0..20 {
                thread::sleep(Duration::from_millis(100));
                stream.write_all(&[HEARTBEAT]).unwrap();
            }
            stream
                .write_all(&[MESSAGE, 1, 0, 0, 0, 0, 0, 0, 0, 42])
                .unwrap();
            // Rank 0 sends heartbeats in the meantime.
            let mut read = [0; 4];
            stream.read_exact(&mut read).unwrap();
            (stream, read)
        });
        assert_eq!(connections.receive(0, 1..=1).unwrap(), [42]);
        assert_eq!(peer.join().unwrap().1, [HEARTBEAT; 4]);
    }

    #[test]
    fn the_last_message_reaches_a_busy_peer() {
        let (mut connections, peer) = with_peer(|mut stream| {
            thread::sleep(Duration::from_millis(300));
            for _ in 0..5 {
                // A closed connection would answer with a reset.
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
        connections.send(0, &[42]).unwrap();
        let started = Instant::now();
        connections.wait_closed(CLOSE_TIMEOUT);
        drop(connections);
        peer.join().unwrap();
        assert!(started.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn a_failure_reaches_a_peer_wherever_it_waits() {
        for sends in [false, true] {
            let (mut connections, peer) = with_peer(|mut stream| {
                stream.write_all(&[FAILED, 2, 0, b'n', b'o']).unwrap();
                stream
            });
            let error = match sends {
                true => connections.send(0, &[0; 2000]).unwrap_err(),
                false => connections.receive(0, 0..=4000).unwrap_err(),
            };
            assert_eq!(error.to_string(), "rank 1 failed: no");
            peer.join().unwrap();
        }
    }
}
