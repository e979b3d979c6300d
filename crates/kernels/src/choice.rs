//! The instruction set and the convolution algorithm, selected once per process.

use crate::Error;
use crate::simd::Simd;
use std::sync::OnceLock;

/// How 3x3 convolutions of f32 are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Algorithm {
    /// By column blocks and matrix products, as always for f64.
    Direct,
    /// Winograd's F(2x2, 3x3): errors like those of `Direct`, 2.25 times fewer multiplications.
    F2,
    /// Winograd's F(4x4, 3x3): errors about five times larger, 4 times fewer multiplications.
    F4,
}

const ALGORITHMS: [&str; 3] = ["direct", "f2", "f4"];

/// Instruction set and algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) simd: Simd,
    pub(crate) algorithm: Algorithm,
}

impl Choice {
    /// The fastest of both, unless `SDFT_SIMD` (`avx512`, `avx2`, `portable`) or `SDFT_CONV` (`direct`,
    /// `f2`, `f4`) names another. An invalid name is ignored. The matrix products of `direct` come from the crate
    /// `gemm`, which selects its instruction set itself.
    pub(crate) fn get() -> Self {
        static CHOICE: OnceLock<Choice> = OnceLock::new();
        *CHOICE.get_or_init(|| {
            let read = |name| std::env::var(name).ok();
            Self {
                simd: Simd::choose(read("SDFT_SIMD").as_deref()),
                algorithm: match read("SDFT_CONV").as_deref() {
                    Some("direct") => Algorithm::Direct,
                    Some("f2") => Algorithm::F2,
                    _ => Algorithm::F4,
                },
            }
        })
    }
}

/// Checks `SDFT_SIMD` and `SDFT_CONV`. Kernels ignore an invalid value, so a program checks once when it starts.
///
/// # Errors
/// A name that is unknown, or an instruction set that this machine lacks.
pub fn check_kernel_environment() -> Result<(), Error> {
    let sets: Vec<&str> = Simd::available().iter().map(|simd| simd.name()).collect();
    for (variable, names) in [("SDFT_SIMD", &sets[..]), ("SDFT_CONV", &ALGORITHMS[..])] {
        if let Some(found) = std::env::var_os(variable)
            && !names.iter().any(|name| found == *name)
        {
            return Err(Error {
                variable,
                expected: names.join(", "),
                found,
            });
        }
    }
    Ok(())
}

/// The instruction set and the convolution algorithm of this process, such as `avx512 f4`.
pub fn kernel_choice() -> String {
    let choice = Choice::get();
    let algorithm = match choice.algorithm {
        Algorithm::Direct => "direct",
        Algorithm::F2 => "f2",
        Algorithm::F4 => "f4",
    };
    format!("{} {algorithm}", choice.simd.name())
}
