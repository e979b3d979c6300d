//! Compares processes that do the same work in turn.

use crate::cases::{Case, Work};
use crate::clock::Spent;
use crate::inputs::write_files;
use crate::peer::{Peer, Runner};
use crate::work::Digest;
use crate::worker::Job;
use anyhow::{Context, Result, bail};
use sdft_cuda::DeviceSpec;
use sdft_train::Precision;
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// Largest relative difference between the results of both sides.
const TOLERANCE: f64 = 2e-3;
/// All repetitions of a case take about this many seconds at most, but there are at least [`MIN_ROUNDS`].
const BUDGET: f64 = 60.0;
const MIN_ROUNDS: usize = 3;

/// How the cases are measured.
pub(crate) struct Comparison<'a> {
    pub(crate) peer: Option<&'a Peer>,
    /// Only these of the other side; all if empty.
    pub(crate) runners: &'a [String],
    pub(crate) pairs: usize,
    /// The folder for files of the processes.
    pub(crate) folder: &'a Path,
    /// Where the work is computed.
    pub(crate) place: DeviceSpec,
    pub(crate) precision: Precision,
    /// Whether to measure the operations of networks, too.
    pub(crate) parts: bool,
}

/// The repetitions of one process.
pub(crate) struct Runs {
    pub(crate) name: String,
    pub(crate) precision: Precision,
    pub(crate) runs: Vec<Spent>,
    pub(crate) peak: Option<u64>,
    /// The time of one repetition and its operations, if they were measured.
    pub(crate) parts: Value,
}

/// The repetitions of a case, and of those it is compared with.
pub(crate) struct Measured {
    pub(crate) own: Runs,
    pub(crate) others: Vec<Runs>,
    /// The others whose results differ from ours, and how.
    pub(crate) disagreements: Vec<String>,
    /// Whether the processes alternated; otherwise they ran one after another.
    pub(crate) in_turn: bool,
}

fn agree(a: &[Digest], b: &[Digest], tolerance: f64) -> bool {
    let close = |a: f64, b: f64, size: f64| (a - b).abs() <= tolerance * size;
    let same = |(a, b): (&Digest, &Digest)| {
        let size = a[0].abs().max(b[0].abs());
        close(a[0], b[0], size) && close(a[1], b[1], size)
    };
    a.len() == b.len() && a.iter().zip(b).all(same)
}

/// Both sides round half-precision maps at different points.
fn tolerance(precision: Precision) -> f64 {
    match precision {
        Precision::Bf16 => 1e-1,
        Precision::F16 | Precision::Tf32 => 2e-2,
        _ => TOLERANCE,
    }
}

impl Comparison<'_> {
    pub(crate) fn measure(&self, case: &Case, threads: usize) -> Result<Measured> {
        let [weights, inputs] =
            ["weights", "inputs"].map(|n| self.folder.join(n).with_extension("safetensors"));
        let own_program = std::env::current_exe().context("finding this program")?;
        let ours = || {
            let mut command = Command::new(&own_program);
            command.arg("--worker");
            command
        };
        let job = |case: &Case, runner: &str, precision| Job {
            case: case.clone(),
            threads,
            runner: runner.to_owned(),
            device: self.place.to_string(),
            precision,
            parts: self.parts && runner == "sdft" && matches!(case.work, Work::Network { .. }),
            weights: weights.clone(),
            inputs: inputs.clone(),
        };
        let entry = |name: &str, command, job: Job| Entry {
            name: name.to_owned(),
            command,
            job,
        };
        let own_job = |case| job(case, "sdft", self.precision);
        let mut entries = vec![entry("sdft", ours(), own_job(case))];
        if !self.on_gpu() && self.precision != Precision::F32 {
            entries.push(entry("sdft", ours(), job(case, "sdft", Precision::F32)));
        }
        if let Some(naive) = case.naive() {
            entries.push(entry("naive", ours(), own_job(&naive)));
        } else if let Some(peer) = self.peer {
            if matches!(case.work, Work::Network { .. }) {
                write_files(&case.work, &weights, &inputs)?;
            }
            let wanted =
                |name: &str| self.runners.is_empty() || self.runners.iter().any(|one| one == name);
            let runners = peer.runners(case, self.place, self.precision);
            for Runner { name, precision } in runners.into_iter().filter(|one| wanted(one.name)) {
                entries.push(entry(name, peer.command(), job(case, name, precision)));
            }
        }
        // Processes that do not fit into memory together run one after another.
        let together =
            !self.on_gpu() && case.bytes() * (entries.len() as f64) < 0.6 * available_bytes();
        let all = if together {
            self.in_turn(entries, threads)?
        } else {
            self.one_by_one(entries, threads)?
        };
        let (own, own_value) = &all[0];
        let mut disagreements = Vec::new();
        for (other, value) in &all[1..] {
            let tolerance = tolerance(self.precision).max(tolerance(other.precision));
            if case.naive().is_none() && !agree(own_value, value, tolerance) {
                disagreements.push(format!(
                    "the results of both sides differ: {own_value:?} ({}), {value:?} ({})",
                    own.name, other.name
                ));
            }
        }
        let mut runs = all.into_iter().map(|(runs, _)| runs);
        Ok(Measured {
            own: runs.next().context("no process was measured")?,
            others: runs.collect(),
            disagreements,
            in_turn: together,
        })
    }

    fn on_gpu(&self) -> bool {
        matches!(self.place, DeviceSpec::Cuda(_))
    }

    fn in_turn(&self, entries: Vec<Entry>, threads: usize) -> Result<Vec<(Runs, Vec<Digest>)>> {
        let mut sides = entries
            .into_iter()
            .map(|entry| Side::start(entry, threads))
            .collect::<Result<Vec<_>>>()?;
        let n = sides.len();
        let mut taken = 0.0;
        for round in 0..self.pairs {
            // Rotate the order, so that no process always follows the same one.
            for i in 0..n {
                taken += sides[(i + round) % n].go()?.wall;
            }
            if self.ends_after(round, taken) {
                break;
            }
        }
        sides.into_iter().map(Side::finish).collect()
    }

    fn one_by_one(&self, entries: Vec<Entry>, threads: usize) -> Result<Vec<(Runs, Vec<Digest>)>> {
        let n = entries.len() as f64;
        let mut rounds = self.pairs;
        let mut all = Vec::new();
        for entry in entries {
            let mut side = Side::start(entry, threads)?;
            let mut taken = 0.0;
            for round in 0..rounds {
                taken += n * side.go()?.wall;
                if self.ends_after(round, taken) {
                    rounds = round + 1;
                    break;
                }
            }
            all.push(side.finish()?);
        }
        Ok(all)
    }

    /// Whether another round would exceed the time budget.
    fn ends_after(&self, round: usize, taken: f64) -> bool {
        let next = taken * (round + 2) as f64 / (round + 1) as f64;
        round + 1 >= MIN_ROUNDS.min(self.pairs) && next > BUDGET
    }
}

