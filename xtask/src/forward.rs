//! Verbs of other programs: builds the program, then runs it.

use std::{
    ffi::OsStr,
    io::{BufRead, BufReader, IsTerminal, Write},
    path::PathBuf,
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{
    cargo::{cargo, hand_over},
    fetch,
    gpu::{self, Build},
    help,
};

/// A program of the workspace.
pub(crate) struct Program {
    package: &'static str,
    bin: &'static str,
    /// Its purpose, for messages.
    what: &'static str,
    /// Approximate duration of its first build on two cores.
    first: &'static str,
}

/// Trains, samples and measures.
const SDFT: Program = Program {
    package: "sdft-cli",
    bin: "sdft",
    what: "the program of this verb",
    first: "several minutes",
};
/// Prepares tables, archives and folders of images.
const PREPARE: Program = Program {
    package: "sdft-prepare",
    bin: "sdft-prepare",
    what: "which reads tables, archives and folders of images",
    first: "a minute or two",
};
/// Uses the network.
const FETCH: Program = Program {
    package: "sdft-hub",
    bin: "sdft-fetch",
    what: "which has the network client",
    first: "a minute or two",
};
/// Measures speed.
pub(crate) const BENCH: Program = Program {
    package: "sdft-bench",
    bin: "sdft-bench",
    what: "which measures speed and memory",
    first: "several minutes",
};
/// Compares with the reference implementations.
pub(crate) const PARITY: Program = Program {
    package: "sdft-tests",
    bin: "sdft-parity",
    what: "which compares with the reference implementations",
    first: "several minutes",
};

/// Builds `sdft`, fetches what `sdft VERB ARGS` needs by name, and runs it.
pub(crate) fn sdft(verb: &str, args: &[String]) -> Result<ExitCode> {
    let gpus = gpu::build_for(args)?;
    if help::is_asked(args) {
        // A help text needs no files.
        let why = format!("which knows the arguments of {verb}");
        let mut command = Command::new(build_for(&SDFT, &gpus, &why)?);
        command.arg(verb).args(args);
        return hand_over(command);
    }
    let program = build(&SDFT, &gpus)?;
    let asked = ["missing", verb].into_iter();
    let asked = asked.chain(args.iter().map(String::as_str));
    if let Some(failed) = fetch::missing(&program, asked, fetch::Reported::No)? {
        return Ok(failed);
    }
    let mut command = Command::new(program);
    command.arg(verb).args(args);
    hand_over(command)
}

/// Builds a program that has its own verb, and runs it.
pub(crate) fn to(program: &Program, args: &[String]) -> Result<ExitCode> {
    let mut command = Command::new(build(program, &gpu::build_if_asked(args)?)?);
    command.args(args);
    hand_over(command)
}

/// Builds and runs the programs that check a GPU, and writes one report.
pub(crate) fn gpu_report(args: &[String]) -> Result<ExitCode> {
    let gpus = gpu::build_for(args)?;
    build(&SDFT, &gpus)?;
    build(&PARITY, &gpus)?;
    let mut command = Command::new(build(&BENCH, &gpus)?);
    if !args.iter().any(|arg| arg.starts_with("--report")) {
        command.args(["--report", "gpu-report.md"]);
    }
    if !args.iter().any(|arg| arg.starts_with("--device")) {
        command.args(["--device", "cuda"]);
    }
    command.args(args);
    hand_over(command)
}

/// The command of the program that may use the network, after building it.
pub(crate) fn fetching<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Result<Command> {
    let mut command = Command::new(build(&FETCH, &Build::default())?);
    command.args(args);
    Ok(command)
}

/// The command of the program that prepares images, after building it and fetching what it needs; an exit code if that fails.
pub(crate) fn preparing(
    args: &[String],
    reported: fetch::Reported,
) -> Result<std::result::Result<Command, ExitCode>> {
    let program = build(&PREPARE, &Build::default())?;
    let asked = std::iter::once("--missing").chain(args.iter().map(String::as_str));
    if let Some(failed) = fetch::missing(&program, asked, reported)? {
        return Ok(Err(failed));
    }
    let mut command = Command::new(program);
    command.args(args);
    Ok(Ok(command))
}

fn build(program: &Program, gpus: &Build) -> Result<PathBuf> {
    build_for(program, gpus, program.what)
}

/// Builds one program of the workspace and returns its path; prints nothing if there is nothing to compile.
fn build_for(program: &Program, gpus: &Build, why: &str) -> Result<PathBuf> {
    let Program {
        package,
        bin,
        first,
        ..
    } = program;
    let command = gpus.command(cargo, &["--package", package, "--bin", bin]);
    let title = format!("building {bin}, {why} (the first time this takes {first})");
    executable(command, bin, title, gpus)
}

/// Builds the programs that check a GPU at once, so that what they share is compiled once, and returns their folder.
pub(crate) fn all(gpus: &Build) -> Result<PathBuf> {
    let programs = [SDFT, PARITY, BENCH].map(|program| (program.package, program.bin));
    let title = "building sdft, sdft-parity and sdft-bench (the first time this takes a quarter of an hour)";
    let command = gpus.command_for(cargo, &programs);
    let path = executable(command, SDFT.bin, title.to_owned(), gpus)?;
    Ok(path.parent().map(PathBuf::from).unwrap_or_default())
}

/// Runs a build and returns the path of a program.
///
/// Cargo reports the path, so every setting of the target folder works.
fn executable(mut command: Command, bin: &str, title: String, gpus: &Build) -> Result<PathBuf> {
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .context("starting cargo build")?;
    let stdout = child.stdout.take().context("reading from cargo build")?;
    let mut progress = Progress::new(title);
    let mut executable = None;
    for line in BufReader::new(stdout).lines() {
        match artifact(&line.context("reading from cargo build")?, bin) {
            Some(Artifact::Binary { path, fresh }) => {
                progress.built(bin, fresh);
                executable = Some(path);
            }
            Some(Artifact::Other { name, fresh }) => progress.built(&name, fresh),
            None => {}
        }
    }
    progress.finish();
    let status = child.wait().context("waiting for cargo build")?;
    match executable {
        Some(path) if status.success() => Ok(path),
        _ if gpus.is_for_gpus() => bail!(
            "building {bin} for a GPU failed ({status}), see cargo's messages above; it needs the CUDA toolkit with cuDNN, and --device cpu does not"
        ),
        _ => bail!("building {bin} failed ({status}), see cargo's messages above"),
    }
}

/// A target that cargo built or found up to date (`fresh`).
#[derive(Debug, PartialEq)]
enum Artifact {
    Binary { path: PathBuf, fresh: bool },
    Other { name: String, fresh: bool },
}

/// Parses a line of cargo's JSON messages.
fn artifact(line: &str, bin: &str) -> Option<Artifact> {
    let message: Value = serde_json::from_str(line).ok()?;
    if message["reason"] != "compiler-artifact" {
        return None;
    }
    let name = message["target"]["name"].as_str()?.to_owned();
    let fresh = message["fresh"].as_bool()?;
    match message["executable"].as_str() {
        Some(path) if name == bin => Some(Artifact::Binary {
            path: path.into(),
            fresh,
        }),
        _ => Some(Artifact::Other { name, fresh }),
    }
}

/// Prints once that something is compiled, and on a terminal the progress.
struct Progress {
    title: String,
    n_compiled: usize,
    on_terminal: bool,
}

impl Progress {
    fn new(title: String) -> Self {
        let on_terminal = std::io::stderr().is_terminal();
        Self {
            title,
            n_compiled: 0,
            on_terminal,
        }
    }

    fn built(&mut self, name: &str, fresh: bool) {
        if fresh {
            return;
        }
        if self.n_compiled == 0 {
            eprintln!("{}", self.title);
        }
        self.n_compiled += 1;
        if self.on_terminal {
            eprint!("\r\x1b[K  compiled {}: {name}", self.n_compiled);
            // A progress line that cannot be written is not an error.
            let _ = std::io::stderr().flush();
        }
    }

    fn finish(&self) {
        if self.on_terminal && self.n_compiled > 0 {
            eprint!("\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargos_messages_are_parsed() {
        let line = |name: &str, executable: &str| {
            format!(
                r#"{{"reason":"compiler-artifact","target":{{"name":"{name}"}},"fresh":false,"executable":{executable}}}"#
            )
        };
        let path = PathBuf::from("t/release/sdft");
        assert_eq!(
            artifact(&line("sdft", "\"t/release/sdft\""), "sdft"),
            Some(Artifact::Binary { path, fresh: false })
        );
        let name = "candle_core".to_owned();
        assert_eq!(
            artifact(&line("candle_core", "null"), "sdft"),
            Some(Artifact::Other { name, fresh: false })
        );
        for line in [
            "",
            "not json",
            r#"{"reason":"build-finished","success":true}"#,
        ] {
            assert_eq!(artifact(line, "sdft"), None);
        }
    }
}
