//! Parity with the public reference implementations, case by case.
//!
//! A case is a folder with `case.json` (kind, configuration, tolerance), `tensors.safetensors` (inputs and expected outputs) and,
//! where needed, weights; `parity/README.md` describes the format. [`run`] computes a case's outputs with the crates of this
//! workspace and compares each within the case's own tolerance. [`walk`] does so for all cases below a folder. [`BUILT`] lists the
//! supported kinds.
//!
//! ```
//! use sdft_testing::parity_folder;
//! use sdft_tests::{Outcome, walk};
//!
//! let verdicts = walk(&parity_folder(), |kind| kind == "schedule.respacing")?;
//! assert!(verdicts.iter().all(|v| matches!(v.outcome, Outcome::Passed { .. })));
//! # Ok::<(), anyhow::Error>(())
//! ```
//!
//! [`compare_devices`] compares every operation on a device with the CPU; `sdft_testing::compute_on` computes the cases on a device.
//!
//! **Invariant:** the configuration of a case determines what is computed; tolerances are never in code.

mod base_loss;
mod check;
mod devices;
mod kinds;

pub use check::{Outcome, Verdict, run, walk};
pub use devices::{Finding, compare_devices};
pub use kinds::{BUILT, compute};
