//! The paper's claim on emoji: what each method keeps of the attributes that its target set lacks.

mod editing;
mod generation;
mod lambda;
mod pictures;
mod translation;

pub use lambda::choose_emoji_lambda;

use crate::kept::{Kept, Part};
use crate::lock_folder;
use crate::methods::{Method, unless_stopped};
use crate::table::Report;
use editing::Edits;
use generation::Generation;
use sdft_data::Emoji;
use sdft_jobs::{Context, EMOJI_SOURCE, Result, ResultExt, TRAINING, TrainPlan, load_model};
use sdft_models::{LoadOptions, LoadedModel};
use sdft_settings::{layers, plan, set};
use sdft_train::Method as Kind;
use std::path::PathBuf;
use translation::Translations;

const SCRATCH: Method = Method::of("scratch", "emoji-scratch");
const NAIVE: Method = Method::of("naive", "emoji-naive");
const SDFT: Method = Method::of("SDFT", "emoji-sdft");

const METHODS: [Method; 7] = [
    Method {
        title: "scratch",
        ..SCRATCH
    },
    Method {
        title: "naive",
        translates: true,
        ..NAIVE
    },
    Method {
        label: "naive, stopped early",
        title: "naive, a fifth of the steps",
        set: &["loop.steps=60"],
        translates: true,
        ..NAIVE
    },
    Method {
        title: "SDFT",
        translates: true,
        ..SDFT
    },
    Method {
        label: "SDFT without auxiliary input",
        set: &["loss.lambda_aux=0.0"],
        ..SDFT
    },
    Method {
        label: "constant weight, lambda 0.1",
        title: "constant weight",
        set: &[
            "loss.lambda=0.1",
            "loss.lambda_aux=0.1",
            "loss.weight=constant",
            "loss.weight_aux=constant",
        ],
        ..SDFT
    },
    Method {
        label: "Min-SNR-5 (v form), lambda 0.1",
        title: "Min-SNR-5",
        set: &[
            "loss.lambda=0.1",
            "loss.lambda_aux=0.1",
            "loss.weight=min-snr-5-v",
            "loss.weight_aux=min-snr-5-v",
        ],
        ..SDFT
    },
];

/// Options of the experiments on emoji.
#[derive(Clone, Debug)]
pub struct EmojiOptions {
    /// Runs of each method, one for each seed from 0 on.
    pub seeds: usize,
    /// The folder of runs, images, numbers, tables and pictures.
    pub out: PathBuf,
    /// The source model: a file, a run folder, or the name of an embedded model.
    pub source: String,
    /// How much is computed.
    pub scale: EmojiScale,
}

impl Default for EmojiOptions {
    /// The documented experiment.
    fn default() -> Self {
        Self {
            seeds: 3,
            out: "runs/reproduce-emoji".into(),
            source: EMOJI_SOURCE.to_owned(),
            scale: EmojiScale::default(),
        }
    }
}

/// How much an experiment on emoji computes; the documented tables have the default.
#[derive(Clone, Debug, PartialEq)]
pub struct EmojiScale {
    /// Samples of each model.
    pub samples: usize,
    /// Steps of DDIM, for samples, translations and edits.
    pub steps: usize,
    /// Pictures to translate of each group.
    pub inputs: usize,
    /// Pictures to edit in each direction.
    pub edited: usize,
    /// Settings of every model, on top of the methods'.
    pub training: Vec<String>,
    /// Settings of EGSDE's classifier, on top of the preset's.
    pub classifier: Vec<String>,
    /// Settings of every direction, on top of the presets'.
    pub directions: Vec<String>,
}

impl Default for EmojiScale {
    fn default() -> Self {
        Self {
            samples: 160,
            steps: 40,
            inputs: 8,
            edited: 24,
            // One small grid of samples, at the end.
            training: vec!["output.sample_every=0".into(), "output.samples=8".into()],
            classifier: Vec::new(),
            directions: Vec::new(),
        }
    }
}

/// The paper's claim on the embedded emoji: each method is trained on the biased target set, and its models are measured as in Tables 1
/// to 4. Returns three tables (samples, translation, editing), or `None` if the job was interrupted. Finished models, images and numbers in
/// the folder are used again.
///
/// # Errors
/// A folder with other files, or an error of training, sampling or measuring.
pub fn reproduce_emoji(
    options: &EmojiOptions,
    context: &mut Context<'_>,
) -> Result<Option<[Report; 3]>> {
    let done = run(options, &METHODS, context);
    unless_stopped(done, context)
}

fn run(
    options: &EmojiOptions,
    methods: &[Method],
    context: &mut Context<'_>,
) -> Result<[Report; 3]> {
    let outputs = lock_folder(&options.out, "emoji", None)?;
    let emoji = Emoji::embedded()?;
    let source = load_model(&options.source, &LoadOptions::default())?;
    context.notes(&source.notes);
    let mut study = Study::new(options, outputs, methods)?;
    let mut generation = Generation::new(&emoji, &source, &mut study, context)?;
    let mut translations = Translations::new(&emoji, &source, &mut study, context)?;
    let mut edits = Edits::new(&emoji, options)?;
    for method in methods {
        for seed in 0..options.seeds {
            let model = study.train(method, seed, context)?;
            generation.add(method, &model, &mut study, context)?;
            if method.translates {
                translations.add(method, &model, &mut study, context)?;
                edits.add(method, &model, &mut study, context)?;
            }
        }
    }
    let out = &options.out;
    Ok([
        generation.finish(out, context)?,
        translations.finish(out)?,
        edits.finish(out)?,
    ])
}

/// A trained model of a method.
struct Trained {
    seed: usize,
    /// The name of its run.
    run: String,
    file: String,
    model: LoadedModel,
}

/// What the parts of an experiment share.
struct Study<'a> {
    options: &'a EmojiOptions,
    kept: Kept,
}

impl<'a> Study<'a> {
    fn new(
        options: &'a EmojiOptions,
        outputs: sdft_gallery::Outputs,
        methods: &[Method],
    ) -> Result<Self> {
        let study = Self {
            options,
            kept: Kept::new(outputs),
        };
        todo!()
    }
}
