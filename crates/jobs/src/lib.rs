//! Every workflow as a library call.
//!
//! A job takes options and a [`Context`], writes its results, and returns a report. It prints nothing and installs no handlers: lines
//! and progress go to [`Context::progress`], and [`Context::stop`] stops it after saving. Errors name the option that has to change.
//!
//! **Invariant:** each command of the program `sdft` is one library call; the same options give the same files.

mod cache;
mod choice;
mod classifier;
mod condition;
mod context;
mod data;
mod edit;
mod embedded;
mod error;
mod estimate;
mod evaluate;
mod files;
mod guide;
mod judge;
mod latents;
mod model;
mod sample;
mod select;
mod shared;
mod training;
mod translate;
mod weights;

pub use cache::CacheLocation;
pub use choice::Choice;
pub use context::{Context, Runtime, check_stop, open_device, resolve_precision};
pub use data::{Form, fingerprint, list_inputs, open_data};
pub use edit::{
    EditOptions, GoalNetwork, RangeOptions, RangeReport, edit_folder, find_range, serve_edits,
};
pub use embedded::{
    DIGITS, DIGITS_AUTOENCODER, DIGITS_DIT_SOURCE, DIGITS_SOURCE, EMBEDDED_IMAGES, EMBEDDED_MODELS,
    EMOJI, EMOJI_SOURCE, embedded_autoencoder, embedded_model, embedded_size, is_embedded,
};
pub use error::{Error, Result, ResultExt};
pub use estimate::{Disk, Estimate};
pub use evaluate::{
    ClipModel, EvaluateOptions, Evaluation, PairPart, PairsOptions, SetsOptions, evaluate_pairs,
    evaluate_sets, parse_range, read_lpips, serve_pairs, serve_sets,
};
pub use files::write_file;
pub use guide::{Guide, GuideOptions};
pub use judge::{
    emoji_judge_features, judge_features, load_emoji_judges, load_judge, second_emoji_judge,
    second_judge, train_emoji_judge, train_judge,
};
pub use model::{
    ModelFile, autoencoder_of_embedded, load_autoencoder, load_model, load_source, newest_run,
};
pub use sample::{
    Churn, SampleOptions, SamplePlan, SampleReport, Sampler, SamplerKind, sample_as_in_the_paper,
    sample_to_folder, serve_samples,
};
pub use select::{SelectOptions, SelectReport, Take, select_images};
pub use training::{
    AUTOENCODERS, AutoencoderJob, AutoencoderTrainOptions, CLASSIFIERS, ClassifierJob,
    ClassifierOptions, DIRECTIONS, DirectionJob, DirectionOptions, EditStep, METHODS, ModelPlan,
    Run, RunOptions, TRAINING, TrainJob, TrainOptions, TrainPlan, Training, TuningJob, follow,
    join_group, join_training, method_of_run, runs_at_once, train_classifier_preset,
    train_direction_in, train_direction_preset, train_plan, train_preset, train_table,
};
pub use translate::{
    EnergyKind, TranslateOptions, TranslatePlan, TranslationMethod, TranslationModels, Translator,
    Variant, WalkKind, serve_translations, translate_folder,
};
pub use weights::{Files, Weights};
