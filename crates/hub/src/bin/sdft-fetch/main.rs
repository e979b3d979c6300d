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
    let mut words = std::env::args_os();
    if words.nth(1).is_some_and(|verb| verb == "push") {
        let program = std::iter::once("sdft-fetch push".into());
        let args = PushArgs::try_parse_from(program.chain(words));
        return sdft_runtime::exit_code(push::push(&args.unwrap_or_else(|error| exit(&error))));
    }
    let args = Args::try_parse().unwrap_or_else(|error| exit(&error));
    sdft_runtime::exit_code(match &args.pair {
        Some(name) => pair::prepare(name, &args),
        None => get::fetch(&args),
    })
}

/// Prints a help text or an error of the arguments, and exits as clap does: with code 2 for an error.
fn exit(error: &clap::Error) -> ! {
    let text = error.render();
    let (plain, styled) = (text.to_string(), text.ansi().to_string());
    sdft_runtime::exit_with(&plain, &styled, error.use_stderr(), error.exit_code())
}
