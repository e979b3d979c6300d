//! AVX2 with FMA.

use super::{Lanes, Task};
use crate::micro::Product;
use std::arch::x86_64::*;

/// # Safety
/// The processor has these instructions.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn run<K: Task>(task: K) -> K::Output {
    task.run::<Lanes16>()
}

#[derive(Clone, Copy)]
pub(super) struct Lanes16(__m256, __m256);

/// All ones in the first `n` of eight lanes.
#[inline(always)]
fn first(n: usize) -> __m256i {
    // SAFETY: inside `run`, as everything below.
    unsafe {
        let lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        _mm256_cmpgt_epi32(_mm256_set1_epi32(n.min(8) as i32), lane)
    }
}

/// Four vectors of two four-lane groups, as for 512 bits.
#[inline(always)]
unsafe fn transpose_groups(r: [__m256; 4]) -> [__m256; 4] {
    // SAFETY: called by `transpose` only.
    unsafe {
        let (a, b) = (
            _mm256_unpacklo_ps(r[0], r[1]),
            _mm256_unpackhi_ps(r[0], r[1]),
        );
        let (c, d) = (
            _mm256_unpacklo_ps(r[2], r[3]),
            _mm256_unpackhi_ps(r[2], r[3]),
        );
        [
            _mm256_shuffle_ps::<0x44>(a, c),
            _mm256_shuffle_ps::<0xee>(a, c),
            _mm256_shuffle_ps::<0x44>(b, d),
            _mm256_shuffle_ps::<0xee>(b, d),
        ]
    }
}

#[inline(always)]
unsafe fn transpose8(r: [__m256; 8]) -> [__m256; 8] {
    // SAFETY: called by `transpose` only.
    unsafe {
        let low = transpose_groups([r[0], r[1], r[2], r[3]]);
        let high = transpose_groups([r[4], r[5], r[6], r[7]]);
        let mut out = r;
        for j in 0..4 {
            out[j] = _mm256_permute2f128_ps::<0x20>(low[j], high[j]);
            out[j + 4] = _mm256_permute2f128_ps::<0x31>(low[j], high[j]);
        }
        out
    }
}

impl Lanes for Lanes16 {
    const FUSED: bool = true;
    #[inline(always)]
    fn zero() -> Self {
        Self::splat(0.0)
    }
    #[inline(always)]
    fn splat(x: f32) -> Self {
        // SAFETY: as above.
        let x = unsafe { _mm256_set1_ps(x) };
        Self(x, x)
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: as above.
        unsafe {
            Self(
                _mm256_add_ps(self.0, other.0),
                _mm256_add_ps(self.1, other.1),
            )
        }
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        // SAFETY: as above.
        unsafe {
            Self(
                _mm256_sub_ps(self.0, other.0),
                _mm256_sub_ps(self.1, other.1),
            )
        }
    }
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        // SAFETY: as above.
        unsafe {
            Self(
                _mm256_mul_ps(self.0, other.0),
                _mm256_mul_ps(self.1, other.1),
            )
        }
    }
    #[inline(always)]
    fn mul_add(self, factor: Self, term: Self) -> Self {
        // SAFETY: as above.
        unsafe {
            Self(
                _mm256_fmadd_ps(self.0, factor.0, term.0),
                _mm256_fmadd_ps(self.1, factor.1, term.1),
            )
        }
    }
    #[inline(always)]
    fn neg_mul_add(self, factor: Self, term: Self) -> Self {
        // SAFETY: as above.
        unsafe {
            Self(
                _mm256_fnmadd_ps(self.0, factor.0, term.0),
                _mm256_fnmadd_ps(self.1, factor.1, term.1),
            )
        }
    }
    #[inline(always)]
    fn transpose(r: [Self; 16]) -> [Self; 16] {
        let mut out = r;
        for half in 0..2 {
            let (mut left, mut right) = ([r[0].0; 8], [r[0].0; 8]);
            for i in 0..8 {
                left[i] = r[8 * half + i].0;
                right[i] = r[8 * half + i].1;
            }
            // SAFETY: as above.
            let (left, right) = unsafe { (transpose8(left), transpose8(right)) };
            for i in 0..8 {
                if half == 0 {
                    (out[i].0, out[i + 8].0) = (left[i], right[i]);
                } else {
                    (out[i].1, out[i + 8].1) = (left[i], right[i]);
                }
            }
        }
        out
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self(_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe {
            _mm256_storeu_ps(to, self.0);
            _mm256_storeu_ps(to.add(8), self.1);
        }
    }
    #[inline(always)]
    unsafe fn load_first(from: *const f32, n: usize) -> Self {
        let (low, high) = (first(n), first(n.saturating_sub(8)));
        // SAFETY: the caller's promise; lanes outside the mask are not read.
        unsafe {
            Self(
                _mm256_maskload_ps(from, low),
                _mm256_maskload_ps(from.wrapping_add(8), high),
            )
        }
    }
    #[inline(always)]
    unsafe fn store_first(self, to: *mut f32, n: usize) {
        let (low, high) = (first(n), first(n.saturating_sub(8)));
        // SAFETY: the caller's promise; lanes outside the mask are not written.
        unsafe {
            _mm256_maskstore_ps(to, low, self.0);
            _mm256_maskstore_ps(to.wrapping_add(8), high, self.1);
        }
    }
    #[inline(always)]
    unsafe fn product(product: &Product) {
        // SAFETY: the caller's promise. Eight sums, two operands and a factor fit sixteen registers.
        unsafe { product.blocks::<Self, 4, 1>() }
    }
}
