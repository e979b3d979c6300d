//! Parity with the public reference implementations: their inputs and outputs, case by case.
//!
//! A case is a folder with `case.json` (kind, configuration, tolerance), `tensors.safetensors` (inputs and expected outputs) and,
//! where needed, weights; `parity/README.md` describes the format. [`run`] computes a case's outputs with the crates of this
//! workspace and compares each within the case's own tolerance, [`walk`] does so for a tree of them; [`BUILT`] lists the kinds that
//! there are.
//!
//! ```
//! use sdft_tests::{Outcome, packaged, walk};
//!
//! let verdicts = walk(&packaged(), |kind| kind == "schedule.respacing")?;
//! assert!(verdicts.iter().all(|v| matches!(v.outcome, Outcome::Passed { .. })));
//! # Ok::<(), anyhow::Error>(())
//! ```
//!
//! [`compare_devices`] holds every operation on a device against the CPU; [`perform_on`] takes the cases there.
//!
//! **Invariant:** everything about a case is driven by its configuration; no tolerance of one stands in the code.

pub use crate::{
    array::Array,
    case::{Case, find, packaged},
    check::{Outcome, Verdict, compare, run, walk},
    devices::{Finding, compare_devices},
    kinds::{BUILT, compute},
    stage::perform_on,
    weights::{Formula, formula_tensor},
};

mod array;
mod case;
mod check;
mod config;
mod devices;
mod kinds;
mod stage;
mod weights;
