//! Arguments of `edit`.

use crate::args::{ModelArgs, RunArgs, at_least_one, number, whole};
use clap::{Args, Subcommand, ValueEnum};
use sdft_directions::EditMethod;
use sdft_jobs::{DirectionOptions, EditStep, Weights};
use sdft_train::Size;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(crate) struct EditArgs {
    #[command(subcommand)]
    pub(crate) verb: Option<EditVerb>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum EditVerb {
    /// Train an edit, which moves images from one text to another; without arguments, from men to women on the embedded emoji.
    #[command(after_long_help = TRAIN_HELP, mut_arg("steps", |arg| arg.hide(true)))]
    Train(Box<EditTrainArgs>),
    /// Edit images along one or several directions, or by tuned models.
    #[command(after_long_help = APPLY_HELP)]
    Apply(Box<EditApplyArgs>),
    /// Find the steps at which an edit begins and is sharpened, from the LPIPS distances of inversions to their images.
    Range(Box<EditRangeArgs>),
}

const TRAIN_HELP: &str = "\
Presets (--list): smiling, sad, angry, young, old, man, woman, with Asyrp's texts and the paper's epochs; and emoji-man-to-woman,
emoji-light-to-dark, emoji-add-glasses, digits-3-to-2, whose goals are attributes that an embedded classifier knows. Everything else is Asyrp's,
with the paper's 100 inversion and 50 training steps: 100 images, SGD with rate 0.5 at every step of every trajectory, weights 1 and 3.

Asyrp trains a small block, and the model stays as it is. With --method diffusionclip a copy of the whole model is tuned; the defaults are then
the published ones: 50 images, t_0 500, 6 steps, Adam with a learning rate of 8e-6 that is multiplied by 1.3 after each of 5 epochs, weights 3 and 1. --set loop.update=step
updates at every step, --set adapter.kind=lora trains a LoRA. The result is a model like any other. Presets: diffusionclip, the published
settings; and digits-3-to-2-diffusionclip, which is trained if only --method diffusionclip is given. A preset of texts brings its own epochs:
--config smiling --config diffusionclip has the published ones.

A model on latents whose file does not state its autoencoder is converted first, and the result is given as --model:
  cargo xtask convert dit.pt dit.safetensors --autoencoder sd-vae-ft-mse

Examples:
  cargo xtask edit train --config smiling --model runs/metfaces-sdft --data metfaces
  cargo xtask edit train --from 'person' --to 'person with glasses' --name glasses --model runs/metfaces-sdft --data metfaces
  cargo xtask edit train --config old --model ffhq-10m --data faces --t-edit auto --t-boost auto
  cargo xtask edit train --config smiling --config diffusionclip --model ffhq-10m --data faces
  cargo xtask edit train --resume runs/smiling";

const APPLY_HELP: &str = "\
Edits have no --guidance and no --guide: Asyrp's asymmetric step combines two predictions of one model by another formula.

Examples:
  cargo xtask edit apply --model runs/metfaces-sdft --edit runs/smiling --input faces
  cargo xtask edit apply --model runs/metfaces-sdft --edit runs/smiling --input faces --sweep -1,0,0.5,1,1.5
  cargo xtask edit apply --model runs/metfaces-sdft --edit runs/smiling --edit runs/old --strength 1 --strength 0.5 --input face.png
  cargo xtask edit apply --model runs/metfaces-sdft --edit runs/smiling --input frames --frames      (ffmpeg -i film.mp4 frames/%05d.png)
  cargo xtask edit apply --model runs/metfaces-sdft --edit runs/smiling --input others --settings edited/plan.toml --out others-edited

DiffusionCLIP: --model is the original model, which inverts the images, and --edit the tuned one; a strength is its share of the noise,
and the original model has the rest. Several tuned models share it equally if no strength is given:
  cargo xtask edit apply --model ffhq-10m --edit runs/smiling --strength 0.8 --input faces";

/// `--method` of `edit train`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum EditMethodArg {
    Asyrp,
    #[value(name = "diffusionclip")]
    DiffusionClip,
}

fn step(text: &str) -> Result<EditStep, String> {
    match text {
        "auto" => Ok(EditStep::Auto),
        _ => text
            .parse()
            .map(EditStep::At)
            .map_err(|_| "expected a step of the process, as 500, or auto".into()),
    }
}

