//! `sdft-bench`: speed and memory of kernels, blocks and training steps, alone and compared with PyTorch,
//! `torch.compile`, OpenVINO and ONNX Runtime.
//!
//! Every case runs in its own process, ours and the others' alike, so that processes do not share threads or memory. The processes alternate
//! after each repetition, and the result is the median of the ratios of adjacent repetitions.
//!
//! **Invariant:** both sides do the same work: each reports the size and a projection of its results (for a step its loss and gradient
//! norm), and a difference is an error.
#![expect(clippy::print_stdout, reason = "this is a command line program")]

mod cases;
mod clock;
mod comparison;
mod configs;
mod gpu_report;
mod inputs;
mod parts;
mod peer;
mod report;
mod work;
mod worker;

use anyhow::{Context, Result, bail};
use cases::{Case, cases, gpu_cases};
use clap::Parser;
use comparison::Comparison;
use peer::{Peer, RUNNERS};
use sdft_cuda::DeviceSpec;
use sdft_runtime::{exit_code, print_line, usage};
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
    runners: Vec<String>,
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    #[arg(long)]
    list: bool,
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Vec<u16>,
    #[arg(long)]
    parts: bool,
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pairs: u16,
    #[arg(long, default_value = "python3")]
    python: PathBuf,
    #[arg(long, default_value_t = DeviceSpec::Cpu)]
    device: DeviceSpec,
    #[arg(long, value_parser = ["f32", "tf32", "bf16", "f16"])]
    precision: Option<String>,
    #[arg(long, default_value = "bench.json")]
    json: PathBuf,
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Read a job from standard input; this program starts itself with it.
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
        gpu_report::write(file, &args.python, args.device, &args.only)
    } else {
        drive(&args).map(|()| ExitCode::SUCCESS)
    };
    match result {
        Ok(code) => code,
        Err(error) => exit_code(Err(error)),
    }
}

fn drive(args: &Args) -> Result<()> {
    sdft_kernels::check_kernel_environment().map_err(|problem| usage(problem.to_string()))?;
    let on_gpu = matches!(args.device, DeviceSpec::Cuda(_));
    let precision = match args.precision.as_deref() {
        None if on_gpu => Precision::Bf16,
        None | Some("f32") => Precision::F32,
        Some("bf16") => Precision::Bf16,
        Some(other) if !on_gpu => {
            let text = format!("--precision {other}: a CPU computes in f32 or bf16");
            return Err(usage(text));
        }
        Some("tf32") => Precision::Tf32,
        Some(_) => Precision::F16,
    };
    let all = if on_gpu { gpu_cases() } else { cases() };
    let chosen: Vec<_> = all
        .into_iter()
        .filter(|case| on_gpu || precision == Precision::F32 || work::has_precisions(&case.work))
        .filter(|case| {
            args.only.is_empty() || args.only.iter().any(|part| case.name().contains(part))
        })
        .collect();
    if args.list {
        let mut names = chosen.iter().map(Case::name);
        return names.try_for_each(print_line);
    }
    if chosen.is_empty() {
        let text = format!(
            "--only: no case has {:?} in its name; --list prints all names",
            args.only
        );
        return Err(usage(text));
    }
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads: Vec<usize> = if args.threads.is_empty() && on_gpu {
        vec![cores]
    } else if args.threads.is_empty() {
        if cores > 1 { vec![1, cores] } else { vec![1] }
    } else {
        args.threads.iter().map(|&n| n.into()).collect()
    };
    if let Some(unknown) = args
        .runners
        .iter()
        .find(|name| !RUNNERS.contains(&name.as_str()))
    {
        let known = RUNNERS.join(", ");
        let text = format!("--runners: expected {known}, found {unknown:?}");
        return Err(usage(text));
    }
    let peer = args.peer.then(|| Peer::find(&args.python)).transpose()?;
    let folder = tempfile::tempdir().context("making a temporary folder")?;
    let mut report = report::Report::new(&threads, peer.as_ref())?;
    // Written after every case, so that an error of the path shows early and a later failure loses nothing.
    report.write(&args.json)?;
    print_line(report.head())?;
    let comparison = Comparison {
        peer: peer.as_ref(),
        runners: &args.runners,
        pairs: args.pairs.into(),
        folder: folder.path(),
        place: args.device,
        precision,
        parts: args.parts && !on_gpu,
    };
    let mut disagreements = 0;
    for case in &chosen {
        for &n in &threads {
            let measured = comparison
                .measure(case, n)
                .with_context(|| format!("{}, {n} threads", case.name()))?;
            for disagreement in &measured.disagreements {
                disagreements += 1;
                print_line(format_args!("FAILED {}: {disagreement}", case.name()))?;
            }
            print_line(report.row(case, n, measured))?;
            report.write(&args.json)?;
        }
    }
    print_line(format_args!("wrote {}", args.json.display()))?;
    if disagreements > 0 {
        bail!("{disagreements} results of both sides differ");
    }
    Ok(())
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
