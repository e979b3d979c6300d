//! AVX-512: `vdpbf16ps` adds the products of two pairs to each of sixteen sums.

use super::{BLOCK, Block, TILE};
use std::arch::x86_64::*;

/// Rows whose sums are in registers: sixteen vectors of sums cover the latency of the instruction.
const ROWS: usize = 8;

pub(super) fn is_available() -> bool {
    is_x86_feature_detected!("avx512bf16")
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
}

/// Whether the instruction has twice the rate of multiply-adds of f32: on AMD. On Intel it has half the rate or less.
pub(super) fn is_fast() -> bool {
    let leaf = std::arch::x86_64::__cpuid(0);
    let vendor = [leaf.ebx, leaf.edx, leaf.ecx].map(u32::to_le_bytes);
    vendor.as_flattened() == b"AuthenticAMD"
}

/// # Safety
/// As [`super::Session::block`]; the processor has the instruction.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(super) unsafe fn block(block: &Block<'_>) {
    for first in (0..BLOCK).step_by(ROWS) {
        let a = block
            .a
            .wrapping_add(first / TILE * block.a_second + first % TILE * 64);
        let c = |row: usize| block.c.wrapping_byte_add((first + row) * block.c_row);
        let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
        // SAFETY: the caller's promise.
        unsafe {
            if block.add {
                for (row, sums) in sums.iter_mut().enumerate() {
                    *sums = [
                        _mm512_loadu_ps(c(row)),
                        _mm512_loadu_ps(c(row).wrapping_add(TILE)),
                    ];
                }
            }
            for &[a_step, b_step] in block.steps {
                let a = a.wrapping_add(a_step as usize);
                let b = block.b.wrapping_add(b_step as usize);
                for pair in 0..TILE {
                    let b = b.wrapping_add(pair * block.b_row);
                    let left = load(b);
                    let right = load(b.wrapping_add(block.b_second));
                    for (row, [first, second]) in sums.iter_mut().enumerate() {
                        let factor = a.wrapping_add(row * 64 + pair * 4).cast::<i32>();
                        let factor = as_bf16(_mm512_set1_epi32(factor.read_unaligned()));
                        *first = _mm512_dpbf16_ps(*first, factor, left);
                        *second = _mm512_dpbf16_ps(*second, factor, right);
                    }
                }
            }
            for (row, [first, second]) in sums.into_iter().enumerate() {
                _mm512_storeu_ps(c(row), first);
                _mm512_storeu_ps(c(row).wrapping_add(TILE), second);
            }
        }
    }
}

/// # Safety
/// 64 readable bytes.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn load(from: *const u8) -> __m512bh {
    // SAFETY: the caller's promise.
    as_bf16(unsafe { _mm512_loadu_si512(from.cast()) })
}

#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn as_bf16(bits: __m512i) -> __m512bh {
    // SAFETY: both are 64 bytes without invalid values.
    unsafe { std::mem::transmute(bits) }
}
