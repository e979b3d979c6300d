//! Arguments of the command line.

mod evaluate;
mod files;
mod images;
mod training;

pub(crate) use crate::compare::CompareArgs;
pub(crate) use crate::parse::{at_least_one, choice, interval, number, size, whole, whole_from};
pub(crate) use crate::report::ReportArgs;
pub(crate) use crate::reproduce::args::{Experiment, ReproduceArgs};
pub(crate) use crate::shell::{CompletionsArgs, ManArgs};
pub(crate) use evaluate::EvaluateArgs;
pub(crate) use files::{
    ConvertArgs, DtypeArg, FormatArg, InspectArgs, JudgeArgs, JudgedSet, MissingArgs, PreferArg,
};
pub(crate) use images::{ModelArgs, SampleArgs, TranslateArgs};
pub(crate) use training::{AutoencoderArgs, ClassifierArgs, RunArgs, TrainArgs};

use crate::data::args::DataArgs;
use crate::edit::args::EditArgs;
use clap::{Parser, Subcommand, ValueEnum};
use evaluate::EVALUATE_HELP;
use images::{SAMPLE_HELP, TRANSLATE_HELP};
use sdft_cuda::DeviceSpec;
use sdft_train::Precision;
use training::{AUTOENCODER_HELP, CLASSIFIER_HELP, TRAIN_HELP};

/// The heading of the options of every command, which are last in its help.
pub(crate) const GLOBAL: &str = "Global options";

/// Fine-tunes diffusion models on small image sets without forgetting (SDFT), samples them and inspects their files.
#[derive(Debug, Parser)]
#[command(name = "sdft", bin_name = "cargo xtask", version, max_term_width = 100)]
pub(crate) struct Cli {
    /// Threads to compute with; all cores if not given. Models and samples are the same, to the bit, for any number.
    #[arg(long, global = true, help_heading = GLOBAL, value_parser = at_least_one, value_name = "N")]
    pub(crate) threads: Option<usize>,
    /// Do not download missing files.
    #[arg(long, global = true, help_heading = GLOBAL)]
    pub(crate) offline: bool,
    /// Where to compute: auto, cpu, cuda or cuda:N. auto uses a GPU if there is one and this build supports it.
    #[arg(long, global = true, help_heading = GLOBAL, default_value_t = DeviceSpec::Auto, value_name = "PLACE")]
    pub(crate) device: DeviceSpec,
    /// Type of the feature maps; auto is f32 on the CPU (bf16 with AMX, except to train), and bf16 or f16 on a GPU to train or sample.
    #[arg(long, global = true, help_heading = GLOBAL, value_enum, value_name = "TYPE")]
    pub(crate) precision: Option<PrecisionArg>,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum PrecisionArg {
    Auto,
    F32,
    Tf32,
    Bf16,
    F16,
}

impl From<PrecisionArg> for Precision {
    fn from(arg: PrecisionArg) -> Self {
        match arg {
            PrecisionArg::Auto => Self::Auto,
            PrecisionArg::F32 => Self::F32,
            PrecisionArg::Tf32 => Self::Tf32,
            PrecisionArg::Bf16 => Self::Bf16,
            PrecisionArg::F16 => Self::F16,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Fine-tune a source model on a folder of images; without arguments, the embedded example.
    #[command(after_long_help = TRAIN_HELP)]
    Train(TrainArgs),
    /// Draw images from a model.
    #[command(after_long_help = SAMPLE_HELP)]
    Sample(SampleArgs),
    /// Train the classifier of noised images that EGSDE needs, source against target; without arguments, the embedded example's.
    #[command(after_long_help = CLASSIFIER_HELP)]
    TrainClassifier(ClassifierArgs),
    /// Train the autoencoder of latent diffusion models; without arguments, the embedded example's.
    #[command(after_long_help = AUTOENCODER_HELP)]
    TrainAutoencoder(AutoencoderArgs),
    /// Translate images into a model's domain; without arguments, the embedded example.
    #[command(after_long_help = TRANSLATE_HELP)]
    Translate(TranslateArgs),
    /// Edit images by a text, or train such an edit; without arguments, the embedded example.
    Edit(EditArgs),
    /// Show what a weights file holds: architecture, parameters, metadata.
    Inspect(InspectArgs),
    /// Convert a model to .safetensors, or to a folder of diffusers.
    Convert(ConvertArgs),
    /// Check, select and prepare images.
    Data(DataArgs),
    /// Show what this machine has and what will be used.
    Doctor,
    /// List as JSON the named files that a command needs and that are missing.
    #[command(hide = true)]
    Missing(MissingArgs),
    /// Train the small classifier that judges samples of the digits or emoji.
    #[command(hide = true)]
    Judge(JudgeArgs),
    /// Measure images: two sets (FID, KID, ..), or inputs and outputs (PSNR, SSIM, LPIPS, ..).
    #[command(after_long_help = EVALUATE_HELP)]
    Evaluate(EvaluateArgs),
    /// Repeat a documented experiment and print its table.
    Reproduce(ReproduceArgs),
    /// Train methods of fine-tuning next to each other, several seeds each, and print one table of quality and cost.
    Compare(CompareArgs),
    /// Write one page with the curves, pictures, settings and numbers of folders of results.
    Report(ReportArgs),
    /// Print the completions of a shell.
    Completions(CompletionsArgs),
    /// Write the pages for `man`.
    Man(ManArgs),
}
