//! `sdft-fetch`: checkpoints and data sets from the Hugging Face Hub, verified.
//!
//! **Invariant:** turns arguments into library calls and results into text.

mod args;
mod bars;
mod get;
mod pair;

use std::{io::Write as _, process::ExitCode};

use args::Args;
use clap::Parser as _;

/// What a user can do about an error: exit code 2, where everything else is 1.
#[derive(Debug)]
struct Usage(String);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// An error about how the program was called.
fn usage(text: impl Into<String>) -> anyhow::Error {
    anyhow::Error::new(Usage(text.into()))
}

/// Standard output was closed, as by `sdft-fetch --list | head`: no failure worth words.
#[derive(Debug)]
struct Closed;

impl std::fmt::Display for Closed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("standard output is closed")
    }
}

impl std::error::Error for Closed {}

/// Prints a result.
fn line(text: impl std::fmt::Display) -> anyhow::Result<()> {
    match writeln!(std::io::stdout(), "{text}") {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Err(Closed.into()),
        other => Ok(other?),
    }
}

/// Prints a line about what goes on.
fn note(text: &str) {
    // Nothing can be done if standard error is gone.
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn main() -> ExitCode {
    // clap prints usage errors itself and leaves with code 2.
    let args = Args::parse();
    let result = match &args.pair {
        Some(name) => pair::prepare(name, &args),
        None => get::fetch(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<Closed>() => ExitCode::SUCCESS,
        Err(error) => {
            note(&format!("error: {error:#}"));
            ExitCode::from(if error.is::<Usage>() { 2 } else { 1 })
        }
    }
}
