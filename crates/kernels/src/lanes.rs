//! Transposes planes in memory to vectors of sixteen channels, and back.

use crate::simd::Lanes;
use crate::workspace::{Line, get, put};

/// Line `p * step` of `to` gets element `p` of each of `rows <= 16` rows, `stride` apart; zeros fill the lanes
/// without a row. As many lines as `n` rounded up to sixteen are written.
///
/// # Safety
/// `rows` rows of `n` readable floats.
#[inline(always)]
pub(crate) unsafe fn gather<V: Lanes>(
    from: *const f32,
    stride: usize,
    rows: usize,
    n: usize,
    to: &mut [Line],
    step: usize,
) {
    for i in 0..n.div_ceil(16) {
        let width = (n - 16 * i).min(16);
        let from = from.wrapping_add(16 * i);
        let mut block = [V::zero(); 16];
        if width == 16 && rows == 16 {
            for (row, block) in block.iter_mut().enumerate() {
                // SAFETY: the caller's promise.
                *block = unsafe { V::load(from.add(row * stride)) };
            }
        } else {
            for (row, block) in block.iter_mut().enumerate() {
                if row < rows {
                    let from = from.wrapping_add(row * stride);
                    // SAFETY: the caller's promise.
                    *block = unsafe {
                        if width == 16 {
                            V::load(from)
                        } else {
                            V::load_first(from, width)
                        }
                    };
                }
            }
        }
        let block = V::transpose(block);
        let lines = &mut to[16 * i * step..][..15 * step + 1];
        for (line, &value) in lines.iter_mut().step_by(step).zip(&block) {
            put(line, value);
        }
    }
}

/// The inverse of [`gather`]: element `p` of each row is taken from line `p * step`. As many lines as `n` rounded up to
/// sixteen are read.
///
/// # Safety
/// `rows` rows of `n` writable floats.
#[inline(always)]
pub(crate) unsafe fn scatter<V: Lanes>(
    from: &[Line],
    step: usize,
    to: *mut f32,
    stride: usize,
    rows: usize,
    n: usize,
) {
    // SAFETY: the caller's promise.
    unsafe { scatter_onto::<V>(from, step, None, to, stride, rows, n) };
}

/// [`scatter`] from lines that follow each other, plus the rows from `map` on.
///
/// # Safety
/// `rows` rows of `n` floats, readable from `map` on and writable from `to` on.
#[inline(always)]
pub(crate) unsafe fn scatter_sum<V: Lanes>(
    from: &[Line],
    map: *const f32,
    to: *mut f32,
    stride: usize,
    rows: usize,
    n: usize,
) {
    // SAFETY: the caller's promise.
    unsafe { scatter_onto::<V>(from, 1, Some(map), to, stride, rows, n) };
}

/// # Safety
/// That of [`scatter`] and [`scatter_sum`].
#[inline(always)]
unsafe fn scatter_onto<V: Lanes>(
    from: &[Line],
    step: usize,
    map: Option<*const f32>,
    to: *mut f32,
    stride: usize,
    rows: usize,
    n: usize,
) {
    for i in 0..n.div_ceil(16) {
        let width = (n - 16 * i).min(16);
        let to = to.wrapping_add(16 * i);
        let map = map.map(|map| map.wrapping_add(16 * i));
        let mut block = [V::zero(); 16];
        let lines = &from[16 * i * step..][..15 * step + 1];
        for (block, line) in block.iter_mut().zip(lines.iter().step_by(step)) {
            *block = get(line);
        }
        let block = V::transpose(block);
        if width == 16 && rows == 16 {
            for (row, &value) in block.iter().enumerate() {
                // SAFETY: the caller's promise.
                unsafe {
                    let value = match map {
                        None => value,
                        Some(map) => V::load(map.add(row * stride)).add(value),
                    };
                    value.store(to.add(row * stride));
                }
            }
        } else {
            for (row, &value) in block.iter().enumerate() {
                if row < rows {
                    let to = to.wrapping_add(row * stride);
                    // SAFETY: the caller's promise.
                    unsafe {
                        let value = match map {
                            None => value,
                            Some(map) if width == 16 => V::load(map.add(row * stride)).add(value),
                            Some(map) => V::load_first(map.add(row * stride), width).add(value),
                        };
                        if width == 16 {
                            value.store(to)
                        } else {
                            value.store_first(to, width)
                        }
                    };
                }
            }
        }
    }
}
