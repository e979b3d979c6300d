//! Runs jobs for tests.

use candle_core::Device;
use sdft_jobs::Context;
use sdft_train::Progress;
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};

/// Keeps notes, and stops the job once this many images are done.
struct Observed<'a> {
    notes: Vec<String>,
    stop: &'a AtomicBool,
    stop_at: f64,
}

impl Progress for Observed<'_> {
    fn images(&mut self, done: f64, _: usize) {
        if done >= self.stop_at {
            self.stop.store(true, Ordering::Relaxed);
        }
    }

    fn note(&mut self, text: &str) {
        self.notes.push(text.to_owned());
    }
}

/// Runs a job that is stopped after `stop_at` images. Returns its result, its notes, and how often it started to write.
pub(crate) fn run<T>(
    stop_at: f64,
    job: impl FnOnce(&mut Context<'_>) -> sdft_jobs::Result<T>,
) -> (sdft_jobs::Result<T>, Vec<String>, usize) {
    let (stop, started) = (AtomicBool::new(false), Cell::new(0));
    let mut progress = Observed {
        notes: Vec::new(),
        stop: &stop,
        stop_at,
    };
    let on_start = || started.set(started.get() + 1);
    let mut context = Context {
        on_start: &on_start,
        ..Context::new(Device::Cpu, &stop, &mut progress)
    };
    let result = job(&mut context);
    (result, progress.notes, started.get())
}

pub(crate) fn never() -> f64 {
    f64::INFINITY
}
