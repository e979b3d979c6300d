//! Documented experiments as library calls.
//!
//! [`reproduce_emoji`] shows the paper's claim on the embedded emoji in an hour, without downloads, and [`choose_emoji_lambda`] how its lambda
//! was chosen. [`reproduce_digits`] does the same on digits in minutes. [`reproduce_table`] repeats one of the paper's tables on real data.
//! [`fine_tuning_example`], [`translation_example`] and [`edit_example`] are the examples that the program runs without arguments. All of them
//! take a [`Context`](sdft_jobs::Context), print nothing, and keep finished results: after an interruption, which returns `None`, the same
//! call continues.
//!
//! **Invariant:** finished results in the folder of an experiment are reused, and runs of another experiment are never mixed in.

mod compare;
mod digits;
mod draw;
mod editing;
mod edits;
mod emoji;
mod examples;
mod figures;
mod kept;
mod marked;
mod methods;
mod needs;
mod paper;
mod table;
mod translation;

pub use compare::{COMPARISONS, CompareOptions, compare_methods};
pub use digits::{DigitsOptions, reproduce_digits};
pub use emoji::{EmojiOptions, EmojiScale, choose_emoji_lambda, reproduce_emoji};
pub use examples::{
    EditExample, ExampleOptions, FineTuningExample, TranslationExample, edit_example,
    fine_tuning_example, translation_example,
};
pub use figures::{PaperTable, Target};
pub use needs::TableOptions;
pub use paper::reproduce_table;
pub use table::Report;

use sdft_gallery::Outputs;
use sdft_jobs::Result;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The `plan.toml` of an experiment's folder. Its runs and samples have plans of their own.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExperimentPlan {
    experiment: String,
    /// A table of the paper.
    target: Option<String>,
    /// Hash of the source model, if that is chosen freely.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    source_sha256: Option<String>,
}

/// Locks the folder of an experiment. Its tables and pictures are replaced by later ones.
fn lock_folder(out: &Path, experiment: &str, target: Option<Target>) -> Result<Outputs> {
    let plan = ExperimentPlan {
        experiment: experiment.to_owned(),
        target: target.map(|target| target.name().to_owned()),
        source_sha256: None,
    };
    Ok(Outputs::open(out, &plan, false)?)
}

/// Locks the folder of an experiment that starts from the source model with this hash.
fn lock_folder_from(out: &Path, experiment: &str, source_sha256: &str) -> Result<Outputs> {
    let plan = ExperimentPlan {
        experiment: experiment.to_owned(),
        target: None,
        source_sha256: Some(source_sha256.to_owned()),
    };
    Ok(Outputs::open(out, &plan, false)?)
}
