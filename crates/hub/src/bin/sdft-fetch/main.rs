//! `sdft-fetch`: checkpoints and data sets from the Hugging Face Hub, verified.
//!
//! **Invariant:** turns arguments into library calls and results into text.

mod args;
mod bars;
mod get;
mod pair;

use std::process::ExitCode;

use args::Args;
use clap::Parser as _;

fn main() -> ExitCode {
    // clap itself prints errors in the arguments and exits with code 2.
    let args = Args::parse();
    sdft_runtime::exit_code(match &args.pair {
        Some(name) => pair::prepare(name, &args),
        None => get::fetch(&args),
    })
}