/// The cache of inversions.
#[derive(Debug, Args)]
pub(crate) struct CacheArgs {
    /// Folder of cached inversions; `sdft` in the user's cache folder if not given.
    #[arg(long, value_name = "DIR", hide_short_help = true)]
    pub(crate) cache: Option<PathBuf>,
    /// Do not cache inversions.
    #[arg(long, conflicts_with = "cache", hide_short_help = true)]
    pub(crate) no_cache: bool,
}

impl CacheArgs {
    /// The cache of inversions.
    pub(crate) fn location(&self) -> sdft_jobs::CacheLocation {
        crate::evaluate::cache_location(self.cache.as_ref(), self.no_cache)
    }
}

#[derive(Debug, Args)]
pub(crate) struct EditTrainArgs {
    /// The model: a weights file, a run folder, or a name such as `ffhq-10m` or `emoji-source`. It is not changed. With --resume,
    /// where the same model is now.
    #[arg(long, value_name = "FILE|DIR")]
    pub(crate) model: Option<String>,
    /// The part of the model's file to take if it holds several, as `inspect` lists them.
    #[arg(
        long,
        alias = "source-key",
        value_name = "KEY",
        conflicts_with = "resume"
    )]
    pub(crate) key: Option<String>,
    /// The images: a folder, or a name such as `metfaces`, `emoji` or `digits`. With --resume, where the same images are now.
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<String>,
    /// What the images show.
    ///
    /// With `--set goal.network=emoji`, or a preset such as `emoji-man-to-woman`, it is an attribute such as gender=man.
    #[arg(long, value_name = "TEXT", conflicts_with = "resume")]
    pub(crate) from: Option<String>,
    /// What they should show.
    #[arg(long, value_name = "TEXT", conflicts_with = "resume")]
    pub(crate) to: Option<String>,
    /// asyrp trains a block, which is the default; diffusionclip a copy of the model.
    #[arg(
        long,
        value_enum,
        conflicts_with = "resume",
        hide_possible_values = true
    )]
    pub(crate) method: Option<EditMethodArg>,
    /// Class of the images, for class-conditional models; the null class if not given.
    #[arg(
        long,
        value_name = "NAME|NUMBER",
        conflicts_with = "resume",
        hide_short_help = true
    )]
    pub(crate) class: Option<String>,
    /// How often each image is used.
    #[arg(long, value_name = "N", value_parser = whole::<u32>)]
    pub(crate) epochs: Option<u32>,
    /// Use only the first N images; 0 for all.
    #[arg(long, value_name = "N", value_parser = whole::<u32>, conflicts_with = "resume")]
    pub(crate) images: Option<u32>,
    /// Asyrp: features are changed at this step and above it; `auto` finds it as `edit range` does.
    #[arg(long, value_name = "STEP|auto", value_parser = step, conflicts_with = "resume")]
    pub(crate) t_edit: Option<EditStep>,
    /// Asyrp: below this step fresh noise is added when the edit is applied; 0 for none.
    #[arg(long, value_name = "STEP|auto", value_parser = step, conflicts_with = "resume")]
    pub(crate) t_boost: Option<EditStep>,
    /// Weights from a file instead of the cache of the Hugging Face client; may be given again, for example for a tokenizer.json.
    #[arg(long, value_name = "NETWORK=FILE")]
    pub(crate) weights: Vec<String>,
    #[command(flatten)]
    pub(crate) cache: CacheArgs,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

impl EditTrainArgs {
    /// The options of the library.
    pub(crate) fn options(&self) -> sdft_jobs::Result<DirectionOptions> {
        Ok(DirectionOptions {
            run: self.run.options(),
            method: self.method.map(|method| match method {
                EditMethodArg::Asyrp => EditMethod::Asyrp,
                EditMethodArg::DiffusionClip => EditMethod::DiffusionClip,
            }),
            model: self.model.clone(),
            source_key: self.key.clone(),
            data: self.data.clone(),
            from: self.from.clone(),
            to: self.to.clone(),
            class: self.class.clone(),
            epochs: self.epochs,
            images: self.images,
            t_edit: self.t_edit,
            t_boost: self.t_boost,
            weights: Weights::parse(&self.weights)?,
            cache: self.cache.location(),
        })
    }
}

