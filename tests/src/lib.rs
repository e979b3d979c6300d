//! Parity with the public reference implementations: their inputs and outputs, case by case.
//!
//! A case is a folder with `case.json` (kind, configuration, tolerance), `tensors.safetensors` (inputs and expected outputs) and,
//! where needed, weights; `parity/README.md` describes the format. [`run`] computes a case's outputs with the crates of this
//! workspace and compares each within the case's own tolerance; [`BUILT`] lists the kinds that there are.
//!
//! ```
//! use sdft_tests::{Outcome, find, packaged, run};
//!
//! let dirs = find(&packaged())?;
//! let case = dirs.iter().find(|dir| dir.ends_with("schedule/respacing_300")).unwrap();
//! assert!(matches!(run(case).outcome, Outcome::Passed { .. }));
//! # Ok::<(), anyhow::Error>(())
//! ```
//!
//! **Invariant:** everything is driven by the case's configuration; no tolerance stands in the code.

pub use crate::{
    array::Array,
    case::{Case, find, packaged},
    check::{Outcome, Verdict, run, verdict},
    kinds::{BUILT, compute},
    weights::{Formula, formula_tensor},
};

mod array;
mod case;
mod check;
mod config;
mod kinds;
mod weights;
