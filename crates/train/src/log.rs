//! `log.jsonl`, and the event file that TensorBoard reads.

use crate::error::{Context, Result};
use crate::folder::RunFolder;
use crate::tensorboard::EventFile;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Sums since the last log line. A checkpoint holds them as bits, so that a resumed run writes the same lines.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sums {
    steps: u64,
    values: Vec<(String, u64)>,
}

impl Sums {
    /// Adds one step.
    pub(crate) fn add(&mut self, terms: &[(&'static str, f64)]) {
        self.steps += 1;
        for &(name, value) in terms {
            match self.values.iter_mut().find(|(known, _)| known == name) {
                Some((_, sum)) => *sum = (f64::from_bits(*sum) + value).to_bits(),
                None => self.values.push((name.to_owned(), value.to_bits())),
            }
        }
    }

    /// Means over the steps added, and a fresh start.
    pub(crate) fn take(&mut self) -> Vec<(String, f64)> {
        let Self { steps, values } = std::mem::take(self);
        values
            .into_iter()
            .map(|(name, sum)| (name, f64::from_bits(sum) / steps as f64))
            .collect()
    }
}

/// The name of a value on a chart, where the name has to include the scale.
fn tag(name: &str) -> &str {
    match name {
        "eval.kid" => "eval.kid_x1000",
        "eval.kid_error" => "eval.kid_error_x1000",
        other => other,
    }
}

/// `log.jsonl` and the event file of a run, truncated to their lengths at the last checkpoint.
#[derive(Debug)]
pub struct Log {
    lines: File,
    events: EventFile,
    folder: PathBuf,
}

/// The numbers of a log line.
pub(crate) struct LogLine<'a> {
    /// Steps done.
    pub(crate) step: u64,
    /// Images used so far.
    pub(crate) images: u64,
    /// The learning rate of the last step.
    pub(crate) lr: f64,
    /// Steps skipped so far.
    pub(crate) skipped: u64,
    /// Means of the loss terms since the last line.
    pub(crate) means: &'a [(String, f64)],
    /// Speed since the last line.
    pub(crate) images_per_second: f64,
}

fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |d| d.as_secs_f64())
}

impl Log {
    pub(crate) fn open(folder: &RunFolder, lines: u64, events: u64) -> Result<Self> {
        let path = folder.log();
        let mut file = sdft_files::open_append(&path).at("cannot open", &path)?;
        let length = file.metadata().at("cannot read", &path)?.len();
        // A log that became shorter stays as it is: extending it would fill it with zeros.
        file.set_len(lines.min(length))
            .at("cannot truncate", &path)?;
        file.seek(SeekFrom::End(0)).at("cannot seek in", &path)?;
        let path = folder.events();
        let events = EventFile::open(&path, events, now()).at("cannot open", &path)?;
        Ok(Self {
            lines: file,
            events,
            folder: folder.root().to_owned(),
        })
    }

    /// Writes a line. Everything that depends on the clock is under `time`.
    pub(crate) fn write(&mut self, entry: &LogLine<'_>) -> Result<()> {
        let LogLine {
            step,
            images,
            lr,
            skipped,
            means,
            images_per_second,
        } = *entry;
        let mut line = Map::new();
        line.insert("step".into(), json!(step));
        line.insert("images".into(), json!(images));
        for (name, value) in means {
            line.insert(name.clone(), json!(value));
        }
        line.insert("lr".into(), json!(lr));
        line.insert("skipped".into(), json!(skipped));
        line.insert(
            "time".into(),
            json!({ "unix": now(), "images_per_second": images_per_second }),
        );
        let mut text = Value::Object(line).to_string();
        text.push('\n');
        self.lines
            .write_all(text.as_bytes())
            .at("cannot write to log.jsonl in", &self.folder)?;
        let mut scalars: Vec<(&str, f64)> = means
            .iter()
            .map(|(name, value)| (name.as_str(), *value))
            .collect();
        scalars.push(("lr", lr));
        scalars.push(("images_per_second", images_per_second));
        self.events
            .scalars(step, now(), &scalars)
            .at("cannot write events in", &self.folder)
    }

    /// Writes the values of an evaluation after `step` steps.
    ///
    /// # Errors
    /// The file system fails.
    pub fn write_evaluation(&mut self, step: u64, values: &[(String, f64)]) -> Result<()> {
        let mut line = Map::from_iter([("step".to_owned(), json!(step))]);
        line.extend(
            values
                .iter()
                .map(|(name, value)| (name.clone(), json!(value))),
        );
        line.insert("time".into(), json!({ "unix": now() }));
        let text = Value::Object(line).to_string() + "\n";
        self.lines
            .write_all(text.as_bytes())
            .at("cannot write to log.jsonl in", &self.folder)?;
        let scalars: Vec<(&str, f64)> = values
            .iter()
            .map(|(name, value)| (tag(name), *value))
            .collect();
        self.events
            .scalars(step, now(), &scalars)
            .at("cannot write events in", &self.folder)
    }

    /// Adds the PNG file at `path` to the events under this name.
    pub(crate) fn picture(&mut self, step: u64, name: &str, path: &Path) -> Result<()> {
        let png = fs::read(path).at("cannot read", path)?;
        self.events
            .png(step, now(), name, &png)
            .at("cannot write events in", &self.folder)
    }

    /// Flushes both files and returns their lengths.
    pub(crate) fn sync(&mut self) -> Result<(u64, u64)> {
        self.lines
            .sync_data()
            .at("cannot flush log.jsonl in", &self.folder)?;
        let lines = self
            .lines
            .stream_position()
            .at("cannot seek in log.jsonl in", &self.folder)?;
        let events = self
            .events
            .sync()
            .at("cannot flush events in", &self.folder)?;
        Ok((lines, events))
    }
}
