//! Settings of a plan: presets, then TOML files, then `KEY=VALUE` assignments.
//!
//! A plan is any type with serde's two traits and a default value. Its settings are collected in a [`toml::Table`] that is checked
//! against that default value after every layer, so an unknown key or a value of another type is reported together with where it was
//! given and what was probably meant. [`plan`] turns the table into the plan; what no layer sets keeps its default.
//!
//! ```
//! use sdft_settings::{Presets, layers, plan, set};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Default, Serialize, Deserialize)]
//! struct Training { steps: u64, lr: f64 }
//!
//! const PRESETS: Presets = Presets(&[("fast", "steps = 100\nlr = 0.1")]);
//!
//! let mut table = layers::<Training>(&PRESETS, &["fast"])?;
//! set::<Training>(&mut table, "lr=1e-4")?;
//! let training: Training = plan(table)?;
//! assert_eq!((training.steps, training.lr), (100, 1e-4));
//! assert!(set::<Training>(&mut toml::Table::new(), "lrr=1").unwrap_err().to_string().contains("did you mean lr?"));
//! # Ok::<(), sdft_settings::Error>(())
//! ```
//!
//! A section can be of several kinds, which its key `architecture` (inside EDM networks `model_type`, of a continuous process `process_type`) names. The kind decides the other keys of the section.
//!
//! **Invariant:** a key that the plan does not have is an error, never ignored; nothing is printed and no file is written.

mod check;
mod error;
mod keys;
mod layers;
mod presets;
mod table;

pub use error::{Error, Result};
pub use layers::{assigned, layers, peek, set, set_all};
pub use presets::Presets;
pub use table::{Plan, complete, given, merge, plan, put, read};
