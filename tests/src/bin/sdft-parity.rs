//! Walks a folder of fixtures and prints one line per case; [`sdft_tests::walk`] decides what passes.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this is what it is for"
)]

use candle_core::DType;
use sdft_cuda::{DeviceSpec, allow_recording, open};
use sdft_testing::{compute_on, parity_folder};
use sdft_tests::{BUILT, Finding, Outcome, compare_devices, walk};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The text of `--help`, which `cargo xtask parity --help` prints without building this program.
const HELP: &str = include_str!("help.txt");

fn main() -> ExitCode {
    let mut dir: Option<PathBuf> = None;
    let mut prefixes: Vec<String> = Vec::new();
    let (mut place, mut maps, mut operations) = (DeviceSpec::Cpu, DType::F32, false);
    let mut args = std::env::args_os().skip(1);
    while let Some(arg) = args.next() {
        match arg.to_str() {
            Some("--kind") => match args.next().as_ref().and_then(|list| list.to_str()) {
                Some(list) => prefixes.extend(list.split(',').map(|p| p.trim().to_owned())),
                None => return wrong("--kind needs a prefix"),
            },
            Some(option) if option.starts_with("--kind=") => {
                let list = option.trim_start_matches("--kind=");
                prefixes.extend(list.split(',').map(|p| p.trim().to_owned()));
            }
            Some("--operations") => operations = true,
            Some(option) if option.starts_with("--device") || option.starts_with("--precision") => {
                let (name, value) = match option.split_once('=') {
                    Some((name, value)) => (name, Some(value.to_owned())),
                    None => (option, args.next().and_then(|v| v.into_string().ok())),
                };
                let value = value.unwrap_or_default();
                match (name, value.as_str(), value.parse()) {
                    ("--device", _, Ok(found)) => place = found,
                    ("--device", _, Err(error)) => return wrong(&format!("--device: {error}")),
                    ("--precision", "f32", _) => maps = DType::F32,
                    ("--precision", "bf16", _) => maps = DType::BF16,
                    ("--precision", "f16", _) => maps = DType::F16,
                    _ => {
                        return wrong(&format!(
                            "{name}: expected f32, bf16 or f16, found {value:?}"
                        ));
                    }
                }
            }
            Some("--help" | "-h") => {
                print!("{HELP}");
                return ExitCode::SUCCESS;
            }
            Some(option) if option.starts_with('-') => {
                return wrong(&format!("unknown option {option}"));
            }
            _ if dir.is_some() => {
                return wrong(&format!(
                    "one folder is enough, found {} too",
                    arg.display()
                ));
            }
            _ => dir = Some(arg.into()),
        }
    }
    // An empty prefix would select every kind, which --kind never intends.
    if prefixes.iter().any(String::is_empty) {
        return wrong("--kind: an empty prefix");
    }
    allow_recording(true);
    let device = match open(place) {
        Ok(device) => device,
        Err(error) => return wrong(&format!("--device {error}")),
    };
    let wanted = |kind: &str| {
        prefixes.is_empty()
            || prefixes
                .iter()
                .any(|prefix| kind.starts_with(prefix.as_str()))
    };
    if operations {
        let findings = compare_devices(&device, wanted);
        if findings.is_empty() {
            return wrong(&format!(
                "no operation begins with {}",
                prefixes.join(" or ")
            ));
        }
        return show(&findings);
    }
    compute_on(device, maps);
    let root = dir.unwrap_or_else(parity_folder);
    let verdicts = match walk(&root, wanted) {
        Ok(verdicts) => verdicts,
        Err(error) => return wrong(&format!("{error:#}")),
    };
    if verdicts.is_empty() {
        // Nothing checked must not look like everything passed.
        let root = root.display();
        return wrong(&format!(
            "{root}: no case of kind {}; the kinds are {}",
            prefixes.join(", "),
            BUILT.join(", ")
        ));
    }
    let (mut passed, mut failed, mut not_built) = (0, 0, 0);
    for verdict in &verdicts {
        let head = format!("{:44} {:30}", name(&root, &verdict.dir), verdict.kind);
        match &verdict.outcome {
            Outcome::Passed { worst, tensor } => {
                passed += 1;
                println!("ok        {head} worst {worst:.3} ({tensor})");
            }
            Outcome::Failed(reason) => {
                failed += 1;
                println!("FAILED    {head} {reason}");
            }
            Outcome::NotBuilt => {
                not_built += 1;
                println!("not built {}", head.trim_end());
            }
        }
    }
    println!(
        "{} cases: {passed} passed, {failed} failed, {not_built} not built",
        verdicts.len()
    );
    if failed + not_built == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// One line per comparison, and how many hold.
fn show(findings: &[Finding]) -> ExitCode {
    for Finding { name, error, bound } in findings {
        let verdict = if error <= bound { "ok    " } else { "FAILED" };
        println!("{verdict} {name:64} {error:9.2e} of {bound:.1e}");
    }
    let held = findings.iter().filter(|finding| finding.holds()).count();
    println!(
        "{} comparisons: {held} hold, {} do not",
        findings.len(),
        findings.len() - held
    );
    if held == findings.len() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// `group/name` below the folder that was walked; the folder itself where it is the case.
fn name(root: &Path, dir: &Path) -> String {
    match dir.strip_prefix(root) {
        Ok(below) if below.as_os_str().is_empty() => dir.display().to_string(),
        Ok(below) => below.display().to_string(),
        Err(_) => dir.display().to_string(),
    }
}

fn wrong(problem: &str) -> ExitCode {
    eprintln!("error: {problem}\n`cargo xtask parity --help` lists the options");
    ExitCode::from(2)
}
