//! Progress of a download: a bar on a terminal, lines elsewhere.

use std::{
    io::IsTerminal as _,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};
pub(crate) use sdft_files::human_size as bytes;
use sdft_hub::FetchProgress;

use sdft_runtime::note;

/// Time between two progress lines if standard error is not a terminal.
const QUIET: Duration = Duration::from_secs(10);

/// A progress bar of bytes.
#[derive(Default)]
pub(crate) struct Bars {
    bar: Option<ProgressBar>,
    name: String,
    size: Option<u64>,
    said: Option<Instant>,
}

impl Bars {
    fn open(&mut self, name: &str, size: Option<u64>, template: &str) {
        self.name = name.to_owned();
        self.size = size;
        self.said = Some(Instant::now());
        if !std::io::stderr().is_terminal() {
            return;
        }
        let bar = size.map_or_else(ProgressBar::no_length, ProgressBar::new);
        // The template is a constant; an invalid one would only affect the appearance.
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(name.to_owned());
        self.bar = Some(bar);
    }

    /// Whether the next progress line is due.
    fn is_time(&mut self) -> bool {
        match &mut self.said {
            Some(said) if said.elapsed() >= QUIET => {
                *said = Instant::now();
                true
            }
            _ => false,
        }
    }

    fn close(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        self.close();
    }
}

impl FetchProgress for Bars {
    fn begin(&mut self, name: &str, size: Option<u64>) {
        self.close();
        let template = "{msg}\n  {bar:40} {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left";
        self.open(name, size, template);
        if self.bar.is_none() {
            let size = size.map_or_else(|| "size unknown".to_owned(), bytes);
            note(format_args!("{name}: {size}"));
        }
    }

    fn bytes(&mut self, have: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(have);
        } else if self.is_time() {
            let of = self
                .size
                .map_or_else(String::new, |size| format!(" of {}", bytes(size)));
            note(format_args!("{}: {}{of}", self.name, bytes(have)));
        }
    }

    fn verifying(&mut self) {
        if let Some(bar) = &self.bar {
            bar.set_message(format!("{} (verifying)", self.name));
        }
    }

    fn note(&mut self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => note(text),
        }
    }

    fn done(&mut self) {
        self.close();
    }
}
