//! Arguments of `data`.

use crate::args::{choice, number, size, whole_from};
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};
use sdft_data::{ClassesFrom, Pages};
use sdft_imaging::{Depth, Fit};
use sdft_jobs::ClipModel;
use std::path::PathBuf;
use std::str::FromStr;

#[derive(Debug, Args)]
pub(crate) struct DataArgs {
    #[command(subcommand)]
    pub(crate) verb: DataVerb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DataVerb {
    /// Decode every image of a folder and report broken, duplicate and unusual images; say what `emoji` or `digits` hold.
    Check(CheckArgs),
    /// Turn parquet tables, zip and tar files and folders of images into a checked set of one size (done by `sdft-prepare`).
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

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// The folder, or `emoji` or `digits` for images in the program.
    pub(crate) dir: PathBuf,
    /// Size that the images will have in training: height and width, or the side of a square.
    #[arg(long, value_name = "HEIGHTxWIDTH", value_parser = size, default_value = "256")]
    pub(crate) size: [usize; 2],
    /// How images get the size.
    #[arg(long, value_parser = fit(), default_value = "crop")]
    pub(crate) fit: Fit,
    /// Number of channels; alpha counts only in 4. The default is what all images share, or 3.
    #[arg(long, value_name = "N", value_parser = whole_from::<usize, 1>)]
    pub(crate) channels: Option<usize>,
    /// 8, 16 or float. The default is what all images share, or 8.
    #[arg(long)]
    pub(crate) depth: Option<Depth>,
    /// The values that become -1 and 1, such as 0,4095 for 12 bits. The default is the full range of the depth.
    #[arg(long, value_name = "LOW,HIGH", value_parser = numbers::<f64, 2>, allow_hyphen_values = true)]
    pub(crate) range: Option<[f64; 2]>,
    /// The colour under transparent pixels and around padded images: red, green and blue from 0 to 255.
    #[arg(long, value_name = "R,G,B", value_parser = numbers::<u8, 3>, default_value = "255,255,255")]
    pub(crate) background: [u8; 3],
    /// What the pages of a file are.
    #[arg(long, value_parser = pages(), default_value = "images")]
    pub(crate) pages: Pages,
    /// Where the classes are: `folders` (each subfolder is a class), or a CSV or JSON file with the label of each image.
    #[arg(long, value_name = "folders|FILE")]
    pub(crate) classes: Option<ClassesFrom>,
    /// A folder with a mask for each image, with the same name: dark areas are left out of the loss.
    #[arg(long, value_name = "DIR")]
    pub(crate) masks: Option<PathBuf>,
    /// Fail if an image cannot be read.
    #[arg(long)]
    pub(crate) strict: bool,
    /// List every file: used, or why not.
    #[arg(long, conflicts_with = "json")]
    pub(crate) list: bool,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

impl CheckArgs {
    /// Whether an option says how files are read.
    pub(crate) fn reads_files(&self) -> bool {
        let form = (self.size, self.fit, self.background, self.pages);
        form != ([256; 2], Fit::Crop, [255; 3], Pages::Images)
            || self.channels.is_some()
            || self.depth.is_some()
            || self.range.is_some()
            || self.classes.is_some()
            || self.masks.is_some()
            || self.strict
    }
}

fn fit() -> impl TypedValueParser<Value = Fit> {
    named([
        ("crop", "cover the size, and take the middle", Fit::Crop),
        (
            "random-crop",
            "cover the size, and take a random part each time",
            Fit::RandomCrop,
        ),
        (
            "pad",
            "fit inside, on the background; padding does not count in the loss",
            Fit::Pad,
        ),
        ("resize", "stretch", Fit::Resize),
    ])
}

fn pages() -> impl TypedValueParser<Value = Pages> {
    named([
        ("images", "each page is an image", Pages::Images),
        (
            "channels",
            "the pages are the channels of one image",
            Pages::Channels,
        ),
        ("first", "only the first page is used", Pages::First),
    ])
}

/// One of some values by their names; each has an explanation.
fn named<T: Copy + Send + Sync + 'static, const N: usize>(
    all: [(&'static str, &'static str, T); N],
) -> impl TypedValueParser<Value = T> {
    let values = all.map(|(name, about, _)| PossibleValue::new(name).help(about));
    PossibleValuesParser::new(values).try_map(move |name| {
        let found = all.iter().find(|(known, ..)| *known == name);
        found
            .map(|&(.., value)| value)
            .ok_or("not one of the values")
    })
}

/// `N` numbers with commas between them.
fn numbers<T: FromStr + Copy, const N: usize>(text: &str) -> Result<[T; N], String> {
    let all: Option<Vec<T>> = text.split(',').map(|n| n.trim().parse().ok()).collect();
    let expected = || format!("expected {N} numbers with commas between them");
    all.and_then(|all| all.try_into().ok()).ok_or_else(expected)
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
