//! Verbs that other binaries know: build them, then become them.

use std::{
    io::{BufRead, BufReader, IsTerminal, Write},
    path::PathBuf,
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{
    cargo::{cargo, hand_over},
    fetch, gpu,
};

/// Builds `sdft`, fetches what `sdft VERB ARGS` needs by name and is not here, and runs it.
pub(crate) fn sdft(verb: &str, args: &[String]) -> Result<ExitCode> {
    let program = build("sdft-cli", "sdft", &gpu::features(args))?;
    if let Some(failed) = fetch::missing(&program, verb, args)? {
        return Ok(failed);
    }
    let mut command = Command::new(program);
    command.arg(verb).args(args);
    hand_over(command)
}

/// Builds a binary that is a verb of its own and runs it.
pub(crate) fn to(package: &str, bin: &str, args: &[String]) -> Result<ExitCode> {
    let mut command = Command::new(build(package, bin, &gpu::features_if_asked(args))?);
    command.args(args);
    hand_over(command)
}

/// Builds what a GPU is judged by, and runs it: everything that a GPU is to show, in one file.
pub(crate) fn gpu_report(args: &[String]) -> Result<ExitCode> {
    let features = gpu::features(args);
    build("sdft-cli", "sdft", &features)?;
    build("sdft-tests", "sdft-parity", &features)?;
    let mut command = Command::new(build("sdft-bench", "sdft-bench", &features)?);
    if !args.iter().any(|arg| arg.starts_with("--report")) {
        command.args(["--report", "gpu-report.md"]);
    }
    if !args.iter().any(|arg| arg.starts_with("--device")) {
        command.args(["--device", "cuda"]);
    }
    command.args(args);
    hand_over(command)
}

/// Builds the program that may use the network, and runs it with a first argument of ours.
pub(crate) fn sdft_fetch(first: &str, args: &[String]) -> Result<ExitCode> {
    let mut command = Command::new(build("sdft-hub", "sdft-fetch", &[])?);
    command.arg(first).args(args);
    hand_over(command)
}

/// Builds one binary of the workspace and returns where it is; silent when nothing has to be compiled.
///
/// Cargo itself says where the binary is, hence every way of choosing the target folder works.
pub(crate) fn build(package: &str, bin: &str, features: &[&str]) -> Result<PathBuf> {
    let mut command = cargo("build");
    if !features.is_empty() {
        command.args(["--features", &features.join(",")]);
    }
    let mut child = command
        .args(["--quiet", "--release", "--package", package, "--bin", bin])
        .arg("--message-format=json-render-diagnostics")
        .stdout(Stdio::piped())
        .spawn()
        .context("starting cargo build")?;
    let stdout = child.stdout.take().context("reading from cargo build")?;
    let mut progress = Progress::new(bin);
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
        _ if !features.is_empty() => bail!(
            "building {bin} for a GPU failed ({status}), cargo's messages are above; it needs the CUDA toolkit with cuDNN, and --device cpu does without"
        ),
        _ => bail!("building {bin} failed ({status}), cargo's messages are above"),
    }
}

/// Something cargo has built, or found up to date (`fresh`).
#[derive(Debug, PartialEq)]
enum Artifact {
    Binary { path: PathBuf, fresh: bool },
    Other { name: String, fresh: bool },
}

/// Reads one line of cargo's JSON messages.
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

/// Says once that something is being compiled, and on a terminal how far it is.
struct Progress<'a> {
    bin: &'a str,
    n_compiled: usize,
    on_terminal: bool,
}

impl<'a> Progress<'a> {
    fn new(bin: &'a str) -> Self {
        let on_terminal = std::io::stderr().is_terminal();
        Self {
            bin,
            n_compiled: 0,
            on_terminal,
        }
    }

    fn built(&mut self, name: &str, fresh: bool) {
        if fresh {
            return;
        }
        if self.n_compiled == 0 {
            eprintln!("building {} (first time takes a few minutes)", self.bin);
        }
        self.n_compiled += 1;
        if self.on_terminal {
            eprint!("\r\x1b[K  compiled {}: {name}", self.n_compiled);
            // A progress line that cannot be written is no reason to stop.
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
    fn cargos_messages_say_what_was_built_and_where() {
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
