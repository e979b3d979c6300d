//! Arguments of `data`.

use crate::args::{choice, number, whole_from};
use clap::{Args, Subcommand};
use sdft_jobs::ClipModel;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(crate) struct DataArgs {
    #[command(subcommand)]
    pub(crate) verb: DataVerb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DataVerb {
    /// Decode every image of a folder and report broken, duplicate and unusual images.
    Check {
        /// The folder.
        dir: PathBuf,
        /// Side that the images will have in training.
        #[arg(long, value_name = "PIXELS", value_parser = whole_from::<usize, 1>, default_value_t = 256)]
        size: usize,
        /// Fail if an image cannot be read.
        #[arg(long)]
        strict: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Turn parquet tables, zip files and folders of images into a checked set of squares (done by `sdft-prepare`).
    #[command(disable_help_flag = true)]
    Prepare {
        /// Inputs and options.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Rank images by their similarity to a text (CLIP), and copy the nearest.
    #[command(after_long_help = SELECT_HELP)]
    Select(SelectArgs),
}

const SELECT_HELP: &str = "\
Writes scores.csv (all images, best first), selection.txt, the chosen images under images/, and a contact sheet of the best,
the last taken and the first left out. To drop some by hand, remove them from images/.

Examples (the paper's limited AAHQ):
  cargo xtask data select data/aahq-256 --prompt 'A realistic painting of an expressionless man without glasses' --top 1437
  cargo xtask data select data/aahq-256 --prompt 'A realistic painting of an expressionless man without glasses' --threshold 0.27";

#[derive(Debug, Args)]
pub(crate) struct SelectArgs {
    /// The images: a folder, or the name of a prepared set.
    #[arg(value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// What the images should show.
    #[arg(long, value_name = "TEXT")]
    pub(crate) prompt: String,
    /// How many to take.
    #[arg(long, value_name = "N", value_parser = whole_from::<usize, 1>, required_unless_present = "threshold")]
    pub(crate) top: Option<usize>,
    /// The least cosine similarity, -1 to 1; 0.2 to 0.3 is usual.
    #[arg(
        long,
        value_name = "X",
        value_parser = number,
        conflicts_with = "top"
    )]
    pub(crate) threshold: Option<f64>,
    /// Folder of the result; `DIR-selected` if not given.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Replace the files of an earlier selection.
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// CLIP's network.
    #[arg(long, value_parser = choice::<ClipModel>(), default_value = "b32")]
    pub(crate) clip: ClipModel,
    /// Its weights and tokenizer from files instead of the cache: `clip-b32=model.safetensors`, `clip-b32=tokenizer.json`.
    #[arg(long, value_name = "NETWORK=FILE")]
    pub(crate) weights: Vec<String>,
}
