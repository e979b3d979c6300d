//! The baseline of the target.

use super::Lanes;
use crate::micro::Product;

/// Arrays, which the compiler vectorises for the target.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(super) struct Lanes16([f32; 16]);

impl Lanes16 {
    #[inline(always)]
    fn zip(mut self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        for (a, b) in self.0.iter_mut().zip(other.0) {
            *a = f(*a, b);
        }
        self
    }
}

impl Lanes for Lanes16 {
    const FUSED: bool = cfg!(target_arch = "aarch64");
    #[inline(always)]
    fn zero() -> Self {
        Self([0.0; 16])
    }
    #[inline(always)]
    fn splat(x: f32) -> Self {
        Self([x; 16])
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        self.zip(other, |a, b| a * b)
    }
    #[inline(always)]
    fn mul_add(self, factor: Self, term: Self) -> Self {
        self.mul(factor).add(term)
    }
    #[inline(always)]
    fn neg_mul_add(self, factor: Self, term: Self) -> Self {
        term.sub(self.mul(factor))
    }
    #[inline(always)]
    fn transpose(rows: [Self; 16]) -> [Self; 16] {
        let mut out = [Self::zero(); 16];
        for (i, row) in rows.iter().enumerate() {
            for (out, &value) in out.iter_mut().zip(&row.0) {
                out.0[i] = value;
            }
        }
        out
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { from.cast::<[f32; 16]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: as above.
        unsafe { to.cast::<[f32; 16]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn load_first(from: *const f32, n: usize) -> Self {
        let mut out = Self::zero();
        // SAFETY: the caller's promise, and n < 16.
        unsafe { std::ptr::copy_nonoverlapping(from, out.0.as_mut_ptr(), n) };
        out
    }
    #[inline(always)]
    unsafe fn store_first(self, to: *mut f32, n: usize) {
        // SAFETY: as above.
        unsafe { std::ptr::copy_nonoverlapping(self.0.as_ptr(), to, n) };
    }
    #[inline(always)]
    unsafe fn product(product: &Product) {
        // SAFETY: the caller's promise. Two rows of four-float vectors fill half of sixteen registers.
        unsafe { product.blocks::<Self, 2, 1>() }
    }
}
