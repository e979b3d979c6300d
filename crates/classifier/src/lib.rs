//! Trains the noise-aware classifier that tells two domains of images apart, which EGSDE needs.
//!
//! A run is a [`ClassifierPlan`] in and a run folder out, as in [`sdft_train`]; the loop, the checkpoints and the logs are those of that
//! crate. In the end `accuracy.json` says how many held-out images the classifier tells apart at each noise level.
//!
//! # Example: a plan is checked before anything happens
//! ```
//! use sdft_classifier::ClassifierPlan;
//! use sdft_train::RunPlan;
//!
//! let mut plan = ClassifierPlan::default();
//! plan.data.source.path = "photos".into();
//! assert_eq!(plan.validate().unwrap_err().key, "data.target.path");
//! ```
//!
//! **Invariant:** held-out images are never trained on.

pub use crate::{
    accuracy::{Accuracy, LevelAccuracy},
    plan::{ClassifierData, ClassifierModel, ClassifierOutput, ClassifierPlan, DomainPlan},
    train::{ClassifierSetup, start_classifier, train_classifier},
};

mod accuracy;
mod plan;
mod train;
