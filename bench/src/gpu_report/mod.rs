//! A report of everything to check on a GPU, in one file.

// The programs `sdft` and `sdft-parity` must be in the same folder. A part that fails is reported and does not stop the others.

use anyhow::{Context, Result, bail};
use sdft_cuda::DeviceSpec;
use serde_json::Value;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// Number of steps of the run that is killed and resumed.
const STEPS: u64 = 1200;
/// Number of output lines of a program that are kept in the report.
const KEPT: usize = 40;

struct Report {
    file: PathBuf,
    /// A requirement, and whether it is met.
    verdicts: Vec<(String, String, bool)>,
    body: String,
}

/// Runs all parts on a GPU and writes `file` after each; fails if a requirement is not met.
pub(crate) fn write(file: &Path, python: &Path, place: DeviceSpec) -> Result<ExitCode> {
    let place = match place {
        DeviceSpec::Cpu | DeviceSpec::Auto => DeviceSpec::Cuda(0),
        cuda => cuda,
    };
    // Fail early if there is no GPU.
    let _there = sdft_cuda::open(place)?;
    let own_path = std::env::current_exe().context("finding this program")?;
    let program = |name: &str| own_path.with_file_name(name);
    let device = format!("--device={place}");
    let mut report = Report {
        file: file.to_owned(),
        verdicts: Vec::new(),
        body: String::new(),
    };

    let mut doctor = Command::new(program("sdft"));
    doctor.args(["doctor", &device]);
    report.part("This machine", doctor, None)?;

    let mut operations = Command::new(program("sdft-parity"));
    operations.args(["--operations", &device]);
    let what = "every operation, block and optimiser step equals the CPU's in f32, bf16 and f16";
    report.part("Operations", operations, Some(what))?;

    let mut parity = Command::new(program("sdft-parity"));
    parity.arg(&device);
    let what = "all parity cases in f32, within their own tolerances";
    report.part("Parity in f32", parity, Some(what))?;

    let mut parity = Command::new(program("sdft-parity"));
    parity.args([&device, "--precision=bf16", "--kind=nn.,unet.,sdft.loss"]);
    let what = "parity of networks and losses in bf16, within 6 % of the largest value";
    report.part("Parity in bf16", parity, Some(what))?;

    run_killed_and_resumed(&mut report, &program("sdft"), &device)?;
    speed(&mut report, &own_path, python, place)?;

    let held = report.verdicts.iter().all(|(_, _, holds)| *holds);
    println!("wrote {}", file.display());
    Ok(if held {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

impl Report {
    /// Adds a program's output as a section; `demand` is the requirement that its success shows.
    fn part(&mut self, title: &str, mut command: Command, demand: Option<&str>) -> Result<()> {
        println!("{title} ..");
        let started = Instant::now();
        let output = command
            .output()
            .with_context(|| format!("starting {}", command.get_program().display()))?;
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        let took = started.elapsed();
        if let Some(demand) = demand {
            let last = text.lines().last().unwrap_or_default().to_owned();
            self.verdict(demand, &last, output.status.success());
        }
        self.section(title, took, &text)
    }

    fn verdict(&mut self, demand: &str, found: &str, holds: bool) {
        println!(
            "  {} {demand}: {found}",
            if holds { "holds:" } else { "FAILS:" }
        );
        self.verdicts
            .push((demand.to_owned(), found.to_owned(), holds));
    }

    /// Errors first, then the end of the remaining output.
    fn section(&mut self, title: &str, took: Duration, text: &str) -> Result<()> {
        let lines: Vec<&str> = text.lines().collect();
        let failed = lines.iter().filter(|line| line.contains("FAILED"));
        let tail = &lines[lines.len().saturating_sub(KEPT)..];
        writeln!(
            self.body,
            "\n## {title}\n\n{:.1} s\n\n```",
            took.as_secs_f64()
        )?;
        for line in failed.take(KEPT).chain(tail) {
            writeln!(self.body, "{line}")?;
        }
        writeln!(self.body, "```")?;
        self.save()
    }

    fn save(&self) -> Result<()> {
        let mut text = "# GPU report\n\n| requirement | found | |\n|---|---|---|\n".to_owned();
        for (demand, found, holds) in &self.verdicts {
            let verdict = if *holds { "holds" } else { "**fails**" };
            writeln!(
                text,
                "| {demand} | {} | {verdict} |",
                found.replace('|', "/")
            )?;
        }
        text.push_str(&self.body);
        std::fs::write(&self.file, text).with_context(|| format!("writing {}", self.file.display()))
    }
}

/// Kills an SDFT run on the digits half way, resumes it, and checks its loss and pictures.
fn run_killed_and_resumed(report: &mut Report, sdft: &Path, device: &str) -> Result<()> {
    println!("A run that is killed and resumed ..");
    let started = Instant::now();
    let place = tempfile::tempdir().context("making a temporary folder")?;
    let root = place.path().join("runs/report");
    let steps = format!("--steps={STEPS}");
    let begin = [
        "train",
        device,
        &steps,
        "--name=report",
        "--set=output.checkpoint_every=100",
        "--set=output.sample_every=400",
        "--set=eval.every=0",
    ];
    let resume = ["train", device, "--resume=runs/report"];
    let command = |args: &[&str]| {
        let mut command = Command::new(sdft);
        command.args(args).current_dir(place.path());
        command
    };
    let mut first = command(&begin)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("starting sdft")?;
    let half = root.join(format!("checkpoints/step-{:06}", STEPS / 2));
    let killed = loop {
        if half.exists() {
            first.kill().context("killing sdft")?;
            first.wait()?;
            break true;
        }
        if first.try_wait()?.is_some() || started.elapsed() > Duration::from_secs(300) {
            let _ = first.kill();
            break false;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let ended = command(&resume).output().context("starting sdft")?;
    let mut text = String::from_utf8_lossy(&ended.stderr).into_owned();
    let found = match losses(&root) {
        Ok((early, late)) => {
            let pictures = std::fs::read_dir(root.join("samples")).map_or(0, Iterator::count);
            let holds = killed && ended.status.success() && late < early && pictures >= 3;
            let found = format!(
                "{STEPS} steps, killed: {killed}; loss {early:.4} in the first tenth, {late:.4} in the last; {pictures} pictures"
            );
            (found, holds)
        }
        Err(error) => (format!("{error:#}"), false),
    };
    // Keep the last picture next to the report, for inspection.
    let picture = root.join(format!("samples/step-{STEPS:06}.png"));
    let kept = report.file.with_extension("png");
    if std::fs::copy(&picture, &kept).is_ok() {
        writeln!(text, "the last picture: {}", kept.display())?;
    }
    let demand =
        "an SDFT run of at least 1,000 steps with falling loss and pictures, killed and resumed";
    report.verdict(demand, &found.0, found.1);
    report.section("A run that is killed and resumed", started.elapsed(), &text)
}

/// The mean loss of the first and of the last tenth of a run.
fn losses(root: &Path) -> Result<(f64, f64)> {
    let log = std::fs::read_to_string(root.join("log.jsonl")).context("reading the log")?;
    let values: Vec<f64> = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok()?["loss"].as_f64())
        .collect();
    let tenth = values.len() / 10;
    if tenth == 0 {
        bail!("a log of {} lines", values.len());
    }
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    Ok((
        mean(&values[..tenth]),
        mean(&values[values.len() - tenth..]),
    ))
}

/// Compares speed and memory with PyTorch and with the requirements.
fn speed(report: &mut Report, bench: &Path, python: &Path, place: DeviceSpec) -> Result<()> {
    let folder = tempfile::tempdir().context("making a temporary folder")?;
    let json = folder.path().join("bench.json");
    let mut command = Command::new(bench);
    command
        .args(["--peer", "--pairs=5"])
        .arg(format!("--device={place}"));
    command.arg("--python").arg(python).arg("--json").arg(&json);
    report.part("Speed and memory compared with PyTorch", command, None)?;
    let text = std::fs::read_to_string(&json).unwrap_or_default();
    let all: Value = serde_json::from_str(&text).unwrap_or_default();
    let rows = all["cases"].as_array().cloned().unwrap_or_default();
    for row in &rows {
        let name = row["case"].as_str().unwrap_or_default();
        let own = row["wall"]["median"].as_f64();
        let others = row["all"].as_array().cloned().unwrap_or_default();
        let other = |wanted: &str| {
            let found = others.iter().find(|other| other["name"] == wanted)?;
            found["wall"]["median"]
                .as_f64()
                .zip(own)
                .map(|(a, b)| a / b)
        };
        let mut judge = |demand: String, found: Option<f64>, holds: &dyn Fn(f64) -> bool| {
            let text = found.map_or("not measured".to_owned(), |found| format!("{found:.2}"));
            report.verdict(&demand, &text, found.is_some_and(holds));
        };
        if name.ends_with("sdft step") {
            let ratio = other("naive").map(|ratio| 1.0 / ratio);
            let demand = format!("{name}: at most 1.9 times a naive step");
            judge(demand, ratio, &|ratio| ratio <= 1.9);
        } else if name.ends_with(" step") && !name.contains("recomputed")
            || name.ends_with("ddim10")
        {
            let demand = format!("{name}: at least 1.3 times PyTorch eager");
            judge(demand, other("eager"), &|ratio| ratio >= 1.3);
            let demand = format!("{name}: as fast as PyTorch compiled");
            judge(demand, other("compile"), &|ratio| ratio >= 1.0);
            let peers = others
                .iter()
                .filter_map(|other| other["peak_bytes"].as_f64());
            let least = peers.reduce(f64::min);
            let share = row["peak_bytes"].as_f64().zip(least).map(|(a, b)| a / b);
            let demand = format!("{name}: at most PyTorch's memory");
            judge(demand, share, &|share| share <= 1.0);
        } else if name.ends_with("recomputed step") {
            let gigabytes = row["peak_bytes"].as_f64().map(|bytes| bytes / 1e9);
            let demand = format!("{name}: in 12 GB");
            judge(demand, gigabytes, &|gigabytes| gigabytes <= 12.0);
        }
    }
    if rows.is_empty() {
        let demand = "speed and memory compared with PyTorch";
        report.verdict(demand, "not measured", false);
    }
    report.save()
}
