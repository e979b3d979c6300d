//! Programs with a time limit whose output goes to a file as it is written.

use anyhow::{Context, Result};
use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// Number of lines of a part's output that are kept in the report.
const KEPT: usize = 40;

/// A program, its arguments and its environment.
#[derive(Clone)]
pub(super) struct Command {
    words: Vec<OsString>,
    variables: Vec<(&'static str, &'static str)>,
    folder: Option<PathBuf>,
}

impl Command {
    pub(super) fn new(program: impl Into<OsString>) -> Self {
        Self {
            words: vec![program.into()],
            variables: Vec::new(),
            folder: None,
        }
    }

    pub(super) fn arg(mut self, word: impl Into<OsString>) -> Self {
        self.words.push(word.into());
        self
    }

    pub(super) fn args<const N: usize>(self, words: [&str; N]) -> Self {
        words.into_iter().fold(self, Self::arg)
    }

    /// This program running another one.
    pub(super) fn command(mut self, other: &Self) -> Self {
        self.words.extend(other.words.iter().cloned());
        self
    }

    pub(super) fn env(mut self, name: &'static str, value: &'static str) -> Self {
        self.variables.push((name, value));
        self
    }

    /// The folder in which it runs.
    pub(super) fn current_dir(mut self, folder: &Path) -> Self {
        self.folder = Some(folder.to_owned());
        self
    }

    /// Starts it in a process group of its own, which `timeout` ends after these seconds; its output is appended to the file.
    pub(super) fn start(&self, seconds: u64, log: &Path) -> Result<Child> {
        let open = || {
            let file = File::options().create(true).append(true).open(log);
            file.with_context(|| format!("writing {}", log.display()))
        };
        std::process::Command::new("timeout")
            .args(["--kill-after=5", &seconds.max(1).to_string()])
            .args(&self.words)
            .envs(self.variables.iter().copied())
            .current_dir(self.folder.as_deref().unwrap_or(Path::new(".")))
            .stdin(Stdio::null())
            .stdout(open()?)
            .stderr(open()?)
            .spawn()
            .context("starting timeout, a program of coreutils")
    }
}

/// How the programs of a part ended.
pub(super) struct Ended {
    pub(super) took: Duration,
    /// The first failure.
    pub(super) problem: Option<String>,
}

impl Ended {
    pub(super) fn succeeded(&self) -> bool {
        self.problem.is_none()
    }

    /// Adds the time of another run, which explains this one.
    pub(super) fn add(&mut self, other: &Self) {
        self.took += other.took;
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} s", self.took.as_secs_f64())?;
        match &self.problem {
            Some(problem) => write!(f, ", {problem}"),
            None => Ok(()),
        }
    }
}

/// Runs programs one after another in at most this many seconds together; the first failure ends the part.
pub(super) fn run<const N: usize>(
    commands: [Command; N],
    seconds: u64,
    log: &Path,
) -> Result<Ended> {
    let started = Instant::now();
    // A file of an earlier report must not look like this one.
    File::create(log).with_context(|| format!("writing {}", log.display()))?;
    let mut problem = None;
    for command in commands {
        let left = seconds.saturating_sub(started.elapsed().as_secs());
        let status = command.start(left, log)?.wait()?;
        problem = match status.code() {
            Some(0) => continue,
            Some(124 | 137) => Some(format!("stopped after its limit of {seconds} s")),
            Some(127) => Some(format!("{} was not found", command.words[0].display())),
            _ => Some(format!("failed ({status})")),
        };
        break;
    }
    Ok(Ended {
        took: started.elapsed(),
        problem,
    })
}

/// Errors first, then the end of the output.
pub(super) fn excerpt(log: &Path) -> Result<String> {
    let text = read(log)?;
    let lines: Vec<&str> = text.lines().collect();
    let tail = lines.len().saturating_sub(KEPT);
    let failed = lines[..tail].iter().filter(|line| line.contains("FAILED"));
    let kept = failed.take(KEPT).chain(&lines[tail..]);
    Ok(kept.map(|line| format!("{line}\n")).collect())
}

pub(super) fn last_line(log: &Path) -> Result<String> {
    Ok(read(log)?.lines().last().unwrap_or("no output").to_owned())
}

fn read(log: &Path) -> Result<String> {
    let bytes = std::fs::read(log).with_context(|| format!("reading {}", log.display()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        Command::new("sh").args(["-c", script])
    }

    #[test]
    fn a_part_ends_at_its_limit_and_keeps_what_it_wrote() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("part.txt");
        let ended = run(
            [shell("echo first; sleep 30"), shell("echo second")],
            1,
            &log,
        )
        .unwrap();
        assert!(ended.took < Duration::from_secs(10));
        assert!(ended.to_string().contains("its limit of 1 s"), "{ended}");
        assert_eq!(excerpt(&log).unwrap(), "first\n");
        // A later run does not append to an earlier one.
        let ended = run([shell("echo a; exit 3"), shell("echo b")], 9, &log).unwrap();
        assert!(!ended.succeeded() && last_line(&log).unwrap() == "a");
        let ended = run([shell("echo a >&2"), shell("echo b")], 9, &log).unwrap();
        assert!(ended.succeeded() && excerpt(&log).unwrap() == "a\nb\n");
        let ended = run([Command::new("no-such-program")], 9, &log).unwrap();
        assert!(
            ended.to_string().contains("no-such-program was not found"),
            "{ended}"
        );
    }

    #[test]
    fn failures_of_a_long_output_come_first() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("part.txt");
        let lines = (0..100).map(|i| format!("{} {i}\n", if i == 7 { "FAILED" } else { "ok" }));
        std::fs::write(&log, lines.collect::<String>()).unwrap();
        let text = excerpt(&log).unwrap();
        assert!(
            text.starts_with("FAILED 7\nok 60\n") && text.ends_with("ok 99\n"),
            "{text}"
        );
    }
}
