//! The arguments of `sdft-prepare`.

use std::path::PathBuf;

use clap::Parser;
use sdft_data::ClassesFrom;
use sdft_imaging::{Depth, Fit};
use sdft_prepare::parse_size;

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
    #[arg(long, value_name = "HEIGHTxWIDTH", value_parser = size, allow_negative_numbers = true)]
    pub(crate) size: Option<Size>,
    #[arg(long, value_name = "N", value_parser = whole::<1, 1024>, allow_negative_numbers = true)]
    pub(crate) channels: Option<usize>,
    #[arg(long, value_name = "8|16|float")]
    pub(crate) depth: Option<Depth>,
    #[arg(long, value_name = "crop|pad|resize", value_parser = fit, default_value = "crop")]
    pub(crate) fit: Fit,
    #[arg(long, value_name = "R,G,B", value_parser = colour)]
    pub(crate) background: Option<Colour>,
    #[arg(long, value_name = "folders|FILE")]
    pub(crate) classes: Option<ClassesFrom>,
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

/// Height and width in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size(pub(crate) [usize; 2]);

fn size(text: &str) -> Result<Size, String> {
    let is_valid = |size: &[usize; 2]| size.iter().all(|side| *side <= 65_536);
    let size = parse_size(text).filter(is_valid);
    let expected = "expected a side in pixels or HEIGHTxWIDTH, from 1 to 65536 each";
    size.map(Size).ok_or_else(|| expected.to_owned())
}

fn fit(text: &str) -> Result<Fit, String> {
    match text {
        "crop" => Ok(Fit::Crop),
        "pad" => Ok(Fit::Pad),
        "resize" => Ok(Fit::Resize),
        _ => Err("expected crop, pad or resize".to_owned()),
    }
}

/// Red, green and blue, 0 to 255.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Colour(pub(crate) [u8; 3]);

fn colour(text: &str) -> Result<Colour, String> {
    let levels: Result<Vec<u8>, _> = text
        .split(',')
        .map(|level| level.trim().parse::<u8>())
        .collect();
    let levels = levels.ok().and_then(|levels| levels.try_into().ok());
    let expected = "expected red, green and blue from 0 to 255, such as 255,255,255";
    levels.map(Colour).ok_or_else(|| expected.to_owned())
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
