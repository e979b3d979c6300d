//! A report of everything to check on a GPU, in parts that each have a time limit and a file of their own.

// The programs `sdft` and `sdft-parity` must be in the same folder. A part that fails is reported and does not stop the others.

mod judge;
mod part;
mod resume;

use anyhow::{Context, Result};
use part::{Command, Ended, run};
use sdft_cuda::DeviceSpec;
use serde_json::Value;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// A requirement, what was found, and whether it is met.
struct Verdict {
    demand: String,
    found: String,
    holds: bool,
}

/// The parts in their order: what needs little time and shows most comes first.
const PARTS: [(&str, &str); 9] = [
    ("doctor", "this machine"),
    (
        "operations",
        "operations, blocks and optimiser steps compared with the CPU",
    ),
    (
        "speed",
        "speed and memory at batch 8, and of CUDA graphs at 64x64",
    ),
    ("eager", "compared with PyTorch eager at batch 8"),
    ("parity", "the parity cases in f32 and bf16"),
    ("sanitizer", "operations under compute-sanitizer"),
    ("batch32", "compared with PyTorch eager at batch 32"),
    ("resume", "a run that is killed and resumed"),
    ("compiled", "compared with torch.compile at batch 8"),
];

/// What the parts need to know.
struct Place<'a> {
    /// The folder of this program and of `sdft` and `sdft-parity`.
    programs: PathBuf,
    python: &'a Path,
    /// `--device=cuda:N`.
    device: String,
    /// The folder of the parts' files.
    folder: PathBuf,
}

impl Place<'_> {
    fn program(&self, name: &str) -> Command {
        Command::new(self.programs.join(name))
    }

    fn parity(&self) -> Command {
        self.program("sdft-parity").arg(&self.device)
    }

    /// The file of measurements.
    fn json(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.json"))
    }

    /// What was measured; null without that file.
    fn cases(&self, name: &str) -> Value {
        let text = std::fs::read_to_string(self.json(name)).unwrap_or_default();
        let mut rows: Value = serde_json::from_str(&text).unwrap_or_default();
        rows["cases"].take()
    }

    fn bench(&self, part: &str, cases: &str) -> Command {
        let json = self.json(part);
        self.program("sdft-bench")
            .arg(&self.device)
            .arg(format!("--only={cases}"))
            .arg(format!("--json={}", json.display()))
            .arg("--pairs=5")
    }

    /// The same next to PyTorch.
    fn against(&self, runner: &str, part: &str, cases: &str) -> Command {
        self.bench(part, cases)
            .arg("--peer")
            .arg(format!("--runners={runner}"))
            .arg(format!("--python={}", self.python.display()))
    }
}

