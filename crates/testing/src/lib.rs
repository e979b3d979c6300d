//! For tests only: tiny networks, parity cases, test images, and the program run as a user runs it.
//!
//! - Networks: [`tiny_config`] is the smallest architecture, [`nonzero_unet`] a network of it whose output is not zero.
//! - Tensors: [`normal`] is seeded noise, [`max_abs_diff`] the difference of two tensors.
//! - Parity: a [`Case`] is a folder of `tests/parity` (`parity/README.md` there describes the format). [`compare`] compares computed
//!   [`Array`]s with its expected ones. [`adm_config`], [`diffusion`] and others turn its configuration into that of the workspace.
//! - Programs: a [`Workspace`] is a temporary folder that a program runs in.
//!
//! ```
//! use sdft_testing::{Case, parity_folder};
//!
//! let case = Case::read(&parity_folder().join("diffusion/q_sample_linear"))?;
//! let xt = case.diffusion()?.q_sample(&case.input("x_start")?, &case.steps("t")?, &case.input("noise")?)?;
//! assert_eq!(xt.dims(), case.stored("x_t")?.dims());
//! # Ok::<(), anyhow::Error>(())
//! ```
//!
//! **Invariant:** nothing but tests depends on this crate; a case's tolerance is in its file, never in code.

mod array;
mod case;
mod compare;
mod config;
mod images;
mod networks;
mod program;
mod stage;
mod tensors;
mod weights;

pub use array::Array;
pub use case::{Case, find_cases, kind_of, parity_folder};
pub use compare::compare;
pub use config::{adm_config, diffusion, encoder_config, flag, number_or, schedule, weighting};
pub use images::{test_image, write_images};
pub use networks::{initial_params, nonzero_params, nonzero_unet, tiny_config};
pub use program::{Run, Workspace};
pub use stage::{compute_dtype, compute_on, device};
pub use tensors::{max_abs_diff, normal, values};
pub use weights::{Formula, formula_tensor};
