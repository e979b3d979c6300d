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
    // clap itself prints errors in the arguments and exits with code 2.
    let args = Args::parse();
    sdft_runtime::exit_code(match args.missing {
        true => inputs::print_missing(&args),
        false => inputs::prepare(&args),
    })
}
