//! Loops over plain slices. No tensor library here, so each kernel can be read and tested alone.
//!
//! Work is cut into jobs whose number and borders depend on shapes only, never on the number of
//! threads, and partial sums are added in a fixed order: the same bits come out for any thread count.

pub(crate) mod attention;
mod choice;
pub(crate) mod conv;
pub(crate) mod elementwise;
pub(crate) mod gemm;
mod measure;
mod micro;
pub(crate) mod norm;
pub(crate) mod pool;
mod real;
pub(crate) mod resample;
mod shared_mut;
mod simd;
mod workspace;

pub use choice::{check_kernel_environment, kernel_choice};
pub use measure::measure_flops;
pub(crate) use real::Real;
pub(crate) use shared_mut::SharedMut;
