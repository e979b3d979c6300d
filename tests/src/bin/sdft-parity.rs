//! Walks a folder of fixtures and prints one line per case.
//!
//! **Invariant:** prints what [`sdft_tests::run`] found and judges nothing itself.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this is what it is for"
)]

use rayon::prelude::*;
use sdft_tests::{BUILT, Outcome, find, packaged, run};
use std::path::PathBuf;
use std::process::ExitCode;

const USAGE: &str = "usage: sdft-parity [DIR] [--kind PREFIX,PREFIX..]";

fn main() -> ExitCode {
    let mut dir: Option<PathBuf> = None;
    let mut kinds: Vec<String> = Vec::new();
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--kind" => match args.next() {
                Some(list) => kinds.extend(list.split(',').map(str::to_owned)),
                None => return wrong("--kind needs a prefix"),
            },
            "--help" | "-h" => {
                println!("{USAGE}\n\nkinds: {}", BUILT.join(", "));
                return ExitCode::SUCCESS;
            }
            option if option.starts_with('-') => return wrong(&format!("unknown option {option}")),
            _ if dir.is_some() => return wrong(&format!("one folder is enough, found {arg} too")),
            _ => dir = Some(arg.into()),
        }
    }
    let root = dir.unwrap_or_else(packaged);
    let dirs = match find(&root) {
        Ok(dirs) => dirs,
        Err(error) => return wrong(&format!("{error:#}")),
    };
    let wanted = |kind: &str| {
        kinds.is_empty() || kinds.iter().any(|prefix| kind.starts_with(prefix.as_str()))
    };
    let verdicts: Vec<_> = dirs.par_iter().map(|dir| run(dir)).collect();
    let (mut passed, mut failed, mut not_built) = (0, 0, 0);
    for (dir, verdict) in dirs.iter().zip(&verdicts) {
        // A case whose kind cannot be read counts whatever was asked for.
        if verdict.kind != "?" && !wanted(&verdict.kind) {
            continue;
        }
        let name = dir.strip_prefix(&root).unwrap_or(dir).display().to_string();
        let head = format!("{name:44} {:30}", verdict.kind);
        match &verdict.outcome {
            Outcome::Passed { worst, tensor } => {
                passed += 1;
                println!("ok        {head} worst {worst:.3} of the tolerance ({tensor})");
            }
            Outcome::Failed(reason) => {
                failed += 1;
                println!("FAILED    {head} {reason}");
            }
            Outcome::NotBuilt => {
                not_built += 1;
                println!("not built {head}");
            }
        }
    }
    println!(
        "{} cases: {passed} passed, {failed} failed, {not_built} not built",
        passed + failed + not_built
    );
    if failed + not_built == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn wrong(problem: &str) -> ExitCode {
    eprintln!("error: {problem}\n{USAGE}");
    ExitCode::from(2)
}
