//! `compare`: arguments -> a comparison of methods -> its table.

use crate::job::job;
use crate::parse::at_least_one;
use crate::reproduce::{page_of, print};
use crate::runs::list;
use crate::{INTERRUPTED, console};
use anyhow::Result;
use clap::Args;
use sdft_experiments::{COMPARISONS, CompareOptions, compare_methods};
use sdft_jobs::Weights;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    /// A TOML file of methods, or a built-in comparison: digits, digits-dit, emoji, metfaces, aahq.
    #[arg(value_name = "NAME|FILE", required_unless_present = "list")]
    pub(crate) comparison: Option<String>,
    /// List the comparisons that the program carries.
    #[arg(long)]
    pub(crate) list: bool,
    /// Number of runs of each method, if not as many as the comparison says.
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub(crate) seeds: Option<usize>,
    /// The source model: a file, a run folder or a name.
    #[arg(long, value_name = "FILE|DIR")]
    pub(crate) source: Option<PathBuf>,
    /// The target images: a folder or a name.
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// A setting of every method; may be given again.
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Weights of the network that measures images of a folder, as for `evaluate`.
    #[arg(long, value_name = "NETWORK=FILE")]
    pub(crate) weights: Vec<String>,
    /// Runs at once, each on its share of the threads; as many as fit into memory if not given.
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub(crate) jobs: Option<usize>,
    /// Folder of runs, samples and tables; finished ones are not repeated. `runs/compare-NAME` if not given.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
}

pub(crate) fn compare(args: &CompareArgs) -> Result<ExitCode> {
    let Some(comparison) = args.comparison.as_ref().filter(|_| !args.list) else {
        return list(&COMPARISONS);
    };
    let text = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
    let options = CompareOptions {
        comparison: comparison.clone(),
        seeds: args.seeds,
        source: text(&args.source),
        data: text(&args.data),
        set: args.set.clone(),
        weights: Weights::parse(&args.weights)?,
        jobs: args.jobs,
        out: args.out.clone(),
    };
    match job("compare", |context| compare_methods(&options, context))? {
        Some(report) => {
            print(&report)?;
            page_of(&report)?;
            Ok(ExitCode::SUCCESS)
        }
        None => {
            console::line("interrupted; the same command continues from here")?;
            Ok(ExitCode::from(INTERRUPTED))
        }
    }
}
