//! Arguments of `reproduce`.

use crate::parse::{at_least_one, whole_from};
use clap::{Args, ValueEnum};
use sdft_features::InceptionResize;
use std::path::PathBuf;

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Experiment {
    /// The embedded emoji in about an hour, without downloads: Tables 1 to 4, with true answers.
    Emoji,
    /// SDFT and its ablations on the emoji with several values of lambda; one seed.
    EmojiLambda,
    /// The embedded digits in minutes, without downloads: Tables 1 to 4 in small.
    Digits,
    /// The paper's Table 1: domain translation, measured.
    Table1,
    /// The paper's Table 2: text-guided editing; directions are trained, applied and measured.
    Table2,
    /// The paper's Table 3: unconditional samples of scratch, naive and SDFT.
    Table3,
    /// The paper's Table 4: constant and Min-SNR-5 weights against SDFT's.
    Table4,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TargetArg {
    Metfaces,
    Aahq,
}

#[derive(Debug, Args)]
pub(crate) struct ReproduceArgs {
    /// Which experiment.
    #[arg(value_enum)]
    pub(crate) experiment: Experiment,
    /// `emoji` and `digits`: number of seeds, 3 if not given. `emoji-lambda`: 1 if not given.
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub(crate) seeds: Option<usize>,
    /// Tables: which target.
    #[arg(long, value_enum, default_value = "metfaces")]
    pub(crate) target: TargetArg,
    /// Tables and `emoji`: the source model, a file, a run folder or a name. For `emoji` the embedded one if not given.
    #[arg(long, value_name = "FILE|DIR")]
    pub(crate) source: Option<PathBuf>,
    /// Tables: the inputs, 10,000 FFHQ images at 256x256.
    #[arg(long, value_name = "DIR")]
    pub(crate) inputs: Option<PathBuf>,
    /// Tables: all images of the target domain, a folder or an .npz of images.
    #[arg(long, value_name = "DIR|NPZ")]
    pub(crate) data: Option<PathBuf>,
    /// Tables: the run, weights file or folder of outputs of a row; may be given again.
    #[arg(long, value_name = "ROW=PATH")]
    pub(crate) row: Vec<String>,
    /// Tables: only N images of each row, for a quick pass; in Table 2 also for training.
    #[arg(long, value_name = "N", value_parser = whole_from::<u32, 2>)]
    pub(crate) limit: Option<u32>,
    /// Tables: how images are resized for Inception.
    #[arg(long, value_name = "MODE", default_value = "pytorch-fid")]
    pub(crate) resize: InceptionResize,
    /// Tables: weights of the networks that measure, as for `evaluate`.
    #[arg(long, value_name = "NETWORK=FILE")]
    pub(crate) weights: Vec<String>,
    /// Folder of runs, samples and tables; finished ones are not repeated. `runs/reproduce-EXPERIMENT` if not given.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
}
