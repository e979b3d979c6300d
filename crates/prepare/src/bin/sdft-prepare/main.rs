//! `sdft-prepare`: turns tables, archives and folders of images into sets for training.
//!
//! **Invariant:** turns arguments into library calls and results into text; opens no network connection.

mod args;
mod inputs;
mod progress;

use std::process::ExitCode;

use args::Args;
use clap::Parser as _;

fn main() -> ExitCode {
    let args = Args::try_parse().unwrap_or_else(|error| exit(&error));
    sdft_runtime::exit_code(match args.missing {
        true => inputs::print_missing(&args),
        false => inputs::prepare(&args),
    })
}

/// Prints a help text or an error of the arguments, and exits as clap does: with code 2 for an error.
fn exit(error: &clap::Error) -> ! {
    let text = error.render();
    let (plain, styled) = (text.to_string(), text.ansi().to_string());
    sdft_runtime::exit_with(&plain, &styled, error.use_stderr(), error.exit_code())
}
