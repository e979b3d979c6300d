//! Arguments of `sample` and `translate`.

use super::{at_least_one, choice, interval, number, whole, whole_from};
use clap::Args;
use sdft_adapters::AdapterFile;
use sdft_diffusion::SigmaInterval;
use sdft_jobs::{Churn, EnergyKind, GuideOptions, SamplerKind, TranslationMethod, WalkKind};
use sdft_train::Size;
use std::path::PathBuf;

pub(super) const SAMPLE_HELP: &str = "\
Examples:
  cargo xtask sample --model runs/photos-sdft -n 64
  cargo xtask sample --model runs/photos-sdft -n 1000 --steps ddim100 --out thousand
  cargo xtask sample --model dit-xl-2-256 --class 207 --guidance 4 -n 16";

pub(super) const TRANSLATE_HELP: &str = "\
Examples:
  cargo xtask translate --model runs/metfaces-sdft --input faces
  cargo xtask translate --model runs/metfaces-sdft --input faces --method egsde --classifier runs/classifier
  cargo xtask translate --model runs/metfaces-sdft --input face.png --sweep t0=0.3,0.4,0.5,0.6
  cargo xtask translate --model metfaces.safetensors --source-model ffhq.pt --input faces --method ddib
  cargo xtask translate --model runs/metfaces-sdft --input faces --guide ffhq.pt --guide-weight 1.5
  cargo xtask translate --model ffhq.pt --input faces --walk ancestral --repeats 3";

/// Settings that the file of a model may not state.
#[derive(Debug, Args)]
pub(crate) struct ModelArgs {
    /// Side of the images, for files that do not state it; a multiple of the network's total downsampling.
    #[arg(long, value_name = "PIXELS", value_parser = whole_from::<usize, 1>, hide_short_help = true)]
    pub(crate) image_size: Option<usize>,
    /// The part of the model's file to take if it holds several.
    #[arg(long, value_name = "KEY", hide_short_help = true)]
    pub(crate) key: Option<String>,
    /// Any field of the architecture that the file does not state: `--set model.norm_groups=8`; of an autoencoder in the same file,
    /// `--set model.autoencoder.scaling_factor=1`.
    #[arg(long, value_name = "KEY=VALUE", hide_short_help = true)]
    pub(crate) set: Vec<String>,
    /// The autoencoder of a model that works on latents, for files that do not state it: a file, a folder of diffusers, or a name such as
    /// `sd-vae-ft-mse`.
    #[arg(long, value_name = "FILE|DIR", hide_short_help = true)]
    pub(crate) autoencoder: Option<String>,
    /// An adapter of the model and its scale, 1 if not given; several add up.
    ///
    /// A file such as `runs/faces/adapter.safetensors`, the folder of its run, or a folder of peft. Scale 0 has no effect.
    #[arg(long, value_name = "FILE[=SCALE]")]
    pub(crate) adapter: Vec<AdapterFile>,
}

/// A model that images are guided away from.
#[derive(Debug, Args)]
pub(crate) struct GuideArgs {
    /// Domain Guidance: away from this model, usually --model's source.
    ///
    /// The source is the model that --model was fine-tuned from. The prediction is guide + WEIGHT (model - guide), by an evaluation of each
    /// model. A file, a run folder or a name, as for --model, with the same noise schedule. Its null class is asked for if it has one.
    /// --guidance is applied to the model first. `translate --method ddib` is guided on the way from noise to image only.
    #[arg(long, value_name = "FILE|DIR")]
    pub(crate) guide: Option<String>,
    /// Weight of --guide: 1 is the model alone, 0 the guide.
    ///
    /// More than 1 moves away from the guide.
    #[arg(long, value_name = "WEIGHT", default_value_t = GuideOptions::default().weight, value_parser = number, requires = "guide", hide_short_help = true)]
    pub(crate) guide_weight: f64,
    /// Guide only at noise levels above LOW up to HIGH; all if not given.
    ///
    /// As in `0.2,5`. A level is EDM's sigma = sqrt((1 - alpha_bar) / alpha_bar): with the usual linear schedule of 1000 steps it is 0.01 at
    /// step 0, 1 at step 258, 3.4 at step 499 and 157 at step 999. At other levels only the model is evaluated.
    #[arg(long, value_name = "LOW,HIGH", value_parser = interval, requires = "guide", hide_short_help = true)]
    pub(crate) guide_interval: Option<SigmaInterval>,
}

