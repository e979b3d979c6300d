//! `sdft data`: look at images, choose from them, hand them to the program that makes them ready.

pub(crate) mod args;
mod select;

use crate::{console, usage};
use anyhow::Result;
use args::{DataArgs, DataVerb};
use sdft_data::check_folder;
use std::path::Path;
use std::process::{Command, ExitCode};

pub(crate) fn data(args: &DataArgs, offline: bool, threads: Option<usize>) -> Result<ExitCode> {
    match &args.verb {
        DataVerb::Check {
            dir,
            size,
            strict,
            json,
        } => check(dir, *size, *strict, *json),
        DataVerb::Prepare { args } => prepare(args, offline, threads),
        DataVerb::Select(args) => select::select(args).map(|()| ExitCode::SUCCESS),
    }
}

fn check(dir: &Path, size: usize, strict: bool, json: bool) -> Result<ExitCode> {
    if !(1..=65_536).contains(&size) {
        return Err(usage(format!("--size {size}: expected 1 to 65536")));
    }
    let report = check_folder(dir, size)?;
    if json {
        console::line(serde_json::to_string_pretty(&report)?)?;
    } else {
        console::line(&report)?;
    }
    let failed = strict && !report.unreadable.is_empty();
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// Readers of tables and archives are in a program of their own, so that this one is built without them.
///
/// Options that every command has are taken by this one wherever they stand, and handed on.
fn prepare(args: &[String], offline: bool, threads: Option<usize>) -> Result<ExitCode> {
    let name = format!("sdft-prepare{}", std::env::consts::EXE_SUFFIX);
    let beside = std::env::current_exe()
        .ok()
        .map(|me| me.with_file_name(name));
    let Some(program) = beside.filter(|program| program.is_file()) else {
        return Err(usage(
            "data prepare is done by sdft-prepare, which is not next to this program; `cargo xtask data prepare ..` builds and runs it",
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
