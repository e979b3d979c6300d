//! Training runs: diffusion models, autoencoders, classifiers and edits.

mod autoencoder;
mod classifier;
mod describe;
mod direction;
mod edit_options;
mod evaluation;
mod finetune;
mod group;
mod methods;
mod networks;
mod options;
mod presets;
mod run;
mod run_name;
mod settings;
mod tuning;

pub use autoencoder::{AutoencoderJob, AutoencoderTrainOptions};
pub use classifier::{ClassifierJob, ClassifierOptions, train_classifier_preset};
pub use direction::{DirectionJob, train_direction_in, train_direction_preset};
pub use edit_options::{DirectionOptions, EditStep, method_of_run};
pub use finetune::{TrainJob, runs_at_once, train_plan, train_preset, train_table};
pub use group::{follow, join_group, join_training};
pub use networks::{ModelPlan, TrainPlan};
pub(crate) use networks::{
    adapter_sizes, image_sides, sides, sizes_of, trainable, trained_architecture, with_adapter,
};
pub use options::RunOptions;
pub(crate) use options::make_absolute;
pub use presets::{AUTOENCODERS, CLASSIFIERS, DIRECTIONS, METHODS, TRAINING};
pub use run::{Run, Training};
pub use settings::TrainOptions;
pub use tuning::TuningJob;
