//! What the parts of an experiment on emoji share: the source model, the judges, and the runs.

use super::sets::{all_pictures, training_set};
use super::{EmojiOptions, SCRATCH, SDFT, TRAINED_PER_SECOND, editing, generation, translation};
use crate::kept::{Kept, Part};
use crate::lock_folder_from;
use crate::methods::Method;
use sdft_data::{Emoji, EmojiStyle};
use sdft_diffusion::PredictionType;
use sdft_eval::Extractor;
use sdft_features::AttributeJudge;
use sdft_files::sha256_bytes;
use sdft_jobs::{
    Context, EMOJI_SOURCE, Error, ModelFile, Result, ResultExt, TRAINING, TrainPlan,
    emoji_judge_features, load_emoji_judges, load_model, second_emoji_judge,
};
use sdft_models::{LoadOptions, LoadedModel};
use sdft_settings::{layers, plan, set_all};

/// What the parts of an experiment share.
pub(super) struct Study<'a> {
    pub(super) options: &'a EmojiOptions,
    pub(super) source: LoadedModel,
    /// What translations, edits and all numbers depend on.
    pub(super) basis: String,
    pub(super) kept: Kept,
}

/// The judges of samples and translations.
pub(super) struct Judges {
    pub(super) both: [AttributeJudge; 2],
    /// The features of the first, for sets.
    pub(super) features: Extractor,
    /// What numbers that they measured depend on.
    pub(super) weights: String,
}

impl Judges {
    pub(super) fn embedded() -> Result<Self> {
        let features = emoji_judge_features()?;
        let weights = format!(
            "{} {}",
            features.weights(),
            second_emoji_judge()?.1.weights()
        );
        Ok(Self {
            both: load_emoji_judges()?,
            features,
            weights,
        })
    }

    /// The one in whose layers distances are measured.
    pub(super) fn first(&self) -> &AttributeJudge {
        &self.both[0]
    }
}

/// A model of a method.
pub(super) struct Trained {
    pub(super) seed: usize,
    /// The name of its run.
    pub(super) run: String,
    pub(super) file: String,
    pub(super) model: LoadedModel,
}

impl<'a> Study<'a> {
    /// Locks the folder of the options for an experiment, and announces the parts of these methods.
    pub(super) fn open(
        options: &'a EmojiOptions,
        experiment: &str,
        methods: &[Method],
        context: &mut Context<'_>,
    ) -> Result<Self> {
        let file = ModelFile::find(&options.source)?.noted(context);
        let source = load_model(&file, &LoadOptions::default())?;
        context.notes(&source.notes);
        check_source(&source)?;
        let outputs = lock_folder_from(&options.out, experiment, &source.sha256)?;
        let (seeds, scale) = (options.seeds, &options.scale);
        let basis = basis(context)?;
        let mut kept = Kept::new(outputs, basis.clone());
        kept.expect(1 + methods.len() * seeds, generation::seconds(scale));
        for method in methods {
            kept.expect(seeds, training_seconds(method, options)?);
        }
        let measured = seeds * methods.iter().filter(|method| method.translates).count();
        if measured > 0 {
            translation::expect(measured, scale, &mut kept);
            editing::expect(measured, scale, &mut kept);
        }
        Ok(Self {
            options,
            source,
            basis,
            kept,
        })
    }

    /// Trains the model of a seed, unless it exists.
    pub(super) fn train(
        &mut self,
        method: &Method,
        seed: usize,
        context: &mut Context<'_>,
    ) -> Result<Trained> {
        let options = self.options;
        let run = method.run_name(seed);
        let root = options.out.join(&run);
        let is_finished = root.join("final.safetensors").is_file();
        let part = Part {
            name: &run,
            images: 0,
            seconds: training_seconds(method, options)?,
        };
        let path = self.kept.run(&part, is_finished, context, |context| {
            method.train(seed, &settings(options, method), &options.out, context)
        })?;
        // A checkpoint is four times as large as the finished model, which is all that is needed. One that stays does no harm.
        let _ = std::fs::remove_dir_all(root.join("checkpoints"));
        let file = path.display().to_string();
        Ok(Trained {
            model: load_model(&file, &LoadOptions::default())
                .with_context(|| format!("cannot read {file}"))?,
            seed,
            run,
            file,
        })
    }
}

/// Version of what is measured, and how. Numbers of another version are measured again.
const FORMAT: u32 = 2;

/// What translations, edits and all numbers depend on: a hash of the emoji with their attributes, and of the target set.
fn basis(context: &mut Context<'_>) -> Result<String> {
    let emoji = Emoji::embedded()?;
    let mut bytes = format!("{FORMAT} {:?}", emoji.entries()).into_bytes();
    for style in EmojiStyle::ALL {
        for picture in all_pictures(&emoji, style) {
            bytes.extend(picture.pixels);
        }
    }
    for picture in training_set(SDFT.preset, context)? {
        bytes.extend(picture.pixels);
    }
    Ok(sha256_bytes(&bytes))
}

/// Fails unless the presets can fine-tune a source model.
fn check_source(source: &LoadedModel) -> Result<()> {
    let form = generation::form();
    if source.image != form {
        return Err(Error::Usage(format!(
            "--source: expected a model of 3x{0}x{0} images of 8 bits, found {1:?}",
            Emoji::SIZE,
            source.image
        )));
    }
    let found = source.process.prediction_type;
    if found != PredictionType::V {
        return Err(Error::Usage(format!(
            "--source: expected a model that predicts the velocity, because the presets weigh its errors, found one that predicts {found}"
        )));
    }
    Ok(())
}

/// The settings of every model of a method that are not the method's own.
fn settings(options: &EmojiOptions, method: &Method) -> Vec<String> {
    let source = (options.source != EMOJI_SOURCE && method.preset != SCRATCH.preset)
        .then(|| format!("source={}", serde_json::json!(options.source)));
    let all = options.scale.training.iter().cloned();
    all.chain(source).collect()
}

/// About how long a training takes on two cores.
fn training_seconds(method: &Method, options: &EmojiOptions) -> Result<f64> {
    let mut table = layers::<TrainPlan>(&TRAINING, &[method.preset])?;
    set_all::<TrainPlan>(&mut table, method.set)?;
    set_all::<TrainPlan>(&mut table, &options.scale.training)?;
    let plan: TrainPlan = plan(table)?;
    let teacher = match plan.method {
        sdft_train::Method::Sdft => 2.0,
        _ => 1.0,
    };
    let images = plan.steps.steps as f64 * plan.steps.batch as f64;
    Ok(teacher * images / TRAINED_PER_SECOND)
}
