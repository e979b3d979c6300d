//! `report`: folders of results -> one page.

use crate::console;
use crate::runs::{STOP, listen_for_the_end};
use anyhow::Result;
use clap::Args;
use sdft_jobs::{AUTOENCODERS, CLASSIFIERS, DIRECTIONS, TRAINING};
use sdft_report::{watch, write_page};
use sdft_runtime::usage;
use sdft_train::runs_near;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// Folders of runs, images, evaluations or comparisons; several are shown next to each other.
    #[arg(value_name = "DIR", required = true)]
    pub(crate) folders: Vec<PathBuf>,
    /// The page; report.html in the folder if not given, or in the current folder for several.
    #[arg(long, value_name = "FILE", conflicts_with = "watch")]
    pub(crate) out: Option<PathBuf>,
    /// Serve the page on this machine only (127.0.0.1) and update it while a run continues, until Ctrl-C.
    #[arg(long)]
    pub(crate) watch: bool,
    /// The port of --watch; a free one if not given.
    #[arg(long, value_name = "PORT", requires = "watch")]
    pub(crate) port: Option<u16>,
}

pub(crate) fn report(args: &ReportArgs) -> Result<ExitCode> {
    for folder in &args.folders {
        if !folder.is_dir() {
            let problem = "a file, expected a folder of results";
            return Err(usage(format!("report: {}: {problem}", folder.display())));
        }
    }
    if args.watch {
        listen_for_the_end();
        let port = args.port.unwrap_or(0);
        watch(&args.folders, &preset, port, &STOP, &mut |address| {
            console::note(format!("{address} shows the page; Ctrl-C ends it"));
        })
        .map_err(explained)?;
    } else {
        let path = write_page(&args.folders, args.out.as_deref(), &preset).map_err(explained)?;
        console::line(format_args!("report   {}", path.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The error about a folder without results names the runs in it.
fn explained(error: sdft_report::Error) -> anyhow::Error {
    let sdft_report::Error::Foreign { path } = &error else {
        return error.into();
    };
    let runs = runs_near(path).map_or_else(String::new, |runs| format!("; {runs}"));
    usage(format!("report: {error}{runs}"))
}

/// Writes the page of finished folders and prints its path. A page that cannot be written is a note, because the results are complete.
pub(crate) fn write_for(folders: &[PathBuf], out: Option<&Path>) -> Result<()> {
    match write_page(folders, out, &preset) {
        Ok(path) => console::line(format_args!("report   {}", path.display())),
        Err(error) => {
            console::note(format!("no report: {:#}", anyhow::Error::from(error)));
            Ok(())
        }
    }
}

/// The text of a preset of any command.
fn preset(name: &str) -> Option<&'static str> {
    let all = [TRAINING, CLASSIFIERS, AUTOENCODERS, DIRECTIONS];
    all.iter().find_map(|presets| presets.get(name))
}
