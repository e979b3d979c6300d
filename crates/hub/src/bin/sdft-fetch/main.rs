//! `sdft-fetch`: checkpoints and data sets from the Hugging Face Hub, verified; and models to it.
//!
//! **Invariant:** turns arguments into library calls and results into text.

mod args;
mod bars;
mod get;
mod pair;
mod push;

use std::process::ExitCode;

use args::Args;
use clap::Parser as _;
use push::PushArgs;

fn main() -> ExitCode {
    // clap itself prints errors in the arguments and exits with code 2.
    let mut words = std::env::args_os();
    if words.nth(1).is_some_and(|verb| verb == "push") {
        let program = std::iter::once("sdft-fetch push".into());
        return sdft_runtime::exit_code(push::push(&PushArgs::parse_from(program.chain(words))));
    }
    let args = Args::parse();
    sdft_runtime::exit_code(match &args.pair {
        Some(name) => pair::prepare(name, &args),
        None => get::fetch(&args),
    })
}
