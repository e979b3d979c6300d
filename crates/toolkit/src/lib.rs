//! Finds NVIDIA's driver, compiler and libraries on this machine, and says what to install.
//!
//! A toolkit is found where the variables of NVIDIA's installers point (`CUDA_HOME`, `CUDA_PATH`), on the `PATH`, in the usual folders, in the
//! active conda environment, and among the packages of the Python on the `PATH`. Libraries may have versioned names only, as in Python
//! packages (`libcudnn.so.9`).
//!
//! ```
//! let driver = sdft_toolkit::driver();
//! let toolkit = sdft_toolkit::toolkit(&driver);
//! if let Some(problem) = sdft_toolkit::problem(toolkit.as_ref(), &driver) {
//!     // What is missing, and the command that installs it.
//!     assert!(problem.contains("install"), "{problem}");
//! }
//! ```
//!
//! **Invariant:** reads names of files and asks `nvcc`, `nvidia-smi` and `python3` for their versions and folders; loads no library.

mod advice;
mod driver;
mod find;
mod library;
mod system;

pub use advice::{caution, problem, without_nccl};
pub use driver::{Driver, driver, has_gpu};
pub use find::{Toolkit, toolkit};

/// A version of CUDA, major and minor.
pub type Version = (u32, u32);
