//! The checks of continuous integration, cheapest first.

use std::{
    io::ErrorKind,
    process::{Command, ExitCode},
    time::Instant,
};

use anyhow::{Context, Result};

use crate::{
    cargo::{cargo, exit_code, root},
    gpu, tidy,
};

/// The command of `cargo xtask test`, which the integration runs, too.
pub(crate) fn test_command(args: &[String]) -> Command {
    let mut command = cargo("test");
    command.args(["--release", "--workspace"]).args(args);
    command
}

/// Runs the numerical tests again with the precise convolutions that `SDFT_CONV` selects.
fn precise_command(algorithm: &str) -> Command {
    let mut command = cargo("test");
    // The whole workspace is named as in the previous stage, so that nothing is compiled again.
    command
        .args(["--release", "--quiet", "--workspace"])
        .args(["parity", "golden", "identities", "gradients"].map(|name| format!("--test={name}")))
        .env("SDFT_CONV", algorithm);
    command
}

/// Builds the guide if mdBook is installed. Its links and commands are checked by [`tidy`].
fn book() -> Result<ExitCode> {
    let mut mdbook = Command::new("mdbook");
    mdbook
        .args(["build", "docs/book", "--dest-dir"])
        .arg(root().join("target/book"))
        .current_dir(root());
    match mdbook.status() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            println!("skipped: the guide; install mdBook (cargo install mdbook)");
            Ok(ExitCode::SUCCESS)
        }
        status => Ok(exit_code(status.context("starting mdbook")?)),
    }
}

/// What a stage runs.
enum Stage {
    Program(Command),
    Job(fn() -> Result<ExitCode>),
}

/// Runs all stages and stops at the first failure.
pub(crate) fn run() -> Result<ExitCode> {
    let mut fmt = cargo("fmt");
    fmt.args(["--all", "--check"]);
    let mut clippy = cargo("clippy");
    clippy.args([
        "--quiet",
        "--release",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ]);
    let mut doc = cargo("doc");
    doc.args(["--quiet", "--release", "--workspace", "--no-deps"])
        .env("RUSTDOCFLAGS", "-D warnings");
    let mut python = Command::new("bash");
    python.arg(root().join("python/test"));
    let stages = [
        ("fmt", Stage::Program(fmt)),
        ("tidy", Stage::Job(tidy::run)),
        ("clippy", Stage::Program(clippy)),
        (
            "test",
            Stage::Program(test_command(&["--quiet".to_owned()])),
        ),
        ("direct", Stage::Program(precise_command("direct"))),
        ("f2", Stage::Program(precise_command("f2"))),
        ("doc", Stage::Program(doc)),
        ("book", Stage::Job(book)),
        ("python", Stage::Program(python)),
        // Last, because its features compile most crates again.
        ("cuda", Stage::Job(gpu::imitation::integrate)),
    ];
    for (name, stage) in stages {
        let start = Instant::now();
        let code = match stage {
            Stage::Program(mut command) => {
                let status = command
                    .status()
                    .with_context(|| format!("starting {name}"))?;
                exit_code(status)
            }
            Stage::Job(job) => job()?,
        };
        let seconds = start.elapsed().as_secs_f64();
        if code != ExitCode::SUCCESS {
            println!("ci: {name:<6} FAILED after {seconds:.1} s");
            return Ok(ExitCode::FAILURE);
        }
        println!("ci: {name:<6} ok     {seconds:>7.1} s");
    }
    Ok(ExitCode::SUCCESS)
}
