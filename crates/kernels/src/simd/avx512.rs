//! AVX-512.

use super::{Lanes, Task};
use crate::micro::Product;
use std::arch::x86_64::*;

/// # Safety
/// The processor has these instructions.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) unsafe fn run<K: Task>(task: K) -> K::Output {
    task.run::<Lanes16>()
}

#[derive(Clone, Copy)]
pub(super) struct Lanes16(__m512);

#[inline(always)]
fn first(n: usize) -> __mmask16 {
    ((1u32 << n) - 1) as __mmask16
}

/// Four vectors of four-lane groups: element j of group g of vector i becomes element i of group g of
/// vector j.
#[inline(always)]
unsafe fn transpose_groups(r: [__m512; 4]) -> [__m512; 4] {
    // SAFETY: called by `transpose` only.
    unsafe {
        let (a, b) = (
            _mm512_unpacklo_ps(r[0], r[1]),
            _mm512_unpackhi_ps(r[0], r[1]),
        );
        let (c, d) = (
            _mm512_unpacklo_ps(r[2], r[3]),
            _mm512_unpackhi_ps(r[2], r[3]),
        );
        let (a, b) = (_mm512_castps_pd(a), _mm512_castps_pd(b));
        let (c, d) = (_mm512_castps_pd(c), _mm512_castps_pd(d));
        [
            _mm512_castpd_ps(_mm512_unpacklo_pd(a, c)),
            _mm512_castpd_ps(_mm512_unpackhi_pd(a, c)),
            _mm512_castpd_ps(_mm512_unpacklo_pd(b, d)),
            _mm512_castpd_ps(_mm512_unpackhi_pd(b, d)),
        ]
    }
}

impl Lanes for Lanes16 {
    const FUSED: bool = true;
    #[inline(always)]
    fn zero() -> Self {
        // SAFETY: inside `run`, as everything below.
        Self(unsafe { _mm512_setzero_ps() })
    }
    #[inline(always)]
    fn splat(x: f32) -> Self {
        // SAFETY: as above.
        Self(unsafe { _mm512_set1_ps(x) })
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: as above.
        Self(unsafe { _mm512_add_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        // SAFETY: as above.
        Self(unsafe { _mm512_sub_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        // SAFETY: as above.
        Self(unsafe { _mm512_mul_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn mul_add(self, factor: Self, term: Self) -> Self {
        // SAFETY: as above.
        Self(unsafe { _mm512_fmadd_ps(self.0, factor.0, term.0) })
    }
    #[inline(always)]
    fn neg_mul_add(self, factor: Self, term: Self) -> Self {
        // SAFETY: as above.
        Self(unsafe { _mm512_fnmadd_ps(self.0, factor.0, term.0) })
    }
    #[inline(always)]
    fn transpose(r: [Self; 16]) -> [Self; 16] {
        // SAFETY: as above.
        unsafe {
            let a = transpose_groups([r[0].0, r[1].0, r[2].0, r[3].0]);
            let b = transpose_groups([r[4].0, r[5].0, r[6].0, r[7].0]);
            let c = transpose_groups([r[8].0, r[9].0, r[10].0, r[11].0]);
            let d = transpose_groups([r[12].0, r[13].0, r[14].0, r[15].0]);
            let mut out = [Self::zero(); 16];
            for j in 0..4 {
                // Groups 0 and 2, then 1 and 3, of rows 0-7 and 8-15; then the same again.
                let even_low = _mm512_shuffle_f32x4::<0x88>(a[j], b[j]);
                let odd_low = _mm512_shuffle_f32x4::<0xdd>(a[j], b[j]);
                let even_high = _mm512_shuffle_f32x4::<0x88>(c[j], d[j]);
                let odd_high = _mm512_shuffle_f32x4::<0xdd>(c[j], d[j]);
                out[j] = Self(_mm512_shuffle_f32x4::<0x88>(even_low, even_high));
                out[j + 4] = Self(_mm512_shuffle_f32x4::<0x88>(odd_low, odd_high));
                out[j + 8] = Self(_mm512_shuffle_f32x4::<0xdd>(even_low, even_high));
                out[j + 12] = Self(_mm512_shuffle_f32x4::<0xdd>(odd_low, odd_high));
            }
            out
        }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { _mm512_loadu_ps(from) })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { _mm512_storeu_ps(to, self.0) }
    }
    #[inline(always)]
    unsafe fn load_first(from: *const f32, n: usize) -> Self {
        // SAFETY: the caller's promise; lanes outside the mask are not read.
        Self(unsafe { _mm512_maskz_loadu_ps(first(n), from) })
    }
    #[inline(always)]
    unsafe fn store_first(self, to: *mut f32, n: usize) {
        // SAFETY: the caller's promise; lanes outside the mask are not written.
        unsafe { _mm512_mask_storeu_ps(to, first(n), self.0) }
    }
    #[inline(always)]
    unsafe fn product(product: &Product) {
        // SAFETY: the caller's promise. Sixteen sums cover the latency of the multiply-adds.
        unsafe { product.blocks::<Self, 8, 2>() }
    }
}
