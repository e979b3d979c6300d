//! The Philox4x32-10 block function.

const MULTIPLIER_0: u32 = 0xD251_1F53;
const MULTIPLIER_1: u32 = 0xCD9E_8D57;
/// Key increments per round: the golden ratio and sqrt(3) - 1, as 32-bit fractions.
const WEYL_0: u32 = 0x9E37_79B9;
const WEYL_1: u32 = 0xBB67_AE85;
const N_ROUNDS: usize = 10;

/// The four random words for `counter` and `key`.
///
/// For every key it is a bijection of the counter, so no two counters collide.
///
/// Source: Salmon et al. 2011, section 3.3; known answers from the Random123 distribution (`philox 4x32 10`).
#[inline]
#[must_use]
pub fn philox4x32_10(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let ([mut c0, mut c1, mut c2, mut c3], [mut k0, mut k1]) = (counter, key);
    for _ in 0..N_ROUNDS {
        let (hi_0, lo_0) = widening_mul(MULTIPLIER_0, c0);
        let (hi_1, lo_1) = widening_mul(MULTIPLIER_1, c2);
        (c0, c1, c2, c3) = (hi_1 ^ c1 ^ k0, lo_1, hi_0 ^ c3 ^ k1, lo_0);
        k0 = k0.wrapping_add(WEYL_0);
        k1 = k1.wrapping_add(WEYL_1);
    }
    [c0, c1, c2, c3]
}

/// The high and the low word of `a * b`.
#[inline]
fn widening_mul(a: u32, b: u32) -> (u32, u32) {
    let product = u64::from(a) * u64::from(b);
    ((product >> 32) as u32, product as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers_of_random123_are_reproduced() {
        let cases = [
            (
                [0; 4],
                [0; 2],
                [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8],
            ),
            (
                [u32::MAX; 4],
                [u32::MAX; 2],
                [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd],
            ),
            (
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ];
        for (counter, key, expected) in cases {
            assert_eq!(
                philox4x32_10(counter, key),
                expected,
                "counter {counter:x?} key {key:x?}"
            );
        }
    }

    #[test]
    fn flipping_any_input_bit_flips_about_half_of_the_output_bits() {
        let base = philox4x32_10([1, 2, 3, 4], [5, 6]);
        for bit in 0..192 {
            let (mut counter, mut key) = ([1, 2, 3, 4], [5, 6]);
            if bit < 128 {
                counter[bit / 32] ^= 1 << (bit % 32);
            } else {
                key[(bit - 128) / 32] ^= 1 << (bit % 32);
            }
            let other = philox4x32_10(counter, key);
            let n_flipped: u32 = base
                .iter()
                .zip(other)
                .map(|(a, b)| (a ^ b).count_ones())
                .sum();
            assert!(
                (34..=94).contains(&n_flipped),
                "input bit {bit} flips {n_flipped} of 128"
            );
        }
    }
}
