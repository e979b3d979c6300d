//! `sdft-fetch`: checkpoints and data sets from the Hugging Face Hub, verified, and images made ready for training.
//!
//! **Invariant:** turns arguments into library calls and results into text.

mod args;
mod bars;
mod get;
mod list;
mod ready;

use std::{io::Write as _, process::ExitCode};

use args::{Cli, Verb};
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

/// Prints a result.
fn line(text: impl std::fmt::Display) -> std::io::Result<()> {
    writeln!(std::io::stdout(), "{text}")
}

/// Prints a line about what goes on.
fn note(text: &str) {
    // Nothing can be done if standard error is gone.
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn main() -> ExitCode {
    // clap prints usage errors itself and leaves with code 2.
    let result = match Cli::parse().verb {
        Verb::Fetch(args) => get::fetch(&args),
        Verb::Prepare(args) => ready::prepare(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // A closed pipe (`sdft-fetch fetch --list | head`) is not a failure worth words.
            let is_pipe = |e: &std::io::Error| e.kind() == std::io::ErrorKind::BrokenPipe;
            if error.chain().any(|e| e.downcast_ref().is_some_and(is_pipe)) {
                return ExitCode::SUCCESS;
            }
            note(&format!("error: {error:#}"));
            ExitCode::from(if error.is::<Usage>() { 2 } else { 1 })
        }
    }
}
