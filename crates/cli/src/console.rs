//! What the program prints: progress and notes on standard error, results on standard output.

use crate::job::text_of;
use crate::ticker::{SAMPLES, Ticker};
use indicatif::{ProgressBar, ProgressStyle};
pub(crate) use sdft_files::{human_size as size, plural};
pub(crate) use sdft_runtime::{note, print_line as line};
use sdft_train::{Progress, StepReport};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Prints an error with its causes, without repeating a cause that the text before it ends with.
pub(crate) fn error(error: &anyhow::Error) {
    note(format_args!("error: {}", causes(error)));
}

/// An error with its causes in one line.
pub(crate) fn causes(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let job = cause.downcast_ref::<sdft_jobs::Error>();
        let cause = job.map_or_else(|| cause.to_string(), text_of);
        if text.is_empty() {
            text = cause;
        } else if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
        // A job's error includes its causes.
        if job.is_some() {
            break;
        }
    }
    text
}

/// Which log lines are printed where there is no terminal: all at first, then fewer, about 200 of a long run.
#[derive(Debug, Default)]
struct Thinning {
    next: u64,
}

impl Thinning {
    /// Whether the line after `done` of `steps` steps of this process is printed.
    fn prints(&mut self, done: u64, steps: u64) -> bool {
        if done < self.next && done < steps {
            return false;
        }
        // The gaps grow by a sixteenth each, up to a hundredth of the run.
        self.next = done + (done / 16).min(steps / 100).max(1);
        true
    }
}

/// A bar on a terminal, lines elsewhere.
pub(crate) struct Console {
    bar: Option<ProgressBar>,
    first: Option<(u64, Instant)>,
    last_step: u64,
    thinning: Thinning,
    /// The terms of the last log line, the loss first.
    terms: Vec<String>,
    label: String,
    /// Progress over images, or over the samples of a run.
    images: Option<Ticker>,
}

impl Console {
    pub(crate) fn new(label: &str) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(0);
            // The template is a constant, and the bar also works without it.
            let template = "{prefix} {bar:24} {pos}/{len} {wide_msg}";
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar.set_prefix(label.to_owned());
            bar
        });
        Self {
            bar,
            first: None,
            last_step: 0,
            thinning: Thinning::default(),
            terms: Vec::new(),
            label: label.to_owned(),
            images: None,
        }
    }

    /// Removes the bar, and prints how long the last images took.
    pub(crate) fn finish(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        if let Some(text) = self.images.take().and_then(|ticker| ticker.summary()) {
            note(text);
        }
    }

    fn count(&mut self, what: &'static str, done: f64, total: usize) {
        let is_same = |ticker: &Ticker| ticker.counts(what, total, done);
        if !self.images.as_ref().is_some_and(is_same) {
            if let Some(text) = self.images.take().and_then(|before| before.summary()) {
                self.say(&text);
            }
            let bar = self.bar.clone();
            self.images = Some(Ticker::new(bar, &self.label, what, total, done));
        }
        if let Some(ticker) = &mut self.images {
            ticker.tick(done);
        }
    }

    fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => note(text),
        }
    }
}

impl Progress for Console {
    fn step(&mut self, p: &StepReport) {
        self.images = None;
        // A job can consist of several runs.
        if p.step <= self.last_step {
            self.first = None;
            self.thinning = Thinning::default();
            self.terms.clear();
        }
        self.last_step = p.step;
        // The first step starts the clock: the time before it was preparation.
        let (first, started) = *self.first.get_or_insert_with(|| (p.step, Instant::now()));
        let done = p.step - first;
        let per_step = match done {
            0 => p.step_seconds,
            _ => started.elapsed().as_secs_f64() / done as f64,
        };
        let left = per_step * (p.steps - p.step) as f64;
        let eta = Duration::try_from_secs_f64(left).unwrap_or(Duration::MAX);
        if let Some(means) = &p.means {
            self.terms = means
                .iter()
                .map(|(name, value)| format!("{name} {value:.4}"))
                .collect();
        }
        let pace = format!(
            "{:.1} img/s · {} left{}",
            p.images_per_second,
            duration(eta),
            sdft_runtime::peak_memory()
                .map_or_else(String::new, |bytes| format!(" · {} memory", size(bytes)))
        );
        match &self.bar {
            Some(bar) => {
                bar.set_length(p.steps);
                bar.set_position(p.step);
                // A narrow terminal cuts the end off.
                let (loss, others) = self.terms.split_at(self.terms.len().min(1));
                let mut parts = vec![loss.concat(), pace, others.join(" ")];
                parts.retain(|part| !part.is_empty());
                bar.set_message(parts.join(" · "));
            }
            None if p.means.is_some()
                // The first step was done before the clock started.
                && self.thinning.prints(done + 1, p.steps + 1 - first) =>
            {
                note(format!(
                    "{} step {}/{} ({} images) {} · {pace}",
                    self.label,
                    p.step,
                    p.steps,
                    p.images,
                    self.terms.join(" ")
                ));
            }
            None => {}
        }
    }

    fn note(&mut self, text: &str) {
        self.say(text);
    }

    fn images(&mut self, done: f64, total: usize) {
        self.count("images", done, total);
    }

    fn samples(&mut self, done: f64, total: usize) {
        self.count(SAMPLES, done, total);
    }
}

/// `63d07h`, `1h02m`, `3m07s`, `12s`.
pub(crate) fn duration(d: Duration) -> String {
    let s = d.as_secs();
    match (s / 3600, s / 60 % 60, s % 60) {
        (0, 0, s) => format!("{s}s"),
        (0, m, s) => format!("{m}m{s:02}s"),
        (h, m, _) if h < 48 => format!("{h}h{m:02}m"),
        (h, _, _) => format!("{}d{:02}h", h / 24, h % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_printed_once() {
        let full = || std::io::Error::from(std::io::ErrorKind::StorageFull);
        let twice = sdft_imaging::ImagingError::Write {
            path: "x.png".into(),
            source: full(),
        };
        let error = anyhow::Error::new(twice).context("the run stopped");
        let expected = format!("the run stopped: cannot write x.png: {}", full());
        assert_eq!(causes(&error), expected);
    }

    #[test]
    fn a_long_run_prints_about_200_lines_and_a_short_one_every_line() {
        let lines = |steps: u64, every: u64| -> Vec<u64> {
            let mut thinning = Thinning::default();
            let logged = (1..=steps).filter(|step| step % every == 0 || *step == steps);
            logged
                .filter(|&step| thinning.prints(step, steps))
                .collect()
        };
        assert_eq!(lines(170, 10).len(), 17);
        for (steps, every) in [(80_000, 10), (80_000, 1), (1_000_000, 100), (5000, 1)] {
            let lines = lines(steps, every);
            assert!((90..260).contains(&lines.len()), "{steps} {}", lines.len());
            assert_eq!((lines[0], lines.last()), (every, Some(&steps)));
            let gaps = lines.windows(2).map(|pair| pair[1] - pair[0]);
            assert!(gaps.max().unwrap() <= steps / 100 + every);
        }
    }

    #[test]
    fn durations_read_well() {
        assert_eq!(duration(Duration::from_secs(7)), "7s");
        assert_eq!(duration(Duration::from_secs(187)), "3m07s");
        assert_eq!(duration(Duration::from_secs(3723)), "1h02m");
        let hours = |hours: u64| duration(Duration::from_secs(hours * 3600));
        assert_eq!(
            [hours(47), hours(48), hours(1519)],
            ["47h00m", "2d00h", "63d07h"]
        );
    }
}
