//! The arguments of `sdft-prepare`.

use std::path::PathBuf;

use clap::Parser;

/// The text of `--help`, which `cargo xtask data prepare --help` prints without building this program.
const HELP: &str = include_str!("help.txt");

#[derive(Debug, Parser)]
#[command(
    name = "sdft-prepare",
    bin_name = "cargo xtask data prepare",
    version,
    override_help = HELP
)]
pub(crate) struct Args {
    #[arg(value_name = "NAME|PATH", required = true)]
    pub(crate) inputs: Vec<String>,
    #[arg(long, value_name = "PIXELS", value_parser = whole::<1, 65_536>, allow_negative_numbers = true)]
    pub(crate) size: Option<usize>,
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    #[arg(long, value_name = "FILE")]
    pub(crate) exclude: Option<PathBuf>,
    #[arg(long)]
    pub(crate) strict: bool,
    #[arg(long, value_name = "N", value_parser = whole::<1, 4096>, allow_negative_numbers = true)]
    pub(crate) threads: Option<usize>,
    #[arg(long)]
    pub(crate) offline: bool,
    /// Print as JSON what must be fetched first, and exit; `cargo xtask` passes this.
    #[arg(long, hide = true)]
    pub(crate) missing: bool,
}

/// Parses a whole number from `MIN` to `MAX`.
fn whole<const MIN: usize, const MAX: usize>(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n) if (MIN..=MAX).contains(&n) => Ok(n),
        _ => Err(format!("expected a whole number from {MIN} to {MAX}")),
    }
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
        known.extend(["--help", "--version"].map(str::to_owned));
        known.sort();
        assert_eq!(sdft_runtime::listed_options(HELP), known);
    }
}
