//! Processes that take turns at the same work.

use crate::cases::{Case, Work};
use crate::clock::Spent;
use crate::inputs::write_files;
use crate::worker::Job;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// Both sides report a value of their result; further apart than this they have not done the same.
const TOLERANCE: f64 = 2e-3;
/// All repetitions of a case together take about this many seconds at most, but there are three at least.
const BUDGET: f64 = 60.0;
const FEWEST: usize = 3;

/// PyTorch on this machine.
pub(crate) struct Peer {
    python: PathBuf,
    script: PathBuf,
    pub(crate) version: String,
}

impl Peer {
    pub(crate) fn find(python: &Path) -> Result<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peer/peer.py");
        let output = Command::new(python)
            .args(["-c", "import torch; print(torch.__version__)"])
            .output()
            .with_context(|| format!("--peer: starting {} (--python names another)", python.display()))?;
        if !output.status.success() {
            bail!(
                "--peer: {} has no PyTorch (`pip install torch`, or name another by --python): {}",
                python.display(),
                String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or("no message")
            );
        }
        Ok(Self {
            python: python.to_owned(),
            script,
            version: String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        })
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.python);
        command.arg(&self.script);
        command
    }
}

/// How cases are measured.
pub(crate) struct Contest<'a> {
    pub(crate) peer: Option<&'a Peer>,
    pub(crate) pairs: usize,
    /// Where files for the processes go.
    pub(crate) folder: &'a Path,
}

/// The runs of one process.
pub(crate) struct Runs {
    pub(crate) name: String,
    pub(crate) runs: Vec<Spent>,
    pub(crate) peak: Option<u64>,
}

/// A case's own runs, and those it is held against: each of the same length.
pub(crate) struct Measured {
    pub(crate) own: Runs,
    pub(crate) others: Vec<Runs>,
}

impl Contest<'_> {
    pub(crate) fn measure(&self, case: &Case, threads: usize) -> Result<Measured> {
        let [weights, inputs] = ["weights", "inputs"].map(|n| self.folder.join(n).with_extension("safetensors"));
        let own_program = std::env::current_exe().context("finding this program")?;
        let ours = || {
            let mut command = Command::new(&own_program);
            command.arg("--worker");
            command
        };
        let job = |case: &Case, layout: &str| Job {
            case: case.clone(),
            threads,
            layout: layout.to_owned(),
            weights: weights.clone(),
            inputs: inputs.clone(),
        };
        let mut sides = vec![Side::start("sdft", ours(), &job(case, "default"), threads)?];
        if let Some(naive) = case.naive() {
            sides.push(Side::start("naive", ours(), &job(&naive, "default"), threads)?);
        } else if let Some(peer) = self.peer {
            if matches!(case.work, Work::Network { .. }) {
                write_files(&case.work, &weights, &inputs)?;
            }
            let flat = matches!(case.work, Work::Attention { .. } | Work::Optimizer { .. });
            let layouts: &[&str] = if flat {
                &["default"]
            } else {
                &["default", "channels_last"]
            };
            for layout in layouts {
                sides.push(Side::start(layout, peer.command(), &job(case, layout), threads)?);
            }
            for side in &sides[1..] {
                let (a, b) = (sides[0].value, side.value);
                if (a - b).abs() > TOLERANCE * a.abs().max(b.abs()) {
                    bail!("the two sides do not do the same: {a} here, {b} there ({})", side.name);
                }
            }
        }
        let mut taken = 0.0;
        for round in 0..self.pairs {
            let n = sides.len();
            // Who begins changes, so that nobody always follows the same neighbour.
            for i in 0..n {
                taken += sides[(i + round) % n].go()?.wall;
            }
            if round + 1 >= FEWEST.min(self.pairs) && taken * (round + 2) as f64 / (round + 1) as f64 > BUDGET {
                break;
            }
        }
        let mut all = sides.into_iter().map(Side::finish);
        let own = all.next().context("nobody took part")??;
        Ok(Measured {
            own,
            others: all.collect::<Result<_>>()?,
        })
    }
}

/// A process that waits for its turn.
struct Side {
    name: String,
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    value: f64,
    runs: Vec<Spent>,
}

impl Side {
    /// Starts a process and waits until it has done the work once.
    fn start(name: &str, mut command: Command, job: &Job, threads: usize) -> Result<Self> {
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
            name: name.to_owned(),
            child,
            input,
            output: BufReader::new(output),
            value: 0.0,
            runs: Vec::new(),
        };
        let answer = side.ask(&serde_json::to_string(job)?)?;
        side.value = answer["value"].as_f64().context("an answer without a value")?;
        Ok(side)
    }

    fn ask(&mut self, line: &str) -> Result<Value> {
        let name = &self.name;
        writeln!(self.input, "{line}").with_context(|| format!("the process of {name} has ended"))?;
        let mut answer = String::new();
        self.output.read_line(&mut answer)?;
        serde_json::from_str(&answer)
            .with_context(|| format!("the process of {name} failed, its message is above"))
    }

    fn go(&mut self) -> Result<Spent> {
        let spent: Spent = serde_json::from_value(self.ask("go")?)?;
        self.runs.push(spent);
        Ok(spent)
    }

    fn finish(mut self) -> Result<Runs> {
        let peak = self.ask("end")?["peak"].as_u64();
        self.child.wait()?;
        Ok(Runs {
            name: self.name,
            runs: self.runs,
            peak,
        })
    }
}
