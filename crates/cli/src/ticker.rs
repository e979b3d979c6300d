//! Progress over images: a bar on a terminal, a line now and then elsewhere.

use crate::console::{duration, note, plural};
use indicatif::ProgressBar;
use std::time::{Duration, Instant};

/// What a run draws while it trains. It gets no summary, because a note names the picture.
pub(crate) const SAMPLES: &str = "samples";

/// Time between two lines of progress where there is no terminal.
const QUIET: Duration = Duration::from_secs(5);

/// Progress over a number of images, some of which may be done in part.
pub(crate) struct Ticker {
    bar: Option<ProgressBar>,
    label: String,
    what: &'static str,
    total: usize,
    /// The first count. The clock measures the images after it.
    first: f64,
    /// The last count, with images that are made in part.
    done: f64,
    /// When all images were there.
    ended: Option<Instant>,
    started: Instant,
    printed: Instant,
}

impl Ticker {
    /// Starts the clock. `label` begins a line, and `what` is counted.
    pub(crate) fn new(
        bar: Option<ProgressBar>,
        label: &str,
        what: &'static str,
        total: usize,
        done: f64,
    ) -> Self {
        if let Some(bar) = &bar {
            bar.set_length(total as u64);
        }
        let now = Instant::now();
        Self {
            bar,
            label: label.to_owned(),
            what,
            total,
            first: done,
            done,
            ended: None,
            started: now,
            printed: now,
        }
    }

    /// Whether `done` of `total` continue this count.
    pub(crate) fn counts(&self, what: &str, total: usize, done: f64) -> bool {
        (self.what, self.total) == (what, total) && self.done <= done
    }

    /// `done` images are done.
    pub(crate) fn tick(&mut self, done: f64) {
        self.done = done;
        if done >= self.total as f64 {
            self.ended = Some(Instant::now());
        }
        let pace = self.pace(self.started.elapsed());
        let whole = whole(done);
        match &self.bar {
            Some(bar) => {
                bar.set_position(whole as u64);
                bar.set_message(format!("{}{pace}", self.what));
            }
            None if self.printed.elapsed() >= QUIET => {
                self.printed = Instant::now();
                note(format!(
                    "{} {whole}/{} {}{pace}",
                    self.label, self.total, self.what
                ));
            }
            None => {}
        }
    }

    /// The speed so far and the time that is left, if any image was made in this time.
    fn pace(&self, elapsed: Duration) -> String {
        let speed = (self.done - self.first) / elapsed.as_secs_f64().max(1e-9);
        if speed <= 0.0 {
            return String::new();
        }
        let left = (self.total as f64 - self.done).max(0.0) / speed;
        let left = Duration::try_from_secs_f64(left).unwrap_or(Duration::MAX);
        format!(" · {speed:.2} img/s · {} left", duration(left))
    }

    /// How long the images took, if all are there and none was there before: a part of a batch is no image.
    pub(crate) fn summary(&self) -> Option<String> {
        let is_told = self.first == 0.0 && self.total > 0 && self.what != SAMPLES;
        let took = self.ended.filter(|_| is_told)? - self.started;
        let speed = self.total as f64 / took.as_secs_f64().max(1e-9);
        let (images, took) = (plural(self.total, "image", "images"), duration(took));
        Some(format!("{images} in {took}, {speed:.2} img/s"))
    }
}

/// The number of whole images in `done`.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a number of images"
)]
fn whole(done: f64) -> usize {
    done as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_all_images_are_summed_up() {
        let mut ticker = Ticker::new(None, "sample", "images", 20, 0.0);
        // A batch of 20 in its third of five steps.
        ticker.tick(12.0);
        assert_eq!(ticker.summary(), None);
        ticker.tick(20.0);
        assert!(ticker.summary().unwrap().starts_with("20 images in "));
        let mut continued = Ticker::new(None, "sample", "images", 20, 10.0);
        continued.tick(20.0);
        assert_eq!(continued.summary(), None);
        let mut drawn = Ticker::new(None, "train", SAMPLES, 20, 0.0);
        drawn.tick(20.0);
        assert_eq!(drawn.summary(), None);
    }

    #[test]
    fn the_pace_is_that_of_the_images_after_the_first_count() {
        let mut ticker = Ticker::new(None, "sample", "images", 40, 10.0);
        assert_eq!(ticker.pace(Duration::from_secs(1)), "");
        ticker.tick(20.0);
        let pace = ticker.pace(Duration::from_secs(5));
        assert_eq!(pace, " · 2.00 img/s · 10s left");
    }
}
