//! What the processes of a run recorded about themselves, from its `sessions.jsonl`.

use crate::error::{OnPath as _, Result};
use sdft_files::plural;
use serde_json::Value as Json;
use std::path::Path;

/// All processes of a run together.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    /// The presets of the first process.
    pub(crate) presets: Vec<String>,
    /// The command of the first process.
    pub(crate) command: Option<String>,
    /// The program of the last one.
    pub(crate) program: Option<String>,
    /// All notes, in order, each once.
    pub(crate) notes: Vec<String>,
    /// The most memory of any of them, in bytes.
    pub(crate) peak_memory: Option<u64>,
    machine: Option<Json>,
    starts: usize,
    ends: usize,
    seconds: f64,
    ending: Option<String>,
}

impl Sessions {
    /// Reads the file of a run folder; a run of an older version has none.
    pub(crate) fn read(root: &Path) -> Result<Self> {
        let path = root.join("sessions.jsonl");
        let mut all = Self::default();
        if !path.exists() {
            return Ok(all);
        }
        let bytes = std::fs::read(&path).on("read", &path)?;
        for line in String::from_utf8_lossy(&bytes).lines() {
            if let Ok(line) = serde_json::from_str::<Json>(line) {
                all.add(&line);
            }
        }
        Ok(all)
    }

    fn add(&mut self, line: &Json) {
        let said = |value: &Json, key: &str| -> Option<String> {
            let text = value.get(key)?.as_str()?;
            (!text.is_empty()).then(|| text.to_owned())
        };
        if let Some(machine) = line.get("start").and_then(|start| start.get("machine")) {
            self.starts += 1;
            self.ending = None;
            if self.starts == 1 {
                let presets = machine.get("presets").and_then(Json::as_array);
                let names = presets.into_iter().flatten().filter_map(Json::as_str);
                self.presets = names.map(str::to_owned).collect();
                self.command = said(machine, "command");
            }
            self.program = said(machine, "program");
            self.machine = Some(machine.clone());
        } else if let Some(note) = line.get("note").and_then(Json::as_str) {
            if !self.notes.iter().any(|known| known == note) {
                self.notes.push(note.to_owned());
            }
        } else if let Some(end) = line.get("end") {
            self.ends += 1;
            self.seconds += end.get("seconds").and_then(Json::as_f64).unwrap_or(0.0);
            let peak = end.get("peak_memory").and_then(Json::as_u64);
            self.peak_memory = self.peak_memory.max(peak);
            self.ending = said(end, "ending");
        }
    }

    /// The notes that are warnings, without that word.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let warnings = self
            .notes
            .iter()
            .filter_map(|note| note.strip_prefix("warning: "));
        warnings.map(str::to_owned).collect()
    }

    /// `finished`, `interrupted`, an error, or that no end is recorded.
    pub(crate) fn state(&self, has_model: bool) -> String {
        match &self.ending {
            Some(ending) => ending.clone(),
            None if has_model => "finished".to_owned(),
            None if self.starts > 0 => "running, or stopped without a record".to_owned(),
            None => "unknown".to_owned(),
        }
    }

    /// The time of all processes, as in `1 h 05 min`.
    pub(crate) fn time(&self) -> Option<String> {
        let text = (self.ends > 0).then(|| duration(self.seconds))?;
        Some(
            match (self.starts, self.starts - self.ends.min(self.starts)) {
                (1, _) => text,
                (n, 0) => format!("{text} in {n} sessions"),
                (n, open) => {
                    format!("{text} in {n} sessions, {open} of them without a recorded end")
                }
            },
        )
    }

    /// Device, processor and kernels of the last process.
    pub(crate) fn device(&self) -> Option<String> {
        let machine = self.machine.as_ref()?;
        let said = |key: &str| machine.get(key).and_then(Json::as_str).unwrap_or_default();
        let threads = machine.get("threads").and_then(Json::as_u64).unwrap_or(0);
        let mut parts = vec![said("device").to_owned(), said("processor").to_owned()];
        parts.push(plural(threads, "thread", "threads"));
        parts.push(said("kernels").to_owned());
        parts.retain(|part| !part.is_empty() && part != "0 threads");
        (!parts.is_empty()).then(|| parts.join(", "))
    }
}

/// A duration as in `9 s`, `1 min 15 s` or `2 h 03 min`.
fn duration(seconds: f64) -> String {
    let whole = std::time::Duration::try_from_secs_f64(seconds.round());
    let whole = whole.map_or(0, |duration| duration.as_secs());
    match (whole / 3600, whole / 60 % 60, whole % 60) {
        (0, 0, s) => format!("{s} s"),
        (0, m, s) => format!("{m} min {s:02} s"),
        (h, m, _) => format!("{h} h {m:02} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(lines: &[Json]) -> Sessions {
        let mut all = Sessions::default();
        lines.iter().for_each(|line| all.add(line));
        all
    }

    #[test]
    fn several_processes_add_up_and_the_last_one_decides_the_state() {
        let start = json!({ "start": { "machine": { "program": "sdft 1", "threads": 2, "device": "cpu" } } });
        let end = |ending: &str| json!({ "end": { "seconds": 3600.0, "peak_memory": 5, "ending": ending } });
        let both = of(&[
            start.clone(),
            end("interrupted"),
            start.clone(),
            end("finished"),
        ]);
        assert_eq!(both.state(false), "finished");
        assert_eq!(both.time().unwrap(), "2 h 00 min in 2 sessions");
        assert_eq!(both.device().unwrap(), "cpu, 2 threads");
        let killed = of(&[start.clone(), end("interrupted"), start]);
        assert_eq!(killed.state(false), "running, or stopped without a record");
        assert!(
            killed
                .time()
                .unwrap()
                .contains("1 of them without a recorded end")
        );
        assert_eq!(Sessions::default().state(true), "finished");
    }

    #[test]
    fn notes_are_shown_once_and_warnings_apart() {
        let note = |text: &str| json!({ "note": text });
        let all = of(&[note("warning: a"), note("b"), note("warning: a")]);
        assert_eq!(all.notes, ["warning: a", "b"]);
        assert_eq!(all.warnings(), ["a"]);
    }
}
