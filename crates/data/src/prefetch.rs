//! Makes the next batches while the current one is used.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread::{self, JoinHandle},
};

use crate::{Batch, Batches, DataError, Result};

/// Number of finished batches in the queue.
const QUEUE: usize = 2;

/// Makes the batches of consecutive steps on its own thread, a few ahead.
///
/// They equal those of [`Batches::batch`]. Dropping the prefetcher stops the thread.
#[derive(Debug)]
pub struct Prefetcher {
    step: u64,
    receiver: Option<Receiver<Result<Batch>>>,
    worker: Option<JoinHandle<()>>,
    /// Why there is no worker thread.
    failed: Option<String>,
}

impl Prefetcher {
    /// Starts with the batch of step `first`.
    #[must_use]
    pub fn new(batches: Batches, first: u64) -> Self {
        let (sender, receiver) = sync_channel(QUEUE);
        let started = thread::Builder::new()
            .name("prefetch".to_owned())
            .spawn(move || work(&batches, first, &sender));
        let (worker, failed) = match started {
            Ok(worker) => (Some(worker), None),
            Err(error) => (None, Some(format!("cannot start a thread: {error}"))),
        };
        Self {
            step: first,
            receiver: Some(receiver),
            worker,
            failed,
        }
    }

    /// The batch of the next step; waits until it is ready.
    ///
    /// # Errors
    /// Fails if an image cannot be read or making the batch panicked; after that, every call fails.
    #[expect(
        clippy::should_implement_trait,
        reason = "the stream is infinite, so an Iterator's Option would never be None"
    )]
    pub fn next(&mut self) -> Result<Batch> {
        let step = self.step;
        if let Some(problem) = self.failed.take() {
            return Err(DataError::Prefetch { step, problem });
        }
        let received = self.receiver.as_ref().and_then(|r| r.recv().ok());
        let batch = received.unwrap_or(Err(DataError::Ended { step }))?;
        self.step += 1;
        Ok(batch)
    }
}

impl Drop for Prefetcher {
    fn drop(&mut self) {
        // Dropping the receiver makes the worker's send fail, even if it is blocked.
        drop(self.receiver.take());
        if let Some(worker) = self.worker.take() {
            let _ = worker.join();
        }
    }
}

/// Sends batches until the receiver is dropped or one fails.
fn work(batches: &Batches, first: u64, sender: &SyncSender<Result<Batch>>) {
    for step in first.. {
        let batch =
            catch_unwind(AssertUnwindSafe(|| batches.batch(step))).unwrap_or_else(|panic| {
                Err(DataError::Prefetch {
                    step,
                    problem: format!("panicked: {}", message(&*panic)),
                })
            });
        let last = batch.is_err();
        if sender.send(batch).is_err() || last {
            return;
        }
    }
}

/// The message of a panic.
fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}