/// Runs the parts, or those whose names `only` has, and writes `file` after each, and the parts' output to the folder of the same name. Fails
/// if a requirement is not met.
pub(crate) fn write(
    file: &Path,
    python: &Path,
    device: DeviceSpec,
    only: &[String],
) -> Result<ExitCode> {
    let device = match device {
        DeviceSpec::Cpu | DeviceSpec::Auto => DeviceSpec::Cuda(0),
        cuda => cuda,
    };
    if let Some(unknown) = only
        .iter()
        .find(|name| PARTS.iter().all(|(part, _)| part != name))
    {
        let names = PARTS.map(|(name, _)| name).join(", ");
        anyhow::bail!("--only: expected parts of the report ({names}), found {unknown:?}");
    }
    // Fail early if there is no GPU.
    let _there = sdft_cuda::open(device)?;
    let folder = file.with_extension("");
    std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let own_path = std::env::current_exe().context("finding this program")?;
    let place = Place {
        programs: own_path.parent().unwrap_or(Path::new(".")).to_owned(),
        python,
        device: format!("--device={device}"),
        folder: std::path::absolute(folder)?,
    };
    let (mut verdicts, mut body) = (Vec::new(), String::new());
    for (number, (name, title)) in PARTS.into_iter().enumerate() {
        if !only.is_empty() && only.iter().all(|wanted| wanted != name) {
            continue;
        }
        println!("{title} ..");
        let log = place.folder.join(format!("{}-{name}.txt", number + 1));
        let (ended, found) = check(name, &place, &log)?;
        for Verdict {
            demand,
            found,
            holds,
        } in &found
        {
            println!(
                "  {} {demand}: {found}",
                if *holds { "holds:" } else { "FAILS:" }
            );
        }
        verdicts.extend(found);
        write!(
            body,
            "\n## {title}\n\n{ended}\n\n```\n{}```\n",
            part::excerpt(&log)?
        )?;
        let text = format!("# GPU report\n\n{}{body}", table(&verdicts)?);
        std::fs::write(file, text).with_context(|| format!("writing {}", file.display()))?;
    }
    println!("wrote {}", file.display());
    Ok(if verdicts.iter().all(|verdict| verdict.holds) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn table(verdicts: &[Verdict]) -> Result<String> {
    let mut text = "| requirement | found | |\n|---|---|---|\n".to_owned();
    for Verdict {
        demand,
        found,
        holds,
    } in verdicts
    {
        let verdict = if *holds { "holds" } else { "**fails**" };
        writeln!(
            text,
            "| {demand} | {} | {verdict} |",
            found.replace('|', "/")
        )?;
    }
    Ok(text)
}

/// Runs one part within its time limit.
fn check(name: &str, place: &Place<'_>, log: &Path) -> Result<(Ended, Vec<Verdict>)> {
    let succeeds = |ended: Ended, demand: &str| -> Result<(Ended, Vec<Verdict>)> {
        let verdict = Verdict {
            demand: demand.to_owned(),
            found: ended
                .problem
                .clone()
                .map_or_else(|| part::last_line(log), Ok)?,
            holds: ended.succeeded(),
        };
        Ok((ended, vec![verdict]))
    };
    let measured = |ended: Ended| -> Result<(Ended, Vec<Verdict>)> {
        let mut found = judge::speed(&place.cases(name));
        if !ended.succeeded() {
            found.push(Verdict {
                demand: format!(
                    "{name}: all cases are measured, with the same results on both sides"
                ),
                found: part::last_line(log)?,
                holds: false,
            });
        }
        Ok((ended, found))
    };
    match name {
        "doctor" => Ok((
            run(
                [place.program("sdft").args(["doctor", &place.device])],
                30,
                log,
            )?,
            Vec::new(),
        )),
        "operations" => {
            let operations = || place.parity().arg("--operations");
            let mut ended = run([operations()], 90, log)?;
            if !ended.succeeded() {
                // Each launch waits for its end, so an error is that of the operation that reports it.
                let blocking = log.with_file_name("2-operations-blocking.txt");
                let again = operations().env("CUDA_LAUNCH_BLOCKING", "1");
                ended.add(&run([again], 90, &blocking)?);
            }
            succeeds(
                ended,
                "every operation, block and optimiser step equals the CPU's in f32, bf16 and f16",
            )
        }
        "speed" => {
            // The choice of each convolution's engine, and its time.
            let own = place
                .bench(name, "batch 8 step,batch 8 sdft,batch 8 ddim10")
                .env("SDFT_CUDA_LOG", "1");
            // Whether small networks are faster as graphs.
            let small = |name, graphs| {
                let bench = place.bench(name, "@64 batch 4");
                bench
                    .env("SDFT_CUDA_GRAPHS", graphs)
                    .env("SDFT_CUDA_LOG", "1")
            };
            let files = ["speed-launches", "speed-graphs"];
            let [launches, graphs] = [small(files[0], "0"), small(files[1], "1")];
            let (ended, mut found) = measured(run([own, launches, graphs], 120, log)?)?;
            found.extend(judge::graphs(files.map(|name| place.cases(name))));
            Ok((ended, found))
        }
        "eager" => measured(run(
            [place.against("eager", name, "batch 8 step,batch 8 ddim10")],
            60,
            log,
        )?),
        "parity" => {
            let parity = || place.parity();
            let half = parity().args(["--precision=bf16", "--kind=nn.,unet.,sdft.loss"]);
            succeeds(
                run([parity(), half], 90, log)?,
                "all parity cases in f32 within their tolerances, networks and losses in bf16 within 6 % of the largest value",
            )
        }
        "sanitizer" => {
            let kinds =
                "--kind=norm,attention,token,pool,concat,upsample,average,filter,noise,optimisers";
            let checked = Command::new("compute-sanitizer")
                .arg("--error-exitcode=9")
                .command(&place.parity().args(["--operations", kinds]));
            succeeds(
                run([checked], 60, log)?,
                "compute-sanitizer finds no invalid access in the project's kernels",
            )
        }
        "batch32" => measured(run(
            [place.against("eager", name, "batch 32 step")],
            60,
            log,
        )?),
        "resume" => resume::check(place, log),
        _ => measured(run(
            [place.against("compile", name, "batch 8 step")],
            150,
            log,
        )?),
    }
}
