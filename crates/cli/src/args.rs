use crate::data::args::DataArgs;
use crate::edit::args::EditArgs;
pub(crate) use crate::parse::{at_least_one, choice, number, whole, whole_from};
pub(crate) use crate::reproduce::args::{Experiment, ReproduceArgs};
use clap::{Args, Parser, Subcommand, ValueEnum};
use sdft_cuda::DeviceSpec;
use sdft_eval::Pairing;
use sdft_features::{InceptionResize, LpipsNet};
use sdft_jobs::{
    ClassifierOptions, ClipModel, EnergyKind, PairPart, RunOptions, SamplerKind, TrainOptions,
    TranslationMethod, WalkKind,
};
use sdft_train::{Method, Precision};
use std::path::PathBuf;

/// The options of every command, which stand last in its help.
pub(crate) const GLOBAL: &str = "Global options";

/// Fine-tunes diffusion models on small image sets without forgetting (SDFT), samples them and looks into their files.
#[derive(Debug, Parser)]
#[command(name = "sdft", bin_name = "cargo xtask", version, max_term_width = 100)]
pub(crate) struct Cli {
    /// Threads to compute with; all cores if not given. Models and samples do not depend on it, to the bit.
    #[arg(long, global = true, help_heading = GLOBAL, value_parser = at_least_one, value_name = "N")]
    pub(crate) threads: Option<usize>,
    /// Do not fetch what is missing.
    #[arg(long, global = true, help_heading = GLOBAL)]
    pub(crate) offline: bool,
    /// Where to compute: auto, cpu, cuda or cuda:N. auto takes a GPU if this build can use it and there is one.
    #[arg(long, global = true, help_heading = GLOBAL, default_value_t = DeviceSpec::Auto, value_name = "PLACE")]
    pub(crate) device: DeviceSpec,
    /// Numbers of the feature maps; auto is f32 on the CPU, and bf16 (or f16) on a GPU where a model trains or draws.
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
    Train(TrainArgs),
    /// Draw images from a model.
    Sample(SampleArgs),
    /// Train the classifier of noised images that EGSDE needs, source against target; without arguments, the embedded example's.
    #[command(after_long_help = CLASSIFIER_HELP)]
    TrainClassifier(ClassifierArgs),
    /// Bring images into a model's domain; without arguments, the embedded example.
    #[command(after_long_help = TRANSLATE_HELP)]
    Translate(TranslateArgs),
    /// Edit images by a text, or train what does; without arguments, the embedded example.
    Edit(EditArgs),
    /// Say what is in a weights file: architecture, parameters, metadata.
    Inspect(InspectArgs),
    /// Turn a .pt file into .safetensors.
    Convert(ConvertArgs),
    /// Look at data, choose from it, make it ready.
    Data(DataArgs),
    /// Say what this machine has and what will be used.
    Doctor,
    /// Say as JSON what a command needs by name that is not here.
    #[command(hide = true)]
    Missing(MissingArgs),
    /// Train the small classifier that judges digit samples.
    #[command(hide = true)]
    Judge(JudgeArgs),
    /// Measure images: two sets (FID, KID, ..), or inputs and outputs (PSNR, SSIM, LPIPS, ..).
    #[command(after_long_help = EVALUATE_HELP)]
    Evaluate(EvaluateArgs),
    /// Repeat a documented experiment and print its table.
    Reproduce(ReproduceArgs),
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum MethodArg {
    Scratch,
    Naive,
    Sdft,
}

/// What every command takes that makes a run.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// A preset (see `--list`) or a TOML file; may be given again, later ones override earlier ones.
    #[arg(long, value_name = "NAME|FILE")]
    pub(crate) config: Vec<String>,
    /// List the presets and leave.
    #[arg(long)]
    pub(crate) list: bool,
    /// Optimiser steps.
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
    /// Stop if an image cannot be read, instead of leaving it out.
    #[arg(long)]
    pub(crate) strict: bool,
    /// Go on with the run in this folder.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["config", "batch", "seed", "name", "list", "strict", "out"])]
    pub(crate) resume: Option<PathBuf>,
    /// Print the plan with its time, memory and disk, and leave.
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

#[derive(Debug, Args)]
pub(crate) struct TrainArgs {
    /// The source model: a .pt or .safetensors file, a run folder, or a name as `ffhq-10m` (`cargo xtask fetch --list`) or
    /// `digits-source`. With --resume, where the same file is now.
    #[arg(long, value_name = "FILE|DIR")]
    pub(crate) source: Option<String>,
    /// The part of the source file to take where it holds several, as `inspect` lists them.
    #[arg(long, value_name = "KEY", conflicts_with = "resume")]
    pub(crate) source_key: Option<String>,
    /// The images: a folder, or a name as `metfaces` or `digits`. With --resume, where the same images are now.
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<String>,
    /// What to train.
    #[arg(long, value_enum, conflicts_with = "resume")]
    pub(crate) method: Option<MethodArg>,
    /// Start so many processes, each with a GPU of its own, that share every batch.
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
            data: self.data.clone(),
            method: self.method.map(|method| match method {
                MethodArg::Scratch => Method::Scratch,
                MethodArg::Naive => Method::Naive,
                MethodArg::Sdft => Method::Sdft,
            }),
        }
    }
}

