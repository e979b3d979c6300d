//! Arguments of `train` and `train-classifier`, and those that `edit train` shares with them.

use super::{at_least_one, whole};
use clap::{Args, ValueEnum};
use sdft_jobs::{AutoencoderTrainOptions, ClassifierOptions, RunOptions, TrainOptions};
use sdft_train::{Method, Size};
use std::path::PathBuf;

pub(super) const TRAIN_HELP: &str = "\
Examples:
  cargo xtask train
  cargo xtask train --source ffhq-10m --data photos --dry-run
  cargo xtask train --config metfaces-sdft --steps 20000
  cargo xtask train --resume runs/photos-sdft";

pub(super) const CLASSIFIER_HELP: &str = "\
Without other settings it is EGSDE's recipe: 5000 steps of 32 images; the paper uses 1500 for MetFaces, 4500 for AAHQ.

A model on latents whose file does not state its autoencoder is converted first, and the result is given as --model:
  cargo xtask convert dit.pt dit.safetensors --autoencoder sd-vae-ft-mse

Examples:
  cargo xtask train-classifier --model runs/metfaces-sdft --source faces --target metfaces --init 256x256_classifier.pt --steps 1500
  cargo xtask train-classifier --source faces --target metfaces --set loop.micro_batch=4 --dry-run";

pub(super) const AUTOENCODER_HELP: &str = "\
The autoencoder is diffusers' AutoencoderKL. The loss is the absolute error, a perceptual distance and the KL divergence, as in latent
diffusion, without a discriminator. `--set loss.perceptual` takes lpips-vgg, lpips-alex, judge (embedded images only) or none.
The finished file has the scaling factor of its latents; reconstruction.json has the PSNR of held-out images.

Examples:
  cargo xtask train-autoencoder
  cargo xtask train-autoencoder --data photos --size 256 --steps 50000 --set loop.micro_batch=4 --dry-run";

/// The arguments of every command that trains.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// A preset (see `--list`) or a TOML file; may be given again, later ones override earlier ones.
    #[arg(long, value_name = "NAME|FILE")]
    pub(crate) config: Vec<String>,
    /// List the presets and exit.
    #[arg(long)]
    pub(crate) list: bool,
    /// Optimizer steps.
    #[arg(long, value_name = "N", value_parser = whole::<u64>)]
    pub(crate) steps: Option<u64>,
    /// Images per step.
    #[arg(long, value_name = "N", value_parser = whole::<u64>)]
    pub(crate) batch: Option<u64>,
    /// Seed of every random number.
    #[arg(long, value_name = "N", value_parser = whole::<u64>)]
    pub(crate) seed: Option<u64>,
    /// Name of the run and of its folder.
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Where run folders go.
    #[arg(long, value_name = "DIR", default_value = "runs")]
    pub(crate) out: PathBuf,
    /// Any other setting, as in the TOML file: `--set optim.lr=1e-4`.
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Fail if an image cannot be read, instead of leaving it out.
    #[arg(long)]
    pub(crate) strict: bool,
    /// Continue the run in this folder.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["config", "batch", "seed", "name", "list", "strict", "out"])]
    pub(crate) resume: Option<PathBuf>,
    /// Print the plan with its time, memory and disk space, and exit.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

impl RunArgs {
    /// The options of the library.
    pub(crate) fn options(&self) -> RunOptions {
        RunOptions {
            config: self.config.clone(),
            steps: self.steps,
            batch: self.batch,
            seed: self.seed,
            name: self.name.clone(),
            out: self.out.clone(),
            set: self.set.clone(),
            strict: self.strict,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum MethodArg {
    Scratch,
    Naive,
    Sdft,
}

#[derive(Debug, Args)]
pub(crate) struct TrainArgs {
    /// The source model: a .pt or .safetensors file, a run folder, or a name such as `ffhq-10m` (`cargo xtask fetch --list`) or
    /// `emoji-source`. With --resume, where the same file is now.
    #[arg(long, value_name = "FILE|DIR")]
    pub(crate) source: Option<String>,
    /// The part of the source file to take if it holds several, as `inspect` lists them.
    #[arg(long, alias = "key", value_name = "KEY", conflicts_with = "resume")]
    pub(crate) source_key: Option<String>,
    /// Train on the latents of this autoencoder instead of on images: a file, a folder of diffusers, or a name such as `sd-vae-ft-mse`. The
    /// default is that of the source model.
    #[arg(long, value_name = "FILE|DIR", conflicts_with = "resume")]
    pub(crate) autoencoder: Option<String>,
    /// The images: a folder, or a name such as `metfaces`, `emoji` or `digits`. With --resume, where the same images are now.
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<String>,
    /// How to train.
    #[arg(long, value_enum, conflicts_with = "resume")]
    pub(crate) method: Option<MethodArg>,
    /// Height and width of the images: 256, or HEIGHTxWIDTH such as 192x256. The default is the model's.
    #[arg(long, value_name = "HEIGHTxWIDTH", conflicts_with = "resume")]
    pub(crate) size: Option<Size>,
    /// Train with classes: `folders` takes the subfolders of the images, a CSV or JSON file has a label for each image.
    #[arg(long, value_name = "folders|FILE", conflicts_with = "resume")]
    pub(crate) classes: Option<String>,
    /// Start N processes, each with a GPU of its own, that share every batch.
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub(crate) gpus: Option<usize>,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

impl TrainArgs {
    /// The options of the library.
    pub(crate) fn options(&self) -> TrainOptions {
        TrainOptions {
            run: self.run.options(),
            source: self.source.clone(),
            source_key: self.source_key.clone(),
            autoencoder: self.autoencoder.clone(),
            data: self.data.clone(),
            method: self.method.map(|method| match method {
                MethodArg::Scratch => Method::Scratch,
                MethodArg::Naive => Method::Naive,
                MethodArg::Sdft => Method::Sdft,
            }),
            size: self.size,
            classes: self.classes.clone(),
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct ClassifierArgs {
    /// The images that translations start from: a folder, `emoji` or `digits`. With --resume, where the same images are now; --target and --init
    /// likewise.
    #[arg(long, value_name = "DIR")]
    pub(crate) source: Option<String>,
    /// The images of the target domain.
    #[arg(long, value_name = "DIR")]
    pub(crate) target: Option<String>,
    /// The model that the classifier will guide; its image size and noise schedule are used.
    #[arg(long, value_name = "FILE|DIR", conflicts_with = "resume")]
    pub(crate) model: Option<String>,
    /// A classifier whose trunk is the start, such as 256x256_classifier.pt of guided-diffusion; tensors are taken by name and shape.
    #[arg(long, value_name = "FILE|DIR")]
    pub(crate) init: Option<String>,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

impl ClassifierArgs {
    /// The options of the library.
    pub(crate) fn options(&self) -> ClassifierOptions {
        ClassifierOptions {
            run: self.run.options(),
            source: self.source.clone(),
            target: self.target.clone(),
            model: self.model.clone(),
            init: self.init.clone(),
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct AutoencoderArgs {
    /// The images: a folder, `emoji` or `digits`. With --resume, where the same images are now.
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<String>,
    /// Height and width of the images, as 256 or 192x256.
    #[arg(long, value_name = "HEIGHTxWIDTH", conflicts_with = "resume")]
    pub(crate) size: Option<Size>,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

impl AutoencoderArgs {
    /// The options of the library.
    pub(crate) fn options(&self) -> AutoencoderTrainOptions {
        AutoencoderTrainOptions {
            run: self.run.options(),
            data: self.data.clone(),
            size: self.size,
        }
    }
}
