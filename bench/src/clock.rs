//! CPU time, wall time and memory.

use cpu_time::ProcessTime;
use serde::{Deserialize, Serialize};
use std::time::Instant;

/// Both clocks at the start of a measurement.
#[derive(Clone, Copy)]
pub(crate) struct Started {
    cpu: ProcessTime,
    wall: Instant,
}

/// Seconds of one repetition; `cpu` counts all threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Spent {
    pub(crate) cpu: f64,
    pub(crate) wall: f64,
}

impl Started {
    pub(crate) fn now() -> Self {
        Self {
            cpu: ProcessTime::now(),
            wall: Instant::now(),
        }
    }

    pub(crate) fn spent(self) -> Spent {
        Spent {
            cpu: self.cpu.elapsed().as_secs_f64(),
            wall: self.wall.elapsed().as_secs_f64(),
        }
    }
}

/// Peak memory of this process in bytes, if the system reports it.
pub(crate) fn peak_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kilobytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kilobytes * 1024)
}
