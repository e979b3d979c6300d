//! The Python module `sdft_py`: what Python programs use of this library, on NumPy's arrays.
//!
//! | functions | library |
//! |---|---|
//! | `fid`, `kid`, `precision_recall` on features; `psnr`, `ssim` on images | `sdft_metrics` |
//! | `resize`, which equals Pillow's | `sdft_imaging` |
//! | `read_checkpoint` | `sdft_checkpoint` |
//! | `sample` | `sdft_jobs` |
//!
//! `sdft_py.pyi` has the types. Notes of the library go to Python's logger `sdft_py`.
//!
//! **Invariant:** converts arguments and results and computes nothing itself; arrays are copied before other Python threads run.

mod arrays;
mod checkpoint;
mod error;
mod images;
mod log;
mod sample;
mod sets;
mod tuples;

use pyo3::prelude::*;

/// Metrics, exact resizing, checkpoints and sampling of diffusion models, computed in Rust on NumPy arrays.
#[pymodule]
mod sdft_py {
    #[pymodule_export]
    use crate::checkpoint::read_checkpoint;
    #[pymodule_export]
    use crate::images::{psnr, resize, ssim};
    #[pymodule_export]
    use crate::sample::sample;
    #[pymodule_export]
    use crate::sets::{fid, kid, precision_recall};
    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))?;
        crate::tuples::add_to(module)
    }
}
