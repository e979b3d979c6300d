//! The matrix product of the fast convolutions: a block of sums stays in registers while one side is read sixteen columns at a time.

use crate::simd::Lanes;

/// `c = a b`, or `c += a b`. `b` and `c` are contiguous along their columns; `b` may come in panels of
/// 32 columns.
#[derive(Clone, Copy)]
pub(crate) struct Product {
    /// A multiple of 8.
    pub(crate) rows: usize,
    /// A multiple of 16.
    pub(crate) columns: usize,
    /// The length of each sum.
    pub(crate) depth: usize,
    pub(crate) a: *const f32,
    pub(crate) a_row: usize,
    pub(crate) a_depth: usize,
    pub(crate) b: *const f32,
    pub(crate) b_depth: usize,
    /// Distance between column 0 and column 32.
    pub(crate) b_panel: usize,
    pub(crate) c: *mut f32,
    pub(crate) c_row: usize,
    /// Adds to what is in `c` instead of replacing it.
    pub(crate) add: bool,
    /// Added to every element of a row: one number per row, or null for none.
    pub(crate) bias: *const f32,
}

impl Product {
    /// # Safety
    /// All elements named by sizes and strides are readable (`a`, `b`) or writable (`c`), and `c`
    /// overlaps neither of the others.
    #[inline(always)]
    pub(crate) unsafe fn run<V: Lanes>(&self) {
        // SAFETY: the caller's promise.
        unsafe { V::product(self) }
    }

    /// Cuts the product into register blocks of `R` rows and `16 C` columns.
    /// # Safety
    /// As [`Self::run`]; `R` divides 8.
    #[inline(always)]
    pub(super) unsafe fn blocks<V: Lanes, const R: usize, const C: usize>(&self) {
        debug_assert!(self.rows.is_multiple_of(8) && self.columns.is_multiple_of(16));
        let mut column = 0;
        while column < self.columns {
            let b = self
                .b
                .wrapping_add(column / 32 * self.b_panel + column % 32);
            let wide = column + 16 * C <= self.columns;
            for row in (0..self.rows).step_by(R) {
                let bias = if self.bias.is_null() {
                    self.bias
                } else {
                    self.bias.wrapping_add(row)
                };
                let a = self.a.wrapping_add(row * self.a_row);
                let c = self.c.wrapping_add(row * self.c_row + column);
                // SAFETY: the block lies inside the product.
                unsafe {
                    if wide {
                        self.block::<V, R, C>(a, b, c, bias);
                    } else {
                        self.block::<V, R, 1>(a, b, c, bias);
                    }
                }
            }
            column += if wide { 16 * C } else { 16 };
        }
    }

    #[inline(always)]
    unsafe fn block<V: Lanes, const R: usize, const C: usize>(
        &self,
        mut a: *const f32,
        mut b: *const f32,
        c: *mut f32,
        bias: *const f32,
    ) {
        // SAFETY: the caller's promise covers every element read or written below; the pointers may
        // end up outside, but are not read there.
        unsafe {
            let mut sums = [[V::zero(); C]; R];
            for _ in 0..self.depth {
                let mut right = [V::zero(); C];
                for (j, right) in right.iter_mut().enumerate() {
                    *right = V::load(b.add(16 * j));
                }
                for (i, sums) in sums.iter_mut().enumerate() {
                    let left = V::splat(*a.add(i * self.a_row));
                    for (sum, &right) in sums.iter_mut().zip(&right) {
                        *sum = left.mul_add(right, *sum);
                    }
                }
                a = a.wrapping_add(self.a_depth);
                b = b.wrapping_add(self.b_depth);
            }
            for (i, sums) in sums.iter_mut().enumerate() {
                if !bias.is_null() {
                    let bias = V::splat(*bias.add(i));
                    for sum in sums.iter_mut() {
                        *sum = sum.add(bias);
                    }
                }
                for (j, &sum) in sums.iter().enumerate() {
                    let to = c.add(i * self.c_row + 16 * j);
                    let total = if self.add { V::load(to).add(sum) } else { sum };
                    total.store(to);
                }
            }
        }
    }
}
