//! `sdft`: trains, samples and looks into diffusion models.
//!
//! **Invariant:** turns arguments into library calls and results into text; computes nothing itself and never opens the network.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

mod args;
mod assets;
mod config;
mod console;
mod convert;
mod data;
mod doctor;
mod estimate;
mod inspect;
mod judge;
mod npz;
mod reproduce;
mod sample;
mod suggest;
mod train;

use args::{Cli, Verb};
use clap::Parser;
use std::process::ExitCode;

/// What a user can do about an error: exit code 2, where everything else is 1.
#[derive(Debug)]
pub(crate) struct Usage(String);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// An error about how the program was called.
pub(crate) fn usage(text: impl Into<String>) -> anyhow::Error {
    anyhow::Error::new(Usage(text.into()))
}

/// Stopped by the user, with everything saved.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    // candle's elementwise kernels have a spinning thread pool of their own, which would fight with ours for the cores.
    if std::env::var_os("CANDLE_NUM_THREADS").is_none() {
        // SAFETY: no other thread exists yet.
        unsafe { std::env::set_var("CANDLE_NUM_THREADS", "1") };
    }
    // clap prints usage errors itself and leaves with code 2.
    let cli = Cli::parse();
    let result = with_threads(cli.threads, || match cli.verb {
        Verb::Train(args) => train::train(&args),
        Verb::Sample(args) => sample::sample(&args).map(|()| ExitCode::SUCCESS),
        Verb::Inspect(args) => inspect::inspect(&args).map(|()| ExitCode::SUCCESS),
        Verb::Convert(args) => convert::convert(&args).map(|()| ExitCode::SUCCESS),
        Verb::Data(args) => data::data(&args),
        Verb::Doctor => doctor::doctor().map(|()| ExitCode::SUCCESS),
        Verb::Judge(args) => judge::judge(&args).map(|()| ExitCode::SUCCESS),
        Verb::Reproduce(args) => reproduce::reproduce(&args),
    });
    match result {
        Ok(code) => code,
        Err(error) => {
            // A closed pipe (`sdft inspect x | head`) is not a failure worth words.
            if error.chain().any(|e| {
                e.downcast_ref::<std::io::Error>()
                    .is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
            }) {
                return ExitCode::SUCCESS;
            }
            console::error(&error);
            ExitCode::from(if error.is::<Usage>() { 2 } else { 1 })
        }
    }
}

/// Runs `f` inside a pool of this many threads, so that entering it once serves all operations.
fn with_threads<R: Send>(
    threads: Option<usize>,
    f: impl FnOnce() -> anyhow::Result<R> + Send,
) -> anyhow::Result<R> {
    let failed = |e| usage(format!("--threads: the thread pool cannot be started: {e}"));
    let builder = || rayon::ThreadPoolBuilder::new().num_threads(threads.unwrap_or(0));
    // The pool of everybody else, such as the thread that prepares batches: that one must not wait for a pool whose threads may
    // be waiting for it.
    builder().build_global().map_err(failed)?;
    // The graph of gradients is walked recursively, and deep networks have deep graphs.
    let pool = builder().stack_size(256 << 20).build().map_err(failed)?;
    pool.install(f)
}
