//! The noise-aware classifier that tells two domains apart, which EGSDE needs.

pub use accuracy::{Accuracy, LevelAccuracy};
pub use plan::{ClassifierData, ClassifierModel, ClassifierOutput, ClassifierPlan, DomainPlan};
pub use run::{ClassifierSetup, start_classifier, train_classifier};

mod accuracy;
mod plan;
mod run;
