//! `sdft-bench`: how fast and how large kernels, blocks and training steps are, alone and beside PyTorch.
//!
//! Every case is measured in a process of its own, ours and PyTorch's alike, so that neither sees the other's threads or memory; the
//! processes take turns, repetition by repetition, and the verdict is the median of the ratios of neighbours.
//!
//! **Invariant:** both sides do the same work: they report size and a projection of what came out (of a step its loss and the norm of
//! its gradient), and a difference is an error.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this is a command line program"
)]

mod cases;
mod clock;
mod contest;
mod gpu_report;
mod inputs;
mod report;
mod work;
mod worker;

use anyhow::{Context, Result};
use cases::{cases, gpu_cases};
use clap::Parser;
use contest::{Contest, Peer};
use sdft_cuda::DeviceSpec;
use sdft_train::Precision;
use std::path::PathBuf;
use std::process::ExitCode;

/// The text of `--help`, which `cargo xtask bench --help` prints without building this program.
const HELP: &str = include_str!("help.txt");

#[derive(Parser)]
#[command(name = "cargo xtask bench", override_help = HELP)]
struct Args {
    #[arg(long)]
    peer: bool,
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    #[arg(long)]
    list: bool,
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Vec<u16>,
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pairs: u16,
    #[arg(long, default_value = "python3")]
    python: PathBuf,
    #[arg(long, default_value_t = DeviceSpec::Cpu)]
    device: DeviceSpec,
    #[arg(long, default_value = "bf16", value_parser = ["f32", "tf32", "bf16", "f16"])]
    precision: String,
    #[arg(long, default_value = "bench.json")]
    json: PathBuf,
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Takes a job from standard input; how this program starts itself.
    #[arg(long, hide = true)]
    worker: bool,
}

fn main() -> ExitCode {
    // SAFETY: no other thread exists yet.
    unsafe { sdft_runtime::prepare() };
    let args = Args::parse();
    let result = if args.worker {
        worker::run()
    } else if let Some(file) = &args.report {
        gpu_report::write(file, &args.python, args.device)
    } else {
        drive(&args)
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn drive(args: &Args) -> Result<ExitCode> {
    if let Err(problem) = sdft_kernels::check_kernel_environment() {
        eprintln!("error: {problem}");
        return Ok(ExitCode::from(2));
    }
    let on_gpu = matches!(args.device, DeviceSpec::Cuda(_));
    let all = if on_gpu { gpu_cases() } else { cases() };
    let chosen: Vec<_> = all
        .into_iter()
        .filter(|case| {
            args.only.is_empty() || args.only.iter().any(|part| case.name().contains(part))
        })
        .collect();
    if args.list {
        for case in &chosen {
            println!("{}", case.name());
        }
        return Ok(ExitCode::SUCCESS);
    }
    if chosen.is_empty() {
        eprintln!(
            "error: --only: no case has {:?} in its name; --list names them all",
            args.only
        );
        return Ok(ExitCode::from(2));
    }
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads: Vec<usize> = if args.threads.is_empty() && on_gpu {
        vec![cores]
    } else if args.threads.is_empty() {
        if cores > 1 { vec![1, cores] } else { vec![1] }
    } else {
        args.threads.iter().map(|&n| n.into()).collect()
    };
    let peer = args.peer.then(|| Peer::find(&args.python)).transpose()?;
    let folder = tempfile::tempdir().context("making a temporary folder")?;
    let mut report = report::Report::new(&threads, peer.as_ref())?;
    // Written after every case: a place that cannot be written shows at once, and a failure later on loses nothing.
    report.write(&args.json)?;
    print!("{}", report.head());
    let contest = Contest {
        peer: peer.as_ref(),
        pairs: args.pairs.into(),
        folder: folder.path(),
        place: args.device,
        precision: match args.precision.as_str() {
            _ if !on_gpu => Precision::F32,
            "bf16" => Precision::Bf16,
            "f16" => Precision::F16,
            "tf32" => Precision::Tf32,
            _ => Precision::F32,
        },
    };
    for case in &chosen {
        for &n in &threads {
            let measured = contest
                .measure(case, n)
                .with_context(|| format!("{}, {n} threads", case.name()))?;
            print!("{}", report.row(case, n, measured));
            report.write(&args.json)?;
        }
    }
    println!("wrote {}", args.json.display());
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_help_names_every_option_and_no_other() {
        let command = Args::command();
        let options = command.get_arguments().filter(|arg| !arg.is_hide_set());
        let options = options.filter_map(|arg| arg.get_long());
        let mut known: Vec<String> = options.map(|name| format!("--{name}")).collect();
        known.push("--help".to_owned());
        known.sort();
        let (_, listed) = HELP.split_once("Options:").unwrap();
        let words = listed.split_whitespace();
        let mut named: Vec<&str> = words.filter(|word| word.starts_with("--")).collect();
        named.sort_unstable();
        assert_eq!(named, known);
    }
}