impl GuideArgs {
    /// The guide of the library.
    pub(crate) fn options(&self) -> Option<GuideOptions> {
        self.guide.as_ref().map(|model| GuideOptions {
            model: model.clone(),
            weight: self.guide_weight,
            interval: self.guide_interval,
        })
    }
}

#[derive(Debug, Args)]
pub(crate) struct SampleArgs {
    /// The model: a weights file, a run folder, `emoji-source` or `digits-source`; if not given, the newest finished run in `runs`, or
    /// `emoji-source` if there is none.
    #[arg(long, value_name = "FILE|DIR")]
    pub(crate) model: Option<String>,
    /// Number of images.
    #[arg(short, long, default_value_t = 16, value_parser = whole_from::<usize, 1>)]
    pub(crate) n: usize,
    /// Images at once.
    #[arg(long, default_value_t = 16, value_parser = at_least_one)]
    pub(crate) batch: usize,
    /// Start N processes, each with a GPU of its own, that share the images.
    ///
    /// The images are those of one process: to the bit on the CPU, up to rounding on GPUs. --batch is what one process takes at once.
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub(crate) gpus: Option<usize>,
    /// Seed; image i depends on the seed and on i only.
    #[arg(long, default_value_t = 0, value_parser = whole::<u64>)]
    pub(crate) seed: u64,
    /// Which sampler; heun for EDM networks and flows, and ddim for others, if not given.
    #[arg(long, value_parser = choice::<SamplerKind>())]
    pub(crate) sampler: Option<SamplerKind>,
    /// Steps of the sampler. ddim, ddpm: `ddim40` (a stride; the default), `250` (evenly spread), `10,15,20` (per section), or empty for all. heun,
    /// dpm, euler: their number; 18, 20 and 50 if not given.
    #[arg(long, value_name = "RESPACING")]
    pub(crate) steps: Option<String>,
    /// DDIM only: share of fresh noise, 0 to 1.
    #[arg(long, default_value_t = 0.0, value_parser = number, hide_short_help = true)]
    pub(crate) eta: f64,
    /// heun only, and not for a flow: fresh noise, as EDM's `S_churn` or `S_churn,S_min,S_max,S_noise`.
    #[arg(long, value_name = "S_CHURN,..", hide_short_help = true)]
    pub(crate) churn: Option<Churn>,
    /// Begin below the end of the process, with pure noise at this share of it: the model takes the noise for a blurred
    /// image (the paper's Fig. 4).
    #[arg(long, default_value_t = 1.0, value_name = "SHARE", value_parser = number, hide_short_help = true)]
    pub(crate) start: f64,
    /// Do not clamp predicted images to [-1, 1].
    #[arg(long, hide_short_help = true)]
    pub(crate) no_clip: bool,
    /// Class of every image; all classes in turn if not given.
    ///
    /// By name, or by its number if no class has a number for a name. If it is not given, image i of a class-conditional model has class i
    /// mod the number of classes, so that all are equally frequent.
    #[arg(long, value_name = "NAME|NUMBER")]
    pub(crate) class: Option<String>,
    /// Classifier-free guidance towards the class; 1 is none.
    ///
    /// The prediction is null + SCALE (class - null), by two evaluations. The model needs a null class, as training with labels that are
    /// sometimes dropped makes it.
    #[arg(long, value_name = "SCALE", value_parser = number)]
    pub(crate) guidance: Option<f64>,
    #[command(flatten)]
    pub(crate) guide: GuideArgs,
    /// Height and width in pixels; the model's own if not given.
    ///
    /// As in `192x256`, or `256` for a square: any size that the network can halve at every level.
    #[arg(long, value_name = "HEIGHTxWIDTH")]
    pub(crate) size: Option<Size>,
    #[command(flatten)]
    pub(crate) file: ModelArgs,
    /// Folder of the images. The same command again makes only missing images, a larger -n adds to them.
    #[arg(long, value_name = "DIR", default_value = "samples")]
    pub(crate) out: PathBuf,
    /// Make everything again, including images that exist and images made with other settings.
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// Also write samples_NxHxWxC.npz, as guided-diffusion names it, with the values of the files, and their classes if there are any.
    #[arg(long)]
    pub(crate) npz: bool,
}