/// A process to start.
struct Entry {
    name: String,
    command: Command,
    job: Job,
}

/// Available memory in bytes, if the system reports it.
fn available_bytes() -> f64 {
    let read = || {
        let text = std::fs::read_to_string("/proc/meminfo").ok()?;
        let line = text
            .lines()
            .find(|line| line.starts_with("MemAvailable:"))?;
        line.split_whitespace().nth(1)?.parse::<f64>().ok()
    };
    read().map_or(f64::INFINITY, |kilobytes| 1024.0 * kilobytes)
}

/// A process that waits for its next repetition.
struct Side {
    name: String,
    precision: Precision,
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    value: Vec<Digest>,
    runs: Vec<Spent>,
}

impl Side {
    /// Starts a process and waits until it has done the work once.
    fn start(entry: Entry, threads: usize) -> Result<Self> {
        let Entry {
            name,
            mut command,
            job,
        } = entry;
        let mut child = command
            .env("OMP_NUM_THREADS", threads.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {command:?}"))?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            bail!("no pipes to {command:?}");
        };
        let mut side = Self {
            name,
            precision: job.precision,
            child,
            input,
            output: BufReader::new(output),
            value: Vec::new(),
            runs: Vec::new(),
        };
        let answer = side.ask(&serde_json::to_string(&job)?)?;
        side.value =
            serde_json::from_value(answer["value"].clone()).context("an answer without a value")?;
        Ok(side)
    }

    fn ask(&mut self, line: &str) -> Result<Value> {
        let name = &self.name;
        writeln!(self.input, "{line}").with_context(|| format!("the process of {name} exited"))?;
        let mut answer = String::new();
        self.output.read_line(&mut answer)?;
        serde_json::from_str(&answer)
            .with_context(|| format!("the process of {name} failed, see its message above"))
    }

    fn go(&mut self) -> Result<Spent> {
        let spent: Spent = serde_json::from_value(self.ask("go")?)?;
        self.runs.push(spent);
        Ok(spent)
    }

    /// The repetitions, and the result.
    fn finish(mut self) -> Result<(Runs, Vec<Digest>)> {
        let mut answer = self.ask("end")?;
        self.child.wait()?;
        let runs = Runs {
            name: self.name,
            precision: self.precision,
            runs: self.runs,
            peak: answer["peak"].as_u64(),
            parts: answer["parts"].take(),
        };
        Ok((runs, self.value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_agree_within_the_tolerance_of_their_size() {
        let a = [[1.0, 0.3], [2.0, -1.0]];
        let agree = |a: &[Digest], b: &[Digest]| agree(a, b, TOLERANCE);
        assert!(agree(&a, &[[1.001, 0.3015], [2.0, -1.003]]));
        assert!(!agree(&a, &[[1.0, 0.303], [2.0, -1.0]]));
        assert!(!agree(&a, &[[1.0, 0.3], [2.01, -1.0]]));
        assert!(!agree(&a, &a[..1]));
        assert!(!agree(&[[f64::NAN, 0.0]], &[[f64::NAN, 0.0]]));
    }
}