#[derive(Debug, Args)]
pub(crate) struct EditApplyArgs {
    /// The model: a weights file, a run folder, or a name such as `ffhq-10m` or `emoji-source`.
    #[arg(long, value_name = "FILE|DIR")]
    pub(crate) model: String,
    /// An edit: a file or a run folder of `edit train`, or a published Asyrp checkpoint, a file or an `hf:` path; may be given again.
    #[arg(long, value_name = "FILE|DIR", required = true)]
    pub(crate) edit: Vec<String>,
    /// How far each edit goes: one number for all, or one for each; 1, the default, is the trained strength, negative is the opposite.
    ///
    /// Of models tuned with DiffusionCLIP it is the share of the noise; N of them have 1/N each if it is not given.
    #[arg(long, value_name = "NUMBER", value_parser = number)]
    pub(crate) strength: Vec<f64>,
    /// Several factors of all strengths: `--sweep 0,0.5,1,1.5`. Each gets a folder, each input a strip.
    #[arg(
        long,
        value_name = "A,B,..",
        value_delimiter = ',',
        value_parser = number,
        allow_hyphen_values = true
    )]
    pub(crate) sweep: Vec<f64>,
    /// The images: a file or a folder with its subfolders.
    #[arg(long, value_name = "FILE|DIR")]
    pub(crate) input: PathBuf,
    /// Folder of the images, under their names.
    ///
    /// They have the model's channels and depth: PNG for 8 and 16 bits, TIFF for floats.
    #[arg(long, value_name = "DIR", default_value = "edited")]
    pub(crate) out: PathBuf,
    /// Take steps, seed and frames from the plan.toml of an earlier edit; numbers given next to it override it.
    #[arg(long, value_name = "FILE")]
    pub(crate) settings: Option<PathBuf>,
    /// Steps from noise to image; 40 if not given.
    #[arg(long, value_name = "N", value_parser = whole::<usize>)]
    pub(crate) steps: Option<usize>,
    /// Steps from image to noise; those of the edit's training if not given.
    #[arg(long, value_name = "N", value_parser = whole::<usize>, hide_short_help = true)]
    pub(crate) inversion: Option<usize>,
    /// Asyrp: features are changed at this step and above it; as in the direction's training if not given.
    #[arg(long, value_name = "STEP", value_parser = whole::<usize>)]
    pub(crate) t_edit: Option<usize>,
    /// Asyrp: below this step fresh noise is added, which sharpens; 0 for none; as in the direction's file if not given.
    #[arg(long, value_name = "STEP", value_parser = whole::<usize>)]
    pub(crate) t_boost: Option<usize>,
    /// Seed of the fresh noise; 0 if not given.
    #[arg(long, value_name = "N", value_parser = whole::<u64>)]
    pub(crate) seed: Option<u64>,
    /// The images are frames of one video: all get the same fresh noise, which avoids flicker.
    #[arg(long)]
    pub(crate) frames: bool,
    /// Class of the images, for class-conditional models; the null class if not given.
    #[arg(long, value_name = "NAME|NUMBER")]
    pub(crate) class: Option<String>,
    /// Height and width in pixels; the model's own if not given.
    ///
    /// As in `192x256`, or `256` for a square: any size that the network can halve at every level.
    #[arg(long, value_name = "HEIGHTxWIDTH")]
    pub(crate) size: Option<Size>,
    /// Images at once; a number that fits their size if not given.
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
    pub(crate) cache: CacheArgs,
    #[command(flatten)]
    pub(crate) file: ModelArgs,
}

#[derive(Debug, Args)]
pub(crate) struct EditRangeArgs {
    /// The model: a weights file, a run folder, or a name.
    #[arg(long, value_name = "FILE|DIR")]
    pub(crate) model: String,
    /// The images.
    #[arg(long, value_name = "DIR")]
    pub(crate) data: String,
    /// What the images show.
    #[arg(long, value_name = "TEXT")]
    pub(crate) from: String,
    /// What they should show.
    #[arg(long, value_name = "TEXT")]
    pub(crate) to: String,
    /// Class of the images, for class-conditional models; the null class if not given.
    #[arg(long, value_name = "NAME|NUMBER")]
    pub(crate) class: Option<String>,
    /// Use only the first N images.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = at_least_one)]
    pub(crate) images: usize,
    /// Steps of the inversion behind the curves.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = at_least_one)]
    pub(crate) inversion: usize,
    /// Weights from a file instead of the cache of the Hugging Face client.
    #[arg(long, value_name = "NETWORK=FILE")]
    pub(crate) weights: Vec<String>,
    /// Write both curves as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) cache: CacheArgs,
    #[command(flatten)]
    pub(crate) file: ModelArgs,
}