#[derive(Debug, Args)]
pub(crate) struct TranslateArgs {
    /// The method; sdedit if not given.
    #[arg(long, value_parser = choice::<TranslationMethod>())]
    pub(crate) method: Option<TranslationMethod>,
    /// The model of the target domain: a weights file, a run folder, `emoji-source` or `digits-source`.
    #[arg(long, value_name = "FILE|DIR", requires = "input")]
    pub(crate) model: Option<String>,
    /// The images: a file or a folder with its subfolders.
    #[arg(long, value_name = "FILE|DIR", requires = "model")]
    pub(crate) input: Option<PathBuf>,
    /// Folder of the images, under their names.
    ///
    /// They have the model's channels and depth: PNG for 8 and 16 bits, TIFF for floats, .npy for 2, 5 and more channels.
    #[arg(long, value_name = "DIR", default_value = "translated")]
    pub(crate) out: PathBuf,
    /// Strength: the share of the process that the image is noised through, 0 to 1.
    #[arg(long, default_value_t = 0.5, value_name = "SHARE", value_parser = number)]
    pub(crate) t0: f64,
    /// Several values of t0, lambda-s, lambda-i, factor or repeats: `--sweep t0=0.3,0.4,0.5`. Each gets a folder, each input a strip.
    #[arg(long, value_name = "NAME=A,B,..")]
    pub(crate) sweep: Option<String>,
    /// sdedit and egsde: which steps of the process are taken.
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
    #[arg(long, default_value_t = 1, value_parser = at_least_one, value_name = "N", hide_short_help = true)]
    pub(crate) repeats: usize,
    /// sdedit: an image whose light parts are kept and whose dark parts are edited.
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    pub(crate) mask: Option<PathBuf>,
    /// egsde: the classifier, a weights file or a run folder of `train-classifier`.
    #[arg(long, value_name = "FILE|DIR")]
    pub(crate) classifier: Option<String>,
    /// egsde: weight of the energy that guides away from the source domain.
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
    /// egsde and ilvr: factor of the low-pass filter; an eighth of the image's shorter side if not given, which is the published 32 at 256.
    #[arg(long, value_parser = at_least_one, value_name = "N", hide_short_help = true)]
    pub(crate) factor: Option<usize>,
    /// ilvr: the input is followed only in steps above this one.
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = whole::<usize>, hide_short_help = true)]
    pub(crate) free: usize,
    /// ddib: the model of the source domain.
    #[arg(long, value_name = "FILE|DIR")]
    pub(crate) source_model: Option<String>,
    /// Class of the results; the null class if not given.
    ///
    /// By name, or by its number if no class has a number for a name. For class-conditional models.
    #[arg(long, value_name = "NAME|NUMBER")]
    pub(crate) class: Option<String>,
    /// Classifier-free guidance towards --class; 1 is none.
    ///
    /// The prediction is null + SCALE (class - null), by two evaluations. The model needs a null class.
    #[arg(long, value_name = "SCALE", value_parser = number)]
    pub(crate) guidance: Option<f64>,
    #[command(flatten)]
    pub(crate) guide: GuideArgs,
    /// ddib: class of the inputs, for a class-conditional source model; its null class if not given.
    #[arg(long, value_name = "NAME|NUMBER", hide_short_help = true)]
    pub(crate) source_class: Option<String>,
    /// Height and width in pixels; the model's own if not given.
    ///
    /// As in `192x256`, or `256` for a square: any size that the network can halve at every level.
    #[arg(long, value_name = "HEIGHTxWIDTH")]
    pub(crate) size: Option<Size>,
    /// Seed; an image's noise depends on the seed and on the image's path inside the input folder only.
    #[arg(long, default_value_t = 0, value_parser = whole::<u64>)]
    pub(crate) seed: u64,
    /// Images at once; a number that fits their size if not given.
    ///
    /// It is 4 of 256x256, and 64 of 64x64 or less.
    #[arg(long, value_parser = at_least_one, value_name = "N")]
    pub(crate) batch: Option<usize>,
    /// Start N processes, each with a GPU of its own, that share the images.
    ///
    /// The images are those of one process: to the bit on the CPU, up to rounding on GPUs. --batch is what one process takes at once.
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub(crate) gpus: Option<usize>,
    /// Make everything again, including images that exist and images made with other settings.
    #[arg(long)]
    pub(crate) overwrite: bool,
    #[command(flatten)]
    pub(crate) file: ModelArgs,
}
