//! Reads and writes that time out without progress, and heartbeats.

use std::io::{self, ErrorKind, Write};
use std::net::TcpStream;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// First byte of a heartbeat frame. Every process sends heartbeats all the time.
pub(crate) const HEARTBEAT: u8 = 0;

/// A timeout is counted in this many parts, so that a process that was itself suspended for a while counts only one of them.
pub(crate) const TICKS: u32 = 10;

/// Repeats `transfer` until `length` bytes are done; times out after [`TICKS`] parts without progress.
pub(crate) fn transfer_all(
    length: usize,
    mut transfer: impl FnMut(usize) -> io::Result<usize>,
) -> io::Result<()> {
    let (mut done, mut idle_ticks) = (0, 0);
    while done < length {
        match transfer(done) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(n) => (done, idle_ticks) = (done + n, 0),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if made_no_progress(&error) => {
                idle_ticks += 1;
                if idle_ticks >= TICKS {
                    return Err(ErrorKind::TimedOut.into());
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Whether a read or write made no progress for one part of the timeout.
pub(crate) fn made_no_progress(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// Sends heartbeats until the returned sender is dropped.
pub(crate) fn start_heartbeats(
    writers: Vec<Arc<Mutex<TcpStream>>>,
    every: Duration,
) -> io::Result<Sender<()>> {
    let (stop, stopped) = mpsc::channel::<()>();
    thread::Builder::new()
        .name("heartbeats".to_owned())
        .spawn(move || {
            while stopped.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                for writer in &writers {
                    // A message in transit replaces a heartbeat. A disconnected receiver is noticed elsewhere.
                    if let Ok(mut writer) = writer.try_lock() {
                        let _ = writer.write(&[HEARTBEAT]);
                    }
                }
            }
        })?;
    Ok(stop)
}

pub(crate) fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
