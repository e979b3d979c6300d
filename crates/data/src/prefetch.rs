use crate::batches::{Batch, Batches};
use crate::error::{DataError, Result};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

/// Batches that wait ready.
const READY: usize = 2;

/// Prepares batches on a second thread, in order.
pub struct Prefetcher {
    /// None once the prefetcher is being dropped.
    batches: Option<Receiver<Result<Batch>>>,
    worker: Option<JoinHandle<()>>,
}

impl Prefetcher {
    /// Starts with batch `first`.
    pub fn new(batches: Batches, first: u64) -> Self {
        let (sender, receiver) = sync_channel(READY);
        let worker = std::thread::Builder::new().name("batches".into()).spawn(move || {
            for step in first.. {
                let batch = batches.batch(step);
                let failed = batch.is_err();
                // Nobody listens any more, or nothing more will come.
                if sender.send(batch).is_err() || failed {
                    return;
                }
            }
        });
        Self { batches: Some(receiver), worker: worker.ok() }
    }

    /// The next batch.
    ///
    /// # Errors
    /// An image that can no longer be read; a worker that is gone.
    #[expect(clippy::should_implement_trait, reason = "an iterator cannot end with an error and stay an error")]
    pub fn next(&mut self) -> Result<Batch> {
        let gone = |reason: &str| DataError::Worker { reason: reason.to_owned() };
        let batches = self.batches.as_ref().ok_or_else(|| gone("it was told to"))?;
        batches.recv().unwrap_or_else(|_| Err(gone("it panicked or could not be started")))
    }
}

impl Drop for Prefetcher {
    fn drop(&mut self) {
        // Closing the channel first lets a worker that waits to send go.
        self.batches = None;
        if let Some(worker) = self.worker.take() {
            // A panic was reported through the closed channel already.
            let _ = worker.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Augment, Digits, DigitsSource, ImageSource, Style};
    use sdft_imaging::Rgb8;
    use std::sync::Arc;

    fn digits() -> Batches {
        let source = DigitsSource::new(Digits::embedded().unwrap(), Style::Chalk, &[3], 7).unwrap();
        Batches::new(Arc::new(source), 1, 3, Augment { flip: false, shift: 1 }).unwrap()
    }

    #[test]
    fn prefetched_batches_equal_direct_ones_from_any_start() {
        let mut prefetcher = Prefetcher::new(digits(), 4);
        for step in 4..9 {
            assert_eq!(prefetcher.next().unwrap(), digits().batch(step).unwrap());
        }
    }

    struct Failing(bool);

    impl ImageSource for Failing {
        fn len(&self) -> usize {
            1
        }
        fn image(&self, _: usize) -> Result<Rgb8> {
            assert!(!self.0, "a source that panics");
            Err(DataError::Digits { problem: "gone".into() })
        }
        fn id(&self, _: usize) -> String {
            String::new()
        }
    }

    #[test]
    fn errors_and_panics_of_the_worker_arrive_as_errors() {
        let make = |panics| Prefetcher::new(Batches::new(Arc::new(Failing(panics)), 0, 1, Augment::default()).unwrap(), 0);
        assert!(make(false).next().unwrap_err().to_string().contains("gone"));
        let mut failed = make(true);
        assert!(failed.next().unwrap_err().to_string().contains("panicked"));
        assert!(failed.next().is_err());
    }
}
