//! Every workflow as a library call.
//!
//! A job takes options and a [`Context`], writes its results, and returns a report. It prints nothing and installs no handlers: lines
//! and progress go to [`Context::progress`], and [`Context::stop`] stops it after saving. Errors name the option that has to change.
//!
//! **Invariant:** whatever the program `sdft` does, a Rust program can do by one call; the same options give the same files.

mod context;
mod data;
mod embedded;
mod error;
mod estimate;
mod judge;
mod model;
mod training;
mod weights;

pub use context::{Context, Runtime, open_device, resolve_precision};
pub use data::{fingerprint, list_inputs, open_data, same_images};
pub use embedded::{DIGITS, DIGITS_SOURCE, is_embedded};
pub use error::{Error, Result, ResultExt};
pub use estimate::{Disk, Estimate};
pub use judge::{judge_features, load_judge, second_judge, train_judge};
pub use model::{
    ModelFile, all_fields, check_makes_images, check_unchanged, check_unconditional, load_model,
    load_source, newest_run,
};
pub use training::*;
pub use weights::{Files, Weights};
