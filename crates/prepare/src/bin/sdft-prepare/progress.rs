//! Progress of preparing a set: a bar on a terminal, lines elsewhere.

use std::{
    io::IsTerminal as _,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

use sdft_runtime::note;

/// Time between two progress lines if standard error is not a terminal.
const INTERVAL: Duration = Duration::from_secs(10);

/// Reports how many images are done.
pub(crate) struct Progress {
    name: String,
    bar: Option<ProgressBar>,
    last_line: Mutex<Instant>,
}

impl Progress {
    /// The progress of the set `name`.
    pub(crate) fn new(name: String) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::no_length();
            let template = "{msg} {bar:24} {pos}/{len} images, {per_sec}, {eta} left";
            // The template is a constant; an invalid one would only affect the appearance.
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar.with_message(name.clone())
        });
        Self {
            name,
            bar,
            last_line: Mutex::new(Instant::now()),
        }
    }

    /// Reports that `done` of `total` images are done.
    pub(crate) fn at(&self, done: usize, total: usize) {
        if let Some(bar) = &self.bar {
            bar.set_length(total as u64);
            bar.set_position(done as u64);
            return;
        }
        let mut last = self
            .last_line
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if last.elapsed() >= INTERVAL {
            *last = Instant::now();
            note(format_args!("{} {done}/{total} images", self.name));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
