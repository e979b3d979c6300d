//! Arguments of `evaluate`.

use super::{at_least_one, choice, whole, whole_from};
use clap::Args;
use sdft_eval::{Pairing, SetFeatures};
use sdft_features::{InceptionResize, LpipsNet};
use sdft_jobs::{ClipModel, PairPart, parse_range};
use std::path::PathBuf;

pub(super) const EVALUATE_HELP: &str = "\
Examples:
  cargo xtask evaluate --real metfaces --fake samples
  cargo xtask evaluate --real metfaces.npz --fake samples --resize clean-fid --out report
  cargo xtask evaluate --real metfaces --fake samples --features dinov2
  cargo xtask evaluate --real babies --fake samples --intra-lpips ten-babies
  cargo xtask evaluate --pairs ffhq translated --size 256 --without identity
  cargo xtask evaluate --pairs xrays restored --range 0,4095 --without lpips,identity
  cargo xtask evaluate --pairs faces smiling --text face 'smiling face'
  cargo xtask evaluate --real digits --fake samples";

#[derive(Debug, Args)]
pub(crate) struct EvaluateArgs {
    /// The real images: a folder, an .npz of statistics (mu, sigma) or images (arr_0), an .npy or TIFF of many images, or
    /// `digits` or `emoji`.
    #[arg(long, value_name = "DIR|FILE", requires = "fake")]
    pub(crate) real: Option<PathBuf>,
    /// The generated images: a folder, an .npz, an .npy or a TIFF.
    #[arg(long, value_name = "DIR|FILE", requires = "real")]
    pub(crate) fake: Option<PathBuf>,
    /// Inputs and outputs of a translation or an edit.
    #[arg(long, num_args = 2, value_names = ["INPUT", "OUTPUT"], conflicts_with_all = ["real", "fake"])]
    pub(crate) pairs: Option<Vec<PathBuf>>,
    /// With --pairs: the directional CLIP similarity of an edit from one text to another.
    #[arg(long, num_args = 2, value_names = ["FROM", "TO"], requires = "pairs")]
    pub(crate) text: Option<Vec<String>>,
    /// Start N processes, each with a GPU of its own, that share the images.
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub(crate) gpus: Option<usize>,
    /// The network whose features are compared.
    #[arg(
        long,
        value_parser = choice::<SetFeatures>(),
        default_value = "inception",
        conflicts_with = "pairs"
    )]
    pub(crate) features: SetFeatures,
    /// The few training images: Intra-LPIPS, the diversity of the generated images around each.
    #[arg(long, value_name = "DIR", requires = "real")]
    pub(crate) intra_lpips: Option<PathBuf>,
    /// How images are resized to Inception's 299 pixels: `pytorch-fid`, `clean-fid` or `torch-fidelity`.
    #[arg(
        long,
        value_name = "MODE",
        default_value = "pytorch-fid",
        conflicts_with = "pairs"
    )]
    pub(crate) resize: InceptionResize,
    /// Subsets of KID.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = at_least_one, conflicts_with = "pairs", hide_short_help = true)]
    pub(crate) kid_subsets: usize,
    /// Images of a subset of KID; fewer if there are fewer.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = whole_from::<u32, 2>, conflicts_with = "pairs", hide_short_help = true)]
    pub(crate) kid_size: u32,
    /// Seed of the subsets; torch-fidelity's own draw if not given.
    #[arg(long, value_name = "SEED", value_parser = whole::<u32>, conflicts_with = "pairs", hide_short_help = true)]
    pub(crate) kid_seed: Option<u32>,
    /// The neighbour that sets the radius of precision and recall.
    #[arg(long, value_name = "K", default_value_t = 3, value_parser = at_least_one, conflicts_with = "pairs", hide_short_help = true)]
    pub(crate) neighbours: usize,
    /// With --pairs: resize the short side of every image to this many pixels first.
    #[arg(long, value_name = "PIXELS", requires = "pairs", value_parser = at_least_one)]
    pub(crate) size: Option<usize>,
    /// The lowest and the highest possible value of images of 16 bits and of floats. If not given: that of the file or the type, 0,1 of
    /// floats.
    #[arg(long, value_name = "LOW,HIGH", value_parser = parse_range, allow_hyphen_values = true)]
    pub(crate) range: Option<[f64; 2]>,
    /// With --pairs: which images belong together.
    #[arg(long, value_parser = choice::<Pairing>(), default_value = "name", requires = "pairs")]
    pub(crate) pair_by: Pairing,
    /// With --pairs: skip measures whose weights are missing.
    #[arg(
        long,
        value_parser = choice::<PairPart>(),
        value_delimiter = ',',
        value_name = "PART,..",
        requires = "pairs"
    )]
    pub(crate) without: Vec<PairPart>,
    /// LPIPS's network.
    #[arg(
        long,
        value_parser = choice::<LpipsNet>(),
        default_value = "alex",
        requires = "pairs",
        hide_short_help = true
    )]
    pub(crate) lpips: LpipsNet,
    /// CLIP's network.
    #[arg(
        long,
        value_parser = choice::<ClipModel>(),
        default_value = "b16",
        requires = "text",
        hide_short_help = true
    )]
    pub(crate) clip: ClipModel,
    /// Weights from a file instead of the cache of the Hugging Face client; may be given again, also for one network in several files.
    #[arg(long, value_name = "NETWORK=FILE")]
    pub(crate) weights: Vec<String>,
    /// Folder of report.json and report.csv, and of neighbours.png if both sides are folders.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Replace the files of an earlier evaluation.
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// Print JSON instead of the table.
    #[arg(long)]
    pub(crate) json: bool,
    /// Write the statistics of the real images as pytorch-fid does.
    #[arg(long, value_name = "NPZ", requires = "real", hide_short_help = true)]
    pub(crate) save_real: Option<PathBuf>,
    /// Write the statistics of the generated images.
    #[arg(long, value_name = "NPZ", requires = "real", hide_short_help = true)]
    pub(crate) save_fake: Option<PathBuf>,
    /// Folder of cached feature vectors; `sdft/features` in the user's cache folder if not given.
    #[arg(long, value_name = "DIR", hide_short_help = true)]
    pub(crate) cache: Option<PathBuf>,
    /// Do not cache feature vectors.
    #[arg(long, conflicts_with = "cache", hide_short_help = true)]
    pub(crate) no_cache: bool,
}
