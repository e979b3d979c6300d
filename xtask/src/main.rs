//! `cargo xtask VERB ..`: builds the right binary and runs it.
//!
//! Verbs of the program (`train`, `sample`, ..) are forwarded with all their arguments; the others concern the repository.
//!
//! **Invariant:** no tensor library, no network, and no knowledge of a verb's arguments except `--help`, `fetch --list`, and what decides
//! which program has a verb and whether it is built for GPUs.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this is a command line program"
)]

mod cargo;
mod ci;
mod fetch;
mod forward;
mod gpu;
mod help;
mod tidy;
mod verbs;

use std::process::ExitCode;

use anyhow::Result;

/// The exit code of wrong usage.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let verb = args.next();
    let rest: Vec<String> = args.collect();
    match run(verb.as_deref(), &rest) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(verb: Option<&str>, args: &[String]) -> Result<ExitCode> {
    match verb {
        None => {
            eprint!("{}", verbs::help());
            Ok(ExitCode::from(USAGE))
        }
        Some("help" | "--help" | "-h") => match args.split_first() {
            Some((verb, rest)) if !verb.starts_with('-') => {
                let mut args = rest.to_vec();
                args.push("--help".to_owned());
                run(Some(verb), &args)
            }
            _ => {
                print!("{}", verbs::help());
                Ok(ExitCode::SUCCESS)
            }
        },
        Some(verb) if help::is_asked(args) && help::of(verb, args).is_some() => {
            print!("{}", help::of(verb, args).unwrap_or_default());
            Ok(ExitCode::SUCCESS)
        }
        Some("test") => cargo::hand_over(ci::test_command(args)),
        Some("ci") => without_arguments("ci", args, ci::run),
        Some("tidy") => without_arguments("tidy", args, tidy::run),
        Some("parity") => forward::to(&forward::PARITY, args),
        Some("bench") => forward::to(&forward::BENCH, args),
        Some("gpu-report") => forward::gpu_report(args),
        Some("imitation") => gpu::imitation::check(args),
        Some("fetch") => fetch::fetch(args),
        Some("push") => fetch::push(args),
        // Tables and archives are read by another program, so that `sdft` is built without their dependencies.
        Some("data") if args.first().is_some_and(|word| word == "prepare") => {
            fetch::prepare(&args[1..])
        }
        Some(verb) if verbs::is_forwarded(verb) => forward::sdft(verb, args),
        Some(verb) => {
            eprintln!("error: {}", verbs::unknown(verb));
            Ok(ExitCode::from(USAGE))
        }
    }
}

/// Runs a verb that takes no arguments.
fn without_arguments(
    verb: &str,
    args: &[String],
    job: fn() -> Result<ExitCode>,
) -> Result<ExitCode> {
    match args.first() {
        None => job(),
        Some(arg) => {
            eprintln!("error: `cargo xtask {verb}` takes no arguments, found {arg:?}");
            Ok(ExitCode::from(USAGE))
        }
    }
}
