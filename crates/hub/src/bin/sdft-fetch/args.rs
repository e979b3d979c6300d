use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Checkpoints and data sets from the Hugging Face Hub, verified; images made ready for training.
#[derive(Debug, Parser)]
#[command(name = "sdft-fetch", version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Bring files into the cache of the Hugging Face client.
    #[command(after_help = FETCH_HELP)]
    Fetch(FetchArgs),
    /// Turn parquet tables, zip files and folders of images into a checked set of squares.
    #[command(after_help = PREPARE_HELP)]
    Prepare(PrepareArgs),
}

const FETCH_HELP: &str = "\
The environment counts as for the Python client: HF_ENDPOINT, HF_HOME, HF_HUB_CACHE, HF_TOKEN, HF_HUB_OFFLINE.

Examples:
  cargo xtask fetch --list
  cargo xtask fetch ffhq-10m inception
  cargo xtask fetch --all-for metfaces
  cargo xtask fetch hf:owner/repo@main/model.safetensors
  cargo xtask fetch hf:datasets/owner/repo@refs/convert/parquet/default/train/";

const PREPARE_HELP: &str = "\
Examples:
  cargo xtask data prepare metfaces --exclude glasses.txt
  cargo xtask data prepare photos/ more.zip --size 128 --out data/photos-128
  cargo xtask data prepare mnist";

#[derive(Debug, Args)]
pub(crate) struct FetchArgs {
    /// Names of the list, or files of the Hub: `hf:OWNER/NAME[@REVISION]/PATH`, with `hf:datasets/` for data sets; a PATH that ends in / is a
    /// folder.
    #[arg(value_name = "NAME|hf:..")]
    pub(crate) names: Vec<String>,
    /// Everything that an experiment uses: metfaces or aahq.
    #[arg(long, value_name = "EXPERIMENT")]
    pub(crate) all_for: Option<String>,
    /// Print the list, with what is here already, and leave.
    #[arg(long, conflicts_with = "all_for")]
    pub(crate) list: bool,
    /// Do not use the network: only verify what is here.
    #[arg(long)]
    pub(crate) offline: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PrepareArgs {
    /// Folders, .zip files, .parquet files, or the name of a data set of the list, which is fetched.
    #[arg(value_name = "NAME|PATH", required = true)]
    pub(crate) inputs: Vec<String>,
    /// Side of the images in pixels; 256 if not given, 32 for mnist, fashion-mnist and cifar10.
    #[arg(long, value_name = "PIXELS")]
    pub(crate) size: Option<usize>,
    /// Where the set goes; data/NAME-SIZE if not given.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// A text file with a name or a SHA-256 a line: images to leave out.
    #[arg(long, value_name = "FILE")]
    pub(crate) exclude: Option<PathBuf>,
    /// Fail if an image cannot be used, instead of leaving it out.
    #[arg(long)]
    pub(crate) strict: bool,
    /// Threads; all cores if not given.
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub(crate) threads: Option<usize>,
    /// Do not use the network.
    #[arg(long)]
    pub(crate) offline: bool,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n) if (1..=4096).contains(&n) => Ok(n),
        _ => Err("expected a number from 1 to 4096".into()),
    }
}
