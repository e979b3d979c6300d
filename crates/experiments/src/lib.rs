//! Documented experiments as library calls.
//!
//! [`reproduce_emoji`] shows the paper's claim on the embedded emoji in an hour, without downloads, and [`choose_emoji_lambda`] how its lambda
//! was chosen. [`reproduce_digits`] does the same on digits in minutes. [`reproduce_table`] repeats one of the paper's tables on real data.
//! [`fine_tuning_example`], [`translation_example`] and [`edit_example`] are the examples that the program runs without arguments. All of them
//! take a [`Context`](sdft_jobs::Context), print nothing, and keep finished results: after an interruption, which returns `None`, the same
//! call continues.
//!
//! **Invariant:** finished results in the folder of an experiment are reused, and runs of another experiment are never mixed in.

mod digits;
mod draw;
mod edit_example;
mod editing;
mod edits;
mod emoji;
mod figures;
mod fine_tuning;
mod kept;
mod marked;
mod methods;
mod needs;
mod paper;
mod table;
mod translation;
mod translation_example;

pub use digits::{DigitsOptions, reproduce_digits};
pub use edit_example::{EditExample, EditedFolder, edit_example};
pub use emoji::{EmojiOptions, EmojiScale, choose_emoji_lambda, reproduce_emoji};
pub use figures::{PaperTable, Target};
pub use fine_tuning::{FineTuningExample, fine_tuning_example};
pub use needs::TableOptions;
pub use paper::reproduce_table;
pub use table::Report;
pub use translation_example::{TranslationExample, translation_example};

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
}

/// Locks the folder of an experiment. Its tables and pictures are replaced by later ones.
fn lock_folder(out: &Path, experiment: &str, target: Option<Target>) -> Result<Outputs> {
    let plan = ExperimentPlan {
        experiment: experiment.to_owned(),
        target: target.map(|target| target.name().to_owned()),
    };
    Ok(Outputs::open(out, &plan, false)?)
}
