//! `data`: checks images and selects some; `data prepare` is another program.

pub(crate) mod args;

use crate::console::{self, plural};
use crate::device::in_f32;
use crate::job::job;
use anyhow::{Result, anyhow};
use args::{CheckArgs, DataArgs, DataVerb, SelectArgs};
use sdft_data::{FolderOptions, Inventory, check_folder_with};
use sdft_imaging::Limits;
use sdft_jobs::{SelectOptions, Take, Weights, select_images};
use sdft_runtime::usage;
use std::process::{Command, ExitCode};

pub(crate) fn data(args: &DataArgs, offline: bool, threads: Option<usize>) -> Result<ExitCode> {
    match &args.verb {
        DataVerb::Check(args) => check(args),
        DataVerb::Prepare { args } => prepare(args, offline, threads),
        DataVerb::Select(args) => select(args).map(|()| ExitCode::SUCCESS),
    }
}

fn check(args: &CheckArgs) -> Result<ExitCode> {
    if let Some(inventory) = Inventory::of(&args.dir.to_string_lossy())? {
        return check_embedded(args, &inventory);
    }
    let [height, width] = args.size;
    if height.max(width) > 65_536 {
        return Err(usage(format!(
            "--size {height}x{width}: expected 1 to 65536"
        )));
    }
    let mut options = FolderOptions::new(height);
    options.size = args.size;
    options.channels = args.channels;
    options.depth = args.depth;
    options.range = args.range;
    options.fit = args.fit;
    options.background = args.background;
    options.pages = args.pages;
    options.classes.clone_from(&args.classes);
    options.masks.clone_from(&args.masks);
    options.limits = Limits::from_env()?;
    let report = check_folder_with(&args.dir, &options, &|_, _| {})?;
    if args.json {
        console::line(serde_json::to_string_pretty(&report)?)?;
    } else {
        console::line(&report)?;
    }
    if args.list {
        for file in report.files() {
            console::line(file)?;
        }
    }
    match report.unreadable.len() {
        n if args.strict && n > 0 => Err(anyhow!(
            "--strict: {} in {} cannot be read",
            plural(n, "image", "images"),
            args.dir.display()
        )),
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// Prints what an embedded set holds.
fn check_embedded(args: &CheckArgs, inventory: &Inventory) -> Result<ExitCode> {
    if args.reads_files() {
        return Err(usage(format!(
            "data check: {}: images in the program are complete and have one form; expected only --list or --json",
            inventory.name
        )));
    }
    if args.json {
        console::line(serde_json::to_string_pretty(inventory)?)?;
    } else {
        console::line(inventory)?;
    }
    if args.list {
        for id in &inventory.ids {
            console::line(id)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn select(args: &SelectArgs) -> Result<()> {
    let threshold = args.threshold.unwrap_or_default();
    let options = SelectOptions {
        dir: args.dir.clone(),
        prompt: args.prompt.clone(),
        take: args.top.map_or(Take::Threshold(threshold), Take::Top),
        out: args.out.clone(),
        overwrite: args.overwrite,
        clip: args.clip,
        weights: Weights::parse(&args.weights)?,
    };
    in_f32("data select")?;
    let report = job("select", |context| select_images(&options, context))?;
    let [best, least, worst] = report.similarity;
    console::line(format_args!(
        "{}: {} of {} images, similarity {best:.4} to {least:.4} (all: down to {worst:.4})",
        report.images.display(),
        report.taken,
        report.all
    ))?;
    console::line(format_args!("scores   {}", report.scores.display()))?;
    console::line(format_args!("sheet    {}", report.sheet.display()))
}

/// `data prepare` is a separate program, so that this one is built without readers of tables and archives.
///
/// clap parses the global options, so they are passed on.
fn prepare(args: &[String], offline: bool, threads: Option<usize>) -> Result<ExitCode> {
    let name = format!("sdft-prepare{}", std::env::consts::EXE_SUFFIX);
    let sibling = std::env::current_exe()
        .ok()
        .map(|me| me.with_file_name(name));
    let Some(program) = sibling.filter(|program| program.is_file()) else {
        return Err(usage(
            "data prepare needs the program sdft-prepare next to this one; releases have both, and `cargo build --release -p sdft-prepare` builds it",
        ));
    };
    let mut command = Command::new(&program);
    command.args(args);
    if offline {
        command.arg("--offline");
    }
    if let Some(threads) = threads {
        command.arg(format!("--threads={threads}"));
    }
    let status = command.status()?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(ExitCode::from(code.unwrap_or(1)))
}

#[cfg(test)]
mod tests {
    use crate::args::Cli;
    use clap::Parser;

    #[test]
    fn one_of_top_and_threshold_is_needed() {
        let words = ["sdft", "data", "select", "pics", "--prompt", "x"];
        assert!(Cli::try_parse_from(words).is_err());
        for both in [["--top", "1"], ["--threshold", "0.2"]] {
            assert!(Cli::try_parse_from(words.iter().chain(&both)).is_ok());
        }
        let both = ["--top", "1", "--threshold", "0.2"];
        assert!(Cli::try_parse_from(words.iter().chain(&both)).is_err());
        assert!(Cli::try_parse_from(words.iter().chain(&["--top", "0"])).is_err());
    }
}
