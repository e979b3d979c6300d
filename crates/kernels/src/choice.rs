//! The instruction set and the convolution algorithm, selected once per process.

use crate::Error;
use crate::simd::Simd;
use crate::tiles::Unit;
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

/// Instruction set and algorithms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) simd: Simd,
    pub(crate) algorithm: Algorithm,
    /// What multiplies bf16; f32 products of rounded factors if there is none.
    pub(crate) bf16: Option<Unit>,
}

impl Choice {
    /// The fastest of each, unless `SDFT_SIMD` (`avx512`, `avx2`, `portable`), `SDFT_CONV` (`direct`, `f2`, `f4`) or
    /// `SDFT_BF16` (`amx`, `avx512`, `portable`, `f32`) names another. An invalid name is ignored. The matrix products of `direct` come from
    /// the crate `gemm`, which selects its instruction set itself.
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
                bf16: Unit::choose(read("SDFT_BF16").as_deref()),
            }
        })
    }
}

/// Checks `SDFT_SIMD`, `SDFT_CONV` and `SDFT_BF16`. Kernels ignore an invalid value, so a program checks once when it starts.
///
/// # Errors
/// A name that is unknown, or an instruction set that this machine lacks.
pub fn check_kernel_environment() -> Result<(), Error> {
    let sets: Vec<&str> = Simd::available().iter().map(|simd| simd.name()).collect();
    let mut units = vec!["f32"];
    units.extend(Unit::available().iter().map(|unit| unit.name()));
    for (variable, names) in [
        ("SDFT_SIMD", &sets[..]),
        ("SDFT_CONV", &ALGORITHMS[..]),
        ("SDFT_BF16", &units[..]),
    ] {
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

/// Whether feature maps in bf16 are computed faster than in f32 on this machine: it has a matrix unit.
pub fn bf16_is_fast() -> bool {
    Choice::get().bf16.is_some_and(Unit::beats_winograd)
}

/// The instruction set and the convolution algorithm of this process, and what multiplies bf16 if the processor can, such as
/// `avx512 f4 amx`.
pub fn kernel_choice() -> String {
    let choice = Choice::get();
    let algorithm = match choice.algorithm {
        Algorithm::Direct => "direct",
        Algorithm::F2 => "f2",
        Algorithm::F4 => "f4",
    };
    let unit = choice.bf16.map(|unit| format!(" {}", unit.name()));
    format!(
        "{} {algorithm}{}",
        choice.simd.name(),
        unit.unwrap_or_default()
    )
}
