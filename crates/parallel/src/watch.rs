//! Ends a process that waits inside a sum of GPUs for one that is gone: nothing else interrupts it there.

use crate::error::{Error, Result};
use crate::process_group::ProcessGroup;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

/// The time between two checks of the other processes.
const EVERY: Duration = Duration::from_secs(1);

/// Checks in a row that find the sum incomplete and a process gone. A sum that has all its parts still ends meanwhile.
const CHECKS: u32 = 5;

impl ProcessGroup {
    /// Starts a thread that calls `give_up` with the reason if this process waits inside a sum of GPUs while another one has failed, is
    /// disconnected or has timed out. NCCL would wait forever, so `give_up` must end the process. The other processes get the reason first.
    ///
    /// Sums through the hosts fail by themselves, so a group without NCCL is not watched.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn watch(self: &Arc<Self>, give_up: impl FnOnce(&Error) + Send + 'static) -> Result<()> {
        if !self.has_nccl() {
            return Ok(());
        }
        let group = Arc::downgrade(self);
        let watch = move || watch(&group, EVERY, Self::is_summing, give_up);
        let started = thread::Builder::new().name("watch".to_owned()).spawn(watch);
        started.map(drop).map_err(|source| Error::Rendezvous {
            what: "cannot start the thread that watches the other processes".to_owned(),
            source,
        })
    }
}

/// Until the group is dropped or `give_up` has been called.
fn watch(
    group: &Weak<ProcessGroup>,
    every: Duration,
    is_summing: impl Fn(&ProcessGroup) -> bool,
    give_up: impl FnOnce(&Error),
) {
    let mut checks = 0;
    loop {
        thread::sleep(every);
        let Some(group) = group.upgrade() else {
            return;
        };
        match group.poll(every) {
            Err(error) if is_summing(&group) => {
                checks += 1;
                if checks >= CHECKS {
                    group.fail(&error.to_string());
                    return give_up(&error);
                }
            }
            _ => checks = 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process_group::tests::arcs_in_world;
    use std::sync::mpsc;
    use std::time::Instant;

    const FAST: Duration = Duration::from_millis(10);

    /// The error that a watched rank gives up with, if it does within `patience`.
    fn given_up(group: &Arc<ProcessGroup>, is_summing: bool, patience: Duration) -> Option<String> {
        let (send, receive) = mpsc::channel();
        let group = Arc::downgrade(group);
        let give_up = move |error: &Error| send.send(error.to_string()).unwrap();
        thread::spawn(move || watch(&group, FAST, |_| is_summing, give_up));
        receive.recv_timeout(patience).ok()
    }

    #[test]
    fn ranks_inside_a_sum_name_the_one_that_is_gone() {
        let seen = arcs_in_world(3, |group| match group.rank() {
            1 => None,
            _ => given_up(&group, true, Duration::from_secs(20)),
        });
        let of_leader = seen[0].as_ref().unwrap();
        assert!(
            of_leader.starts_with("rank 1 is disconnected"),
            "{of_leader}"
        );
        // Rank 2 is connected to rank 0 alone.
        let of_other = seen[2].as_ref().unwrap();
        assert!(
            of_other.starts_with("rank 0 failed: rank 1 is disconnected"),
            "{of_other}"
        );
    }

    #[test]
    fn a_rank_outside_a_sum_is_left_alone_and_still_gets_the_reason() {
        let seen = arcs_in_world(2, |group| {
            if group.rank() == 1 {
                group.fail("no memory");
                return None;
            }
            assert!(given_up(&group, false, 30 * FAST).is_none());
            // What the watch has read is not lost.
            Some(group.check().unwrap_err().to_string())
        });
        assert_eq!(seen[0].as_deref(), Some("rank 1 failed: no memory"));
    }

    #[test]
    fn a_rank_that_sends_nothing_times_out_between_polls() {
        let started = Instant::now();
        let seen = arcs_in_world(2, |group| {
            if group.rank() == 1 {
                thread::sleep(Duration::from_millis(500));
                return None;
            }
            // Before the first heartbeat.
            group
                .poll(Duration::from_secs(120))
                .err()
                .map(|error| error.to_string())
        });
        let error = seen[0].as_ref().unwrap();
        assert!(error.contains("timed out after 120s"), "{error}");
        assert!(started.elapsed() < Duration::from_secs(10));
    }
}
