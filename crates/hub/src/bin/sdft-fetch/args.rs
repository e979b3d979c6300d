//! The arguments of `sdft-fetch`.

use std::path::PathBuf;

use clap::{Parser, builder::RangedU64ValueParser};

/// The text of `--help`, which `cargo xtask fetch --help` prints without building this program.
const HELP: &str = include_str!("help.txt");

#[derive(Debug, Parser)]
#[command(
    name = "sdft-fetch",
    bin_name = "cargo xtask fetch",
    version,
    override_help = HELP
)]
pub(crate) struct Args {
    #[arg(value_name = "NAME|hf:..")]
    pub(crate) names: Vec<String>,
    #[arg(long, value_name = "EXPERIMENT")]
    pub(crate) all_for: Option<String>,
    #[arg(long, conflicts_with = "all_for")]
    pub(crate) list: bool,
    #[arg(long)]
    pub(crate) offline: bool,
    /// Prepare a set of ten classes. `cargo xtask data prepare mnist` passes this and the options below.
    #[arg(long, hide = true, value_name = "NAME", conflicts_with_all = ["names", "all_for", "list"])]
    pub(crate) pair: Option<String>,
    #[arg(long, hide = true, requires = "pair")]
    pub(crate) out: Option<PathBuf>,
    #[arg(long, hide = true, requires = "pair")]
    pub(crate) exclude: Option<PathBuf>,
    #[arg(long, hide = true, requires = "pair")]
    pub(crate) strict: bool,
    #[arg(long, hide = true, requires = "pair", value_parser = RangedU64ValueParser::<usize>::new().range(1..=4096))]
    pub(crate) threads: Option<usize>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn threads_are_one_to_4096() {
        let parse =
            |n: &str| Args::try_parse_from(["sdft-fetch", "--pair", "mnist", "--threads", n]);
        for n in ["1", "4096"] {
            assert_eq!(parse(n).unwrap().threads, n.parse().ok());
        }
        for n in ["0", "4097", "99999999999999999999", "x"] {
            assert_eq!(parse(n).unwrap_err().exit_code(), 2, "{n}");
        }
    }

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
