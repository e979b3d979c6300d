//! Blocks against the definition, on every unit.

use super::*;
use crate::element::Stored;
use half::bf16;

/// The units that can be tested here: those of the machine, and AMX, emulated where it is missing.
pub(crate) fn units() -> Vec<Unit> {
    #[cfg_attr(
        not(all(target_arch = "x86_64", target_os = "linux")),
        expect(unused_mut, reason = "no emulation there")
    )]
    let mut units = Unit::available();
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    if !units.contains(&Unit::Amx) {
        amx_emulator::install();
        units.push(Unit::Amx);
    }
    units
}

#[test]
fn a_block_is_the_product_of_its_factors() {
    const STEPS: usize = 3;
    const ROW: usize = 80;
    let value = |i: usize, period: usize| bf16::of((i * 37 % period) as f32 - 8.0);
    // A: [step][half][row][term]; B: [step][pair][column and half][term of the pair], with rows of 80 pairs.
    let a: Vec<bf16> = (0..STEPS * 1024).map(|i| value(i, 17)).collect();
    let b: Vec<bf16> = (0..STEPS * 16 * ROW * 2).map(|i| value(i, 19)).collect();
    let steps: Vec<[u32; 2]> = (0..STEPS as u32)
        .map(|step| [step * 2048, step * 16 * ROW as u32 * 4])
        .collect();
    for unit in units() {
        let session = unit.start();
        let mut c = vec![1.0f32; BLOCK * 40];
        for add in [false, true] {
            let block = Block {
                a: a.as_ptr().cast(),
                a_second: TILE_BYTES,
                b: b.as_ptr().cast(),
                b_row: 4 * ROW,
                b_second: 64,
                steps: &steps,
                c: c.as_mut_ptr(),
                c_row: 4 * 40,
                add,
            };
            // SAFETY: the sizes above.
            unsafe { session.block(&block) };
        }
        for m in 0..BLOCK {
            for n in 0..40 {
                let mut want = 0.0;
                for step in 0..STEPS {
                    for k in 0..BLOCK {
                        let a = a[step * 1024 + m * 32 + k];
                        let b = b[((step * 16 + k / 2) * ROW + n) * 2 + k % 2];
                        want += a.real() * b.real();
                    }
                }
                // Small integers: the sums are exact. The block was added twice.
                let want = if n < BLOCK { 2.0 * want } else { 1.0 };
                assert_eq!(c[m * 40 + n], want, "{unit:?}, row {m}, column {n}");
            }
        }
    }
}
