//! `sessions.jsonl`: where, how and how long a run was computed, and what it said.

use crate::error::{Context, Result};
use crate::folder::RunFolder;
use crate::progress::{Progress, StepReport};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// How a process computes a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Machine {
    /// The program and its version.
    pub program: String,
    /// The command that started it.
    pub command: String,
    /// The presets and files of settings that the plan began with.
    pub presets: Vec<String>,
    /// The device of the network.
    pub device: String,
    /// The processor, if the system names it.
    pub processor: String,
    /// Instruction set and convolutions of the CPU's kernels.
    pub kernels: String,
    /// Threads.
    pub threads: usize,
}

/// A line of `sessions.jsonl`. A process writes a start, its notes and an end, unless it is killed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionLine {
    /// A process began.
    Start {
        /// Seconds since 1970.
        unix: f64,
        /// How it computes.
        machine: Machine,
    },
    /// Something that deserved a line.
    Note(String),
    /// The process ended.
    End {
        /// Seconds since 1970.
        unix: f64,
        /// Duration in seconds.
        seconds: f64,
        /// The most memory that the process used, in bytes, where the system reports it.
        peak_memory: Option<u64>,
        /// `finished`, `interrupted`, or the error.
        ending: String,
    },
}

/// Records a session, and passes all progress on.
pub struct Recorder<'a> {
    file: File,
    path: PathBuf,
    started: Instant,
    inner: &'a mut dyn Progress,
}

impl<'a> Recorder<'a> {
    /// Begins a session.
    ///
    /// # Errors
    /// The file system fails.
    pub fn start(
        folder: &RunFolder,
        machine: Machine,
        inner: &'a mut dyn Progress,
    ) -> Result<Self> {
        let path = folder.sessions();
        let is_cut =
            std::fs::read(&path).is_ok_and(|text| text.last().is_some_and(|c| *c != b'\n'));
        let mut file = sdft_files::open_append(&path).at("cannot open", &path)?;
        // A process that was killed may have left a part of a line.
        if is_cut {
            file.write_all(b"\n").at("cannot write", &path)?;
        }
        let mut recorder = Self {
            file,
            path,
            started: Instant::now(),
            inner,
        };
        recorder.write(&SessionLine::Start {
            unix: now(),
            machine,
        })?;
        Ok(recorder)
    }

    /// Ends the session.
    ///
    /// # Errors
    /// The file system fails.
    pub fn end(mut self, ending: String, peak_memory: Option<u64>) -> Result<()> {
        let seconds = self.started.elapsed().as_secs_f64();
        self.write(&SessionLine::End {
            unix: now(),
            seconds,
            peak_memory,
            ending,
        })
    }

    fn write(&mut self, line: &SessionLine) -> Result<()> {
        let mut text = serde_json::to_string(line).unwrap_or_default();
        text.push('\n');
        let written = self.file.write_all(text.as_bytes());
        written.at("cannot write", &self.path)
    }
}

impl Progress for Recorder<'_> {
    fn step(&mut self, report: &StepReport) {
        self.inner.step(report);
    }

    fn images(&mut self, done: f64, total: usize) {
        self.inner.images(done, total);
    }

    fn samples(&mut self, done: f64, total: usize) {
        self.inner.samples(done, total);
    }

    fn note(&mut self, text: &str) {
        // The caller sees the note in any case, and a full disk ends the run at its next checkpoint.
        let _ = self.write(&SessionLine::Note(text.to_owned()));
        self.inner.note(text);
    }
}

/// The name of the file.
pub(crate) const SESSIONS: &str = "sessions.jsonl";

fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |d| d.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Plan;

    struct Notes(Vec<String>);

    impl Progress for Notes {
        fn note(&mut self, text: &str) {
            self.0.push(text.to_owned());
        }
    }

    #[test]
    fn a_session_has_a_start_its_notes_and_an_end_and_follows_a_cut_line() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("run");
        let folder = RunFolder::create(&root, &<Plan>::default()).unwrap();
        let machine = Machine {
            program: "sdft 1".into(),
            threads: 2,
            ..Machine::default()
        };
        let mut seen = Notes(Vec::new());
        let mut recorder = Recorder::start(&folder, machine.clone(), &mut seen).unwrap();
        recorder.note("warning: little data");
        recorder.end("finished".into(), Some(7)).unwrap();
        assert_eq!(seen.0, ["warning: little data"]);
        let mut file = sdft_files::open_append(&folder.sessions()).unwrap();
        file.write_all(b"{\"start\":{\"un").unwrap();
        let again = Recorder::start(&folder, machine.clone(), &mut seen).unwrap();
        drop(again);
        let text = std::fs::read_to_string(folder.sessions()).unwrap();
        let lines = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        let lines: Vec<SessionLine> = lines.collect();
        assert_eq!(lines.len(), 4);
        assert!(
            matches!(&lines[0], SessionLine::Start { unix, machine: found } if *unix > 1e9 && *found == machine)
        );
        assert_eq!(lines[1], SessionLine::Note("warning: little data".into()));
        assert!(
            matches!(&lines[2], SessionLine::End { ending, peak_memory: Some(7), .. } if ending == "finished")
        );
    }
}
