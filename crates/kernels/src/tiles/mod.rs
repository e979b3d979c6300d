//! Products of bf16 matrices in blocks, summed in f32 by instructions that the processor has for it.

// A block is 32 x 32 sums of products of 32 x 32 factors, step by step. The factors of one step are four tiles of one kilobyte, as AMX
// wants them: a tile of `A` is 16 rows of 32 terms, and a tile of `B` is 16 pairs of terms of 16 columns, the two of a pair side by side.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod amx;
#[cfg(all(test, target_arch = "x86_64", target_os = "linux"))]
pub(crate) mod amx_emulator;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;
#[cfg(test)]
pub(crate) mod tests;

use std::marker::PhantomData;

/// Rows and columns of a block, and terms of a step.
pub(crate) const BLOCK: usize = 32;
/// Rows and columns of a tile.
pub(crate) const TILE: usize = 16;
/// Bytes of a tile.
pub(crate) const TILE_BYTES: usize = 1024;

/// What multiplies bf16.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Plain loops: never the fastest, the same everywhere.
    Portable,
    /// `vdpbf16ps`, of AVX-512.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// The matrix unit of Intel's servers.
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    Amx,
}

/// One block: where its factors are, and where its sums go. Distances are in bytes.
pub(crate) struct Block<'a> {
    /// The factors `A`: from one row of a tile to the next 64 bytes.
    pub(crate) a: *const u8,
    /// From the tile of the first sixteen rows to that of the others.
    pub(crate) a_second: usize,
    /// The factors `B`.
    pub(crate) b: *const u8,
    /// From one pair of terms to the next.
    pub(crate) b_row: usize,
    /// From the tile of the first sixteen columns to that of the others.
    pub(crate) b_second: usize,
    /// Where the tiles of each step begin, from `a` and `b` on.
    pub(crate) steps: &'a [[u32; 2]],
    /// The sums, f32.
    pub(crate) c: *mut f32,
    /// From one row of sums to the next.
    pub(crate) c_row: usize,
    /// Whether the products are added to the sums that are there.
    pub(crate) add: bool,
}

impl Unit {
    /// The units of this machine, slowest first. Asks the kernel for the matrix unit.
    pub(crate) fn available() -> Vec<Self> {
        #[cfg_attr(
            not(target_arch = "x86_64"),
            expect(unused_mut, reason = "no other unit there")
        )]
        let mut all = vec![Self::Portable];
        #[cfg(target_arch = "x86_64")]
        if avx512::is_available() {
            all.push(Self::Avx512);
        }
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        if amx::is_available() {
            all.push(Self::Amx);
        }
        all
    }

    /// The unit that is worth its instructions, or the one of this name (`amx`, `avx512`, `portable`; `f32` for none) if it is available.
    pub(crate) fn choose(name: Option<&str>) -> Option<Self> {
        let all = Self::available();
        if let Some(name) = name {
            if name == "f32" {
                return None;
            }
            if let Some(unit) = all.iter().find(|unit| unit.name() == name) {
                return Some(*unit);
            }
        }
        all.into_iter().rfind(|unit| unit.is_fast())
    }

    /// Whether products by this unit are faster than those of f32. A rule instead of a measurement: the bits of a result must not
    /// depend on what else the machine was doing.
    fn is_fast(self) -> bool {
        match self {
            Self::Portable => false,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => avx512::is_fast(),
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Self::Amx => true,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => "avx512",
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Self::Amx => "amx",
        }
    }

    /// Whether products by this unit are faster than Winograd's convolutions of f32.
    ///
    /// `vdpbf16ps` has at most twice the rate of f32 products, and a quarter of the multiplications is left by F(4x4, 3x3).
    pub(crate) fn beats_winograd(self) -> bool {
        match self {
            Self::Portable => false,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => false,
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Self::Amx => true,
        }
    }

    /// Prepares the calling thread.
    pub(crate) fn start(self) -> Session {
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        if self == Self::Amx {
            // SAFETY: values of this type come from `available`, or from tests that emulate the unit.
            unsafe { amx::configure() };
        }
        Session {
            unit: self,
            thread: PhantomData,
        }
    }
}

/// A thread that can compute blocks. The state of the matrix unit is released with it.
pub(crate) struct Session {
    unit: Unit,
    /// The state belongs to the thread.
    thread: PhantomData<*const ()>,
}

impl Session {
    /// Computes a block.
    ///
    /// # Safety
    /// The tiles of all steps can be read, and 32 rows of 32 sums written.
    pub(crate) unsafe fn block(&self, block: &Block<'_>) {
        match self.unit {
            // SAFETY: the caller's promise.
            Unit::Portable => unsafe { portable::block(block) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the unit is available; the caller's promise.
            Unit::Avx512 => unsafe { avx512::block(block) },
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            // SAFETY: configured by `start`; the caller's promise.
            Unit::Amx => unsafe { amx::block(block) },
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        if self.unit == Unit::Amx {
            // SAFETY: configured by `start`, on this thread.
            unsafe { amx::release() };
        }
    }
}