/// What files of models may leave open.
#[derive(Debug, Args)]
pub(crate) struct ModelArgs {
    /// Side of the images, for files that do not say; a multiple of what the network halves.
    #[arg(long, value_name = "PIXELS", value_parser = whole_from::<usize, 1>, hide_short_help = true)]
    pub(crate) image_size: Option<usize>,
    /// The part of the model's file to take where it holds several.
    #[arg(long, value_name = "KEY", hide_short_help = true)]
    pub(crate) key: Option<String>,
    /// Any field of the architecture that the file does not say: `--set model.norm_groups=8`.
    #[arg(long, value_name = "KEY=VALUE", hide_short_help = true)]
    pub(crate) set: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct SampleArgs {
    /// The model: a weights file, a run folder, or `digits-source`; the newest finished run if not given.
    #[arg(long, value_name = "FILE|DIR")]
    pub(crate) model: Option<String>,
    /// How many images.
    #[arg(short, long, default_value_t = 16, value_parser = whole_from::<usize, 1>)]
    pub(crate) n: usize,
    /// Images at once.
    #[arg(long, default_value_t = 16, value_parser = at_least_one)]
    pub(crate) batch: usize,
    /// Seed; image i depends on the seed and on i only.
    #[arg(long, default_value_t = 0, value_parser = whole::<u64>)]
    pub(crate) seed: u64,
    /// Which sampler.
    #[arg(long, value_parser = choice::<SamplerKind>(), default_value = "ddim")]
    pub(crate) sampler: SamplerKind,
    /// Its steps: `ddim40` (a stride), `250` (evenly spread), `10,15,20` (per section), or empty for all.
    #[arg(long, default_value = "ddim40", value_name = "RESPACING")]
    pub(crate) steps: String,
    /// DDIM only: share of fresh noise, 0 to 1.
    #[arg(long, default_value_t = 0.0, value_parser = number, hide_short_help = true)]
    pub(crate) eta: f64,
    /// Begin below the end of the process, with pure noise at this share of it: what a model makes of noise that it takes for a blurred
    /// image (the paper's Fig. 4).
    #[arg(long, default_value_t = 1.0, value_name = "SHARE", value_parser = number, hide_short_help = true)]
    pub(crate) start: f64,
    /// Do not clamp predicted images to [-1, 1].
    #[arg(long, hide_short_help = true)]
    pub(crate) no_clip: bool,
    /// The class of every image, for class-conditional models; random ones if not given.
    #[arg(long, value_name = "CLASS", value_parser = whole::<u32>)]
    pub(crate) class: Option<u32>,
    #[command(flatten)]
    pub(crate) file: ModelArgs,
    /// Where the images go. The same command again makes only what is missing, a larger -n adds to it.
    #[arg(long, value_name = "DIR", default_value = "samples")]
    pub(crate) out: PathBuf,
    /// Make everything again, also what is there already and what was made with other settings.
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// Also write samples_NxHxWx3.npz, as guided-diffusion names it, with the pixels of the PNGs.
    #[arg(long)]
    pub(crate) npz: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ClassifierArgs {
    /// The images that translations come from: a folder, or `digits`. With --resume, where the same images are now; --target and --init
    /// likewise.
    #[arg(long, value_name = "DIR")]
    pub(crate) source: Option<String>,
    /// The images of the domain that they go to.
    #[arg(long, value_name = "DIR")]
    pub(crate) target: Option<String>,
    /// The model that the classifier will stand beside; its image size and noise schedule are taken over.
    #[arg(long, value_name = "FILE|DIR", conflicts_with = "resume")]
    pub(crate) model: Option<String>,
    /// A classifier whose trunk is the start, as guidance's 256x256_classifier.pt; tensors are taken by name and shape.
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

const CLASSIFIER_HELP: &str = "\
Without other settings it is EGSDE's recipe: 5000 steps of 32 images; the paper took 1500 for MetFaces, 4500 for AAHQ.

Examples:
  cargo xtask train-classifier --model runs/metfaces-sdft --source faces --target metfaces --init 256x256_classifier.pt --steps 1500
  cargo xtask train-classifier --source faces --target metfaces --set loop.micro_batch=4 --dry-run";

const TRANSLATE_HELP: &str = "\
Examples:
  cargo xtask translate --model runs/metfaces-sdft --input faces
  cargo xtask translate --model runs/metfaces-sdft --input faces --method egsde --classifier runs/classifier
  cargo xtask translate --model runs/metfaces-sdft --input face.png --sweep t0=0.3,0.4,0.5,0.6
  cargo xtask translate --model metfaces.safetensors --source-model ffhq.pt --input faces --method ddib
  cargo xtask translate --model ffhq.pt --input faces --walk ancestral --repeats 3";

#[derive(Debug, Args)]
pub(crate) struct TranslateArgs {
    /// The method; sdedit if not given, egsde for the embedded example.
    #[arg(long, value_parser = choice::<TranslationMethod>())]
    pub(crate) method: Option<TranslationMethod>,
    /// The model of the target domain: a weights file, a run folder, or `digits-source`.
    #[arg(long, value_name = "FILE|DIR", requires = "input")]
    pub(crate) model: Option<String>,
    /// The images: a file or a folder with its subfolders.
    #[arg(long, value_name = "FILE|DIR", requires = "model")]
    pub(crate) input: Option<PathBuf>,
    /// Where the images go, under their names, as PNG.
    #[arg(long, value_name = "DIR", default_value = "translated")]
    pub(crate) out: PathBuf,
    /// Strength: the share of the process that the image is noised through, 0 to 1.
    #[arg(long, default_value_t = 0.5, value_name = "SHARE", value_parser = number)]
    pub(crate) t0: f64,
    /// Several values of t0, lambda-s, lambda-i, factor or repeats: `--sweep t0=0.3,0.4,0.5`. Each gets a folder, each input a strip.
    #[arg(long, value_name = "NAME=A,B,..")]
    pub(crate) sweep: Option<String>,
    /// sdedit and egsde: how the process is walked.
    #[arg(long, value_parser = choice::<WalkKind>(), default_value = "part")]
    pub(crate) walk: WalkKind,
    /// The sampler's steps, as for `sample`; ddim40 if not given, 100 for ilvr.
    #[arg(long, value_name = "RESPACING")]
    pub(crate) steps: Option<String>,
    /// DDIM: share of fresh noise, 0 to 1.
    #[arg(long, default_value_t = 0.0, value_parser = number, hide_short_help = true)]
    pub(crate) eta: f64,
    /// DDIM and ilvr: do not clamp predicted images to [-1, 1].
    #[arg(long, hide_short_help = true)]
    pub(crate) no_clip: bool,
    /// sdedit and egsde: how often the image is noised and denoised; published are 3 for SDEdit and 1 for EGSDE.
    #[arg(long, default_value_t = 1, value_parser = at_least_one, value_name = "N")]
    pub(crate) repeats: usize,
    /// sdedit: an image whose light parts are kept and whose dark parts are edited.
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    pub(crate) mask: Option<PathBuf>,
    /// egsde: the classifier, a weights file or a run folder of `train-classifier`.
    #[arg(long, value_name = "FILE|DIR")]
    pub(crate) classifier: Option<String>,
    /// egsde: weight of the energy that leads away from the source domain.
    #[arg(long, default_value_t = 500.0, value_name = "WEIGHT", value_parser = number, hide_short_help = true)]
    pub(crate) lambda_s: f64,
    /// egsde: weight of the energy that keeps the coarse image.
    #[arg(long, default_value_t = 2.0, value_name = "WEIGHT", value_parser = number, hide_short_help = true)]
    pub(crate) lambda_i: f64,
    /// egsde: the form of the first energy.
    #[arg(long, value_parser = choice::<EnergyKind>(), default_value = "cosine", hide_short_help = true)]
    pub(crate) specific: EnergyKind,
    /// egsde: the form of the second energy.
    #[arg(long, value_parser = choice::<EnergyKind>(), default_value = "neg-l2", hide_short_help = true)]
    pub(crate) independent: EnergyKind,
    /// egsde and ilvr: factor of the low-pass filter; an eighth of the image's side if not given, which is the published 32 at 256.
    #[arg(long, value_parser = at_least_one, value_name = "N", hide_short_help = true)]
    pub(crate) factor: Option<usize>,
    /// ilvr: the input is followed in steps above this one; from there on the model is free.
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = whole::<usize>, hide_short_help = true)]
    pub(crate) free: usize,
    /// ddib: the model of the source domain.
    #[arg(long, value_name = "FILE|DIR")]
    pub(crate) source_model: Option<String>,
    /// Seed; an image's noise depends on the seed and on the image's path inside the input folder only.
    #[arg(long, default_value_t = 0, value_parser = whole::<u64>)]
    pub(crate) seed: u64,
    /// Images at once; as many as suit their size if not given: 4 of 256x256, 64 of 64x64 or less.
    #[arg(long, value_parser = at_least_one, value_name = "N")]
    pub(crate) batch: Option<usize>,
    /// Make everything again, also what is there already and what was made with other settings.
    #[arg(long)]
    pub(crate) overwrite: bool,
    #[command(flatten)]
    pub(crate) file: ModelArgs,
}

#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// A .pt or .safetensors file, a run folder, or a name as `ffhq-10m`.
    #[arg(value_name = "FILE|DIR")]
    pub(crate) file: PathBuf,
    /// The part of the file to look at where it holds several.
    #[arg(long, value_name = "KEY")]
    pub(crate) key: Option<String>,
    /// List every tensor.
    #[arg(long)]
    pub(crate) tensors: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum DtypeArg {
    F32,
    F16,
    Bf16,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum PreferArg {
    Ema,
    Raw,
}

#[derive(Debug, Args)]
pub(crate) struct ConvertArgs {
    /// The model to read: a file, a run folder, or a name as `ffhq-10m`.
    #[arg(value_name = "FILE|DIR")]
    pub(crate) input: PathBuf,
    /// The .safetensors file to write.
    #[arg(value_name = "OUTPUT")]
    pub(crate) output: PathBuf,
    /// Which weights to take where a file holds both.
    #[arg(long, value_enum, default_value = "ema")]
    pub(crate) prefer: PreferArg,
    /// The part of the file to take, by name.
    #[arg(long, value_name = "KEY")]
    pub(crate) key: Option<String>,
    /// Type of the numbers written; that of the file if not given.
    #[arg(long, value_enum)]
    pub(crate) dtype: Option<DtypeArg>,
    /// A field of the architecture that no shape shows: `--set model.norm_groups=8`.
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Replace the output if it is there.
    #[arg(long)]
    pub(crate) overwrite: bool,
}

#[derive(Debug, Args)]
pub(crate) struct MissingArgs {
    /// The command.
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "VERB ARGUMENTS"
    )]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct JudgeArgs {
    /// The .safetensors file to write.
    #[arg(long, default_value = "digits-judge.safetensors")]
    pub(crate) out: PathBuf,
    /// Replace the file if it is there.
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// Seed.
    #[arg(long, default_value_t = 0, value_parser = whole::<u64>)]
    pub(crate) seed: u64,
}

const EVALUATE_HELP: &str = "\
Examples:
  cargo xtask evaluate --real metfaces --fake samples
  cargo xtask evaluate --real metfaces.npz --fake samples --resize clean-fid --out report
  cargo xtask evaluate --pairs ffhq translated --size 256 --without identity
  cargo xtask evaluate --pairs faces smiling --text face 'smiling face'
  cargo xtask evaluate --real digits --fake samples";

#[derive(Debug, Args)]
pub(crate) struct EvaluateArgs {
    /// The real images: a folder, an .npz of statistics (mu, sigma) or images (arr_0), or `digits`.
    #[arg(long, value_name = "DIR|NPZ", requires = "fake")]
    pub(crate) real: Option<PathBuf>,
    /// The generated images: a folder or an .npz.
    #[arg(long, value_name = "DIR|NPZ", requires = "real")]
    pub(crate) fake: Option<PathBuf>,
    /// Inputs and outputs of a translation or an edit.
    #[arg(long, num_args = 2, value_names = ["INPUT", "OUTPUT"], conflicts_with_all = ["real", "fake"])]
    pub(crate) pairs: Option<Vec<PathBuf>>,
    /// With --pairs: the directional CLIP similarity of an edit from one text to another.
    #[arg(long, num_args = 2, value_names = ["FROM", "TO"], requires = "pairs")]
    pub(crate) text: Option<Vec<String>>,
    /// How images come to Inception's 299 pixels: `pytorch-fid`, `clean-fid` or `torch-fidelity`.
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
    /// Images of a subset of KID; fewer where there are fewer.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = whole_from::<u32, 2>, conflicts_with = "pairs", hide_short_help = true)]
    pub(crate) kid_size: u32,
    /// Seed of the subsets; torch-fidelity's own draw if not given.
    #[arg(long, value_name = "SEED", value_parser = whole::<u32>, conflicts_with = "pairs", hide_short_help = true)]
    pub(crate) kid_seed: Option<u32>,
    /// Neighbours that a ball of precision and recall reaches to.
    #[arg(long, value_name = "K", default_value_t = 3, value_parser = at_least_one, conflicts_with = "pairs", hide_short_help = true)]
    pub(crate) neighbours: usize,
    /// With --pairs: bring the short side of every image to so many pixels first.
    #[arg(long, value_name = "PIXELS", requires = "pairs", value_parser = at_least_one)]
    pub(crate) size: Option<usize>,
    /// With --pairs: which images belong together.
    #[arg(long, value_parser = choice::<Pairing>(), default_value = "name", requires = "pairs")]
    pub(crate) pair_by: Pairing,
    /// With --pairs: leave out what needs weights that are not here.
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
    /// Where report.json and report.csv go, and neighbours.png where both sides are folders.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Replace what an earlier evaluation wrote there.
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
    /// Where feature vectors are kept; `sdft/features` in the user's cache folder if not given.
    #[arg(long, value_name = "DIR", hide_short_help = true)]
    pub(crate) cache: Option<PathBuf>,
    /// Keep no feature vectors.
    #[arg(long, conflicts_with = "cache", hide_short_help = true)]
    pub(crate) no_cache: bool,
}
