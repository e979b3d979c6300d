//! Plain loops, for every processor.

use super::{BLOCK, Block, TILE};
use crate::element::Stored;
use half::bf16;

/// # Safety
/// As [`super::Session::block`].
pub(super) unsafe fn block(block: &Block<'_>) {
    for row in 0..BLOCK {
        let c = block.c.wrapping_byte_add(row * block.c_row);
        let mut sums = [0.0; BLOCK];
        // SAFETY: the caller's promise.
        unsafe {
            if block.add {
                sums = c.cast::<[f32; BLOCK]>().read();
            }
            for &[a_step, b_step] in block.steps {
                let a = block
                    .a
                    .wrapping_add(a_step as usize + row / TILE * block.a_second + row % TILE * 64);
                let a = a.cast::<[[bf16; 2]; TILE]>().read_unaligned();
                let b = block.b.wrapping_add(b_step as usize);
                for (pair, a) in a.iter().enumerate() {
                    for (half, sums) in sums.chunks_exact_mut(TILE).enumerate() {
                        let b = b.wrapping_add(pair * block.b_row + half * block.b_second);
                        let b = b.cast::<[[bf16; 2]; TILE]>().read_unaligned();
                        for (sum, b) in sums.iter_mut().zip(&b) {
                            *sum += a[0].real() * b[0].real() + a[1].real() * b[1].real();
                        }
                    }
                }
            }
            c.cast::<[f32; BLOCK]>().write(sums);
        }
    }
}
