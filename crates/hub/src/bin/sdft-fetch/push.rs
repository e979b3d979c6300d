//! `sdft-fetch push RUN OWNER/NAME`: publishes a model.

use std::{
    io::{IsTerminal as _, Write as _},
    path::PathBuf,
};

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use sdft_hub::{Publication, Settings, Target, write_card};
use sdft_runtime::{note, print_line, usage};

use crate::bars::Bars;

/// The text of `--help`, which `cargo xtask push --help` prints without building this program.
const HELP: &str = include_str!("push-help.txt");

#[derive(Debug, Parser)]
#[command(
    name = "sdft-fetch push",
    bin_name = "cargo xtask push",
    version,
    override_help = HELP
)]
pub(crate) struct PushArgs {
    #[arg(value_name = "RUN")]
    run: PathBuf,
    #[arg(value_name = "OWNER/NAME")]
    repository: String,
    #[arg(long)]
    private: bool,
    #[arg(long, value_name = "NAME")]
    revision: Option<String>,
    #[arg(long, value_name = "FILE")]
    with: Vec<PathBuf>,
    #[arg(long, conflicts_with_all = ["dry_run", "private", "yes"])]
    card_only: bool,
    #[arg(long)]
    dry_run: bool,
    #[arg(long)]
    yes: bool,
}

pub(crate) fn push(args: &PushArgs) -> Result<()> {
    let target = Target::parse(&args.repository, args.revision.as_deref());
    let target = target.map_err(|error| usage(error.to_string()))?;
    if args.card_only {
        let path = write_card(&args.run, &target, &args.with)?;
        note("complete the places marked TO FILL IN; this file is published as it is:");
        return print_line(path.display());
    }
    let publication = Publication::of(&args.run, target, &args.with)?;
    if !args.dry_run {
        Settings::from_environment()?.check_for_publishing()?;
    }
    print_line(publication.describe())?;
    if publication.has_gaps() {
        note(format_args!(
            "README.md has places marked TO FILL IN, the license among them; --card-only writes it to {} to be completed",
            args.run.display()
        ));
    }
    if args.dry_run {
        note("--dry-run: nothing was sent");
        return Ok(());
    }
    if !args.yes {
        confirm()?;
    }
    let settings = Settings::from_environment()?;
    let address = publication.upload(&settings, args.private, &mut Bars::default())?;
    note("published:");
    print_line(address)
}

/// Asks on a terminal whether to publish.
fn confirm() -> Result<()> {
    if !(std::io::stdin().is_terminal() && std::io::stderr().is_terminal()) {
        return Err(usage(
            "nothing was sent: there is no terminal to ask on; --yes publishes without a question",
        ));
    }
    let mut stderr = std::io::stderr();
    // A question that cannot be written is answered with no.
    let _ = write!(stderr, "publish these files? [y/N] ");
    let _ = stderr.flush();
    let mut answer = String::new();
    std::io::stdin()
        .read_line(&mut answer)
        .context("standard input")?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => bail!("nothing was sent"),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_help_names_every_option_and_no_other() {
        let command = PushArgs::command();
        let options = command.get_arguments().filter_map(|arg| arg.get_long());
        let mut known: Vec<String> = options.map(|name| format!("--{name}")).collect();
        known.extend(["--help", "--version"].map(str::to_owned));
        known.sort();
        assert_eq!(sdft_runtime::listed_options(HELP), known);
    }
}
