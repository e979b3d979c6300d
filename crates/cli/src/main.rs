//! `sdft`: trains, samples and inspects diffusion models.
//!
//! **Invariant:** turns arguments into library calls and results into text; computes nothing itself, and opens no
//! network connection; `report --watch` listens on loopback only.

mod args;
mod autoencoder;
#[cfg(test)]
mod bounds;
mod classifier;
mod compare;
mod console;
mod convert;
mod data;
mod device;
mod doctor;
mod edit;
mod evaluate;
mod gallery;
mod inspect;
mod job;
mod judge;
mod launcher;
mod model;
mod names;
mod parse;
mod report;
mod reproduce;
mod resolve;
mod runs;
mod sample;
mod shell;
mod ticker;
mod train;
mod translate;

use args::{Cli, Verb};
use sdft_runtime::{OutputClosed, UsageError, usage};
use std::process::ExitCode;

/// Whether the user can correct an error by other arguments. The exit code is then 2 instead of 1.
pub(crate) fn is_usage(error: &anyhow::Error) -> bool {
    error.is::<UsageError>()
        || error
            .downcast_ref::<sdft_settings::Error>()
            .is_some_and(sdft_settings::Error::is_usage)
        || error
            .downcast_ref::<sdft_jobs::Error>()
            .is_some_and(sdft_jobs::Error::is_usage)
}

/// Stopped by the user, with everything saved.
const INTERRUPTED: u8 = 130;

/// The authors of the embedded emoji.
const ART: &str = "art      emoji by Google (Noto, Apache-2.0) and Microsoft (Fluent, MIT); details in assets/emoji/NOTICE";

fn main() -> ExitCode {
    // SAFETY: no other thread exists yet.
    unsafe { sdft_runtime::prepare() };
    // clap prints usage errors itself and exits with code 2.
    let mut cli = Cli::from_process();
    device::choose(cli.device, cli.precision.map(Into::into));
    let training = matches!(
        cli.verb,
        Verb::Train(_) | Verb::TrainClassifier(_) | Verb::TrainAutoencoder(_)
    );
    if let Err(problem) = sdft_kernels::check_kernel_environment() {
        console::error(&usage(problem.to_string()));
        return ExitCode::from(2);
    }
    let checked = device::check_precision();
    if let Err(error) =
        checked.and_then(|()| resolve::resolve(&mut cli.verb, &mut names::Names::resolving()))
    {
        console::error(&error);
        return ExitCode::from(if is_usage(&error) { 2 } else { 1 });
    }
    let threads = cli.threads.map(device::sensible_threads);
    let in_pool = sdft_runtime::with_threads(threads, || match cli.verb {
        Verb::Train(args) => train::train(&args),
        Verb::Sample(args) => sample::sample(&args),
        Verb::TrainClassifier(args) => classifier::train_classifier(&args),
        Verb::TrainAutoencoder(args) => autoencoder::train_autoencoder(&args),
        Verb::Translate(args) => translate::translate(&args),
        Verb::Edit(args) => edit::edit(&args),
        Verb::Inspect(args) => inspect::inspect(&args).map(|()| ExitCode::SUCCESS),
        Verb::Convert(args) => convert::convert(&args).map(|()| ExitCode::SUCCESS),
        Verb::Data(args) => data::data(&args, cli.offline, threads),
        Verb::Doctor => doctor::doctor().map(|()| ExitCode::SUCCESS),
        Verb::Missing(args) => resolve::missing(&args).map(|()| ExitCode::SUCCESS),
        Verb::Judge(args) => judge::judge(&args).map(|()| ExitCode::SUCCESS),
        Verb::Evaluate(args) => {
            device::in_f32_or_bf16("evaluate").and_then(|()| evaluate::evaluate(&args))
        }
        Verb::Reproduce(args) => reproduce::reproduce(&args),
        Verb::Compare(args) => compare::compare(&args),
        Verb::Report(args) => report::report(&args),
        Verb::Completions(args) => shell::completions(&args),
        Verb::Man(args) => shell::man(&args),
    });
    let no_pool = |e| {
        Err(usage(format!(
            "--threads: the thread pool cannot be started: {e}"
        )))
    };
    match in_pool.unwrap_or_else(no_pool) {
        Ok(code) => code,
        Err(error) => {
            // A reader that closes the output (`sdft inspect x | head`) is not a failure. Other broken pipes are, such as that of a rank.
            if error.is::<OutputClosed>() {
                return ExitCode::SUCCESS;
            }
            let error = match device::memory_advice(&error, training) {
                Some(advice) => error.context(advice),
                None => error,
            };
            console::error(&error);
            ExitCode::from(if is_usage(&error) { 2 } else { 1 })
        }
    }
}
