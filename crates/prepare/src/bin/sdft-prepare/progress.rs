//! How far a set is: a bar on a terminal, lines elsewhere.

use std::{
    io::IsTerminal as _,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

use crate::note;

/// Time between two lines where there is no terminal.
const QUIET: Duration = Duration::from_secs(10);

/// Images that are done, of those there are.
pub(crate) struct Progress {
    name: String,
    bar: Option<ProgressBar>,
    said: Mutex<Instant>,
}

impl Progress {
    /// Of the set of this name.
    pub(crate) fn new(name: String) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::no_length();
            let template = "{msg} {bar:24} {pos}/{len} images, {per_sec}, {eta} left";
            // The template is a constant; a broken one would only cost the looks.
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar.with_message(name.clone())
        });
        Self {
            name,
            bar,
            said: Mutex::new(Instant::now()),
        }
    }

    /// So many of so many images are done.
    pub(crate) fn at(&self, done: usize, total: usize) {
        if let Some(bar) = &self.bar {
            bar.set_length(total as u64);
            bar.set_position(done as u64);
            return;
        }
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.elapsed() >= QUIET {
            *said = Instant::now();
            note(&format!("{} {done}/{total} images", self.name));
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
