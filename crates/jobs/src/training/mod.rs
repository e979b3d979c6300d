//! Training runs: diffusion models, classifiers and directions of edits.

mod classifier;
mod direction;
mod finetune;
mod group;
mod methods;
mod networks;
mod options;
mod presets;
mod run;
mod settings;

pub use classifier::{ClassifierJob, ClassifierOptions, train_classifier_preset};
pub use direction::{
    DirectionJob, DirectionOptions, EditStep, train_direction_in, train_direction_preset,
};
pub use finetune::{TrainJob, runs_at_once, train_preset, train_table};
pub use group::{follow, join_group};
pub use networks::{ModelPlan, TrainPlan};
pub(crate) use networks::{adapter_sizes, sides, trainable, trained_architecture};
pub use options::RunOptions;
pub use presets::{CLASSIFIERS, DIRECTIONS, METHODS, TRAINING};
pub use run::{Run, Training};
pub use settings::TrainOptions;
