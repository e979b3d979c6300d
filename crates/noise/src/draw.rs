//! Addresses of random streams and the numbers they give.

use crate::{philox::philox4x32_10, purpose::Purpose};

/// Top byte of the last counter word when a key is folded; no [`Purpose`] has this value.
const FOLD: u32 = 255 << 24;
/// 2^-53, the spacing of [`Draw::uniform`].
const ULP_53: f64 = 1.0 / (1_u64 << 53) as f64;
/// 2^-32, the spacing of the uniforms that the normal numbers are made of.
const ULP_32: f64 = 1.0 / (1_u64 << 32) as f64;
/// 2^-24, the spacing of [`Draw::fill_uniform`].
const ULP_24: f32 = 1.0 / (1_u32 << 24) as f32;

/// The address of one stream of random numbers: (seed, purpose, step, sample).
///
/// A `Draw` is a value, not a generator: calling a method twice gives the same numbers, and a longer buffer starts with a shorter one. Every
/// method reads the *same* random words in its own way, so use an address for one purpose only, and another [`Purpose`] for another one.
///
/// Block `b` (four words) of a stream is
/// ```text
/// philox4x32_10(counter = [b, sample, step, purpose << 24 | step >> 32], key = [seed, seed >> 32])
/// ```
/// with 32 bits of `b` and `sample` and 56 bits of `step`.
/// Larger values (the upper halves of `b` and `sample`, the top byte of `step`) are folded: unless all of these bits are zero, the key is
/// replaced by the first two words of `philox4x32_10([sample >> 32, step >> 56, b >> 32, 255 << 24], key)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Draw {
    seed: u64,
    purpose: Purpose,
    step: u64,
    sample: u64,
}

impl Draw {
    /// The stream of `sample` in `step` of the run with `seed`, for `purpose`. Every value of every argument is valid.
    #[must_use]
    pub fn new(seed: u64, purpose: Purpose, step: u64, sample: u64) -> Self {
        Self {
            seed,
            purpose,
            step,
            sample,
        }
    }

    /// Element `i` as a number in [0, 1) with 53 random bits.
    #[must_use]
    pub fn uniform(&self, i: u64) -> f64 {
        (self.word64(i) >> 11) as f64 * ULP_53
    }

    /// Element `i` as an integer in `0..n` (0 when `n` is 0).
    ///
    /// The upper half of the 128-bit product of 64 random bits and `n`. The probability of each value is off by at most `2^-64`, a relative bias
    /// below `n / 2^64`.
    #[must_use]
    pub fn below(&self, i: u64, n: u64) -> u64 {
        ((u128::from(self.word64(i)) * u128::from(n)) >> 64) as u64
    }

    /// Fills `out` with standard normal numbers. Element `j` depends only on the address and `j`.
    ///
    /// Box-Muller in f64, rounded once to f32; a block of four words gives four numbers:
    /// ```text
    /// r = sqrt(-2 ln((w_0 + 1/2) / 2^32)),  a = 2 pi w_1 / 2^32  ->  r cos a, r sin a;   the same with w_2, w_3
    /// ```
    /// The largest possible magnitude is 6.77.
    pub fn fill_normal(&self, out: &mut [f32]) {
        self.fill_normal_from(0, out);
    }

    /// Like [`fill_normal`](Self::fill_normal), for the elements `first..first + out.len()`, so that threads can fill parts of one buffer.
    pub fn fill_normal_from(&self, first: u64, out: &mut [f32]) {
        self.fill(first, out, |words| {
            let [a, b] = box_muller(words[0], words[1]);
            let [c, d] = box_muller(words[2], words[3]);
            [a, b, c, d]
        });
    }

    /// The first `n` standard normal numbers of the stream; see [`fill_normal`](Self::fill_normal).
    #[must_use]
    pub fn normals(&self, n: usize) -> Vec<f32> {
        let mut out = vec![0.0; n];
        self.fill_normal(&mut out);
        out
    }

    /// Fills `out` with numbers in [0, 1) of 24 random bits. Element `j` depends only on the address and `j`.
    pub fn fill_uniform(&self, out: &mut [f32]) {
        self.fill(0, out, |words| {
            words.map(|word| (word >> 8) as f32 * ULP_24)
        });
    }

    /// A random permutation of `0..n` (Fisher-Yates from the end; position `i` swaps with `below(i, i + 1)`).
    #[must_use]
    pub fn permutation(&self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        for i in (1..n).rev() {
            order.swap(i, self.below(i as u64, i as u64 + 1) as usize);
        }
        order
    }

    /// The four words of block `block`.
    #[inline]
    fn block(&self, block: u64) -> [u32; 4] {
        let mut key = [self.seed as u32, (self.seed >> 32) as u32];
        let overflow = [
            (self.sample >> 32) as u32,
            (self.step >> 56) as u32,
            (block >> 32) as u32,
        ];
        if overflow != [0; 3] {
            let folded = philox4x32_10([overflow[0], overflow[1], overflow[2], FOLD], key);
            key = [folded[0], folded[1]];
        }
        let step_and_purpose =
            u32::from(self.purpose as u8) << 24 | (self.step >> 32) as u32 & 0x00FF_FFFF;
        philox4x32_10(
            [
                block as u32,
                self.sample as u32,
                self.step as u32,
                step_and_purpose,
            ],
            key,
        )
    }

    /// Random bits `64 i .. 64 i + 64`.
    #[inline]
    fn word64(&self, i: u64) -> u64 {
        let words = self.block(i / 2);
        let at = 2 * (i % 2) as usize;
        u64::from(words[at]) << 32 | u64::from(words[at + 1])
    }

    /// Fills `out` with the elements from `first`, four from each block.
    fn fill(&self, first: u64, out: &mut [f32], make: impl Fn([u32; 4]) -> [f32; 4]) {
        let (mut block, offset) = (first / 4, (first % 4) as usize);
        let n_head = if offset == 0 {
            0
        } else {
            (4 - offset).min(out.len())
        };
        let (head, body) = out.split_at_mut(n_head);
        if n_head > 0 {
            head.copy_from_slice(&make(self.block(block))[offset..offset + n_head]);
            block += 1;
        }
        for four in body.chunks_mut(4) {
            four.copy_from_slice(&make(self.block(block))[..four.len()]);
            block = block.wrapping_add(1);
        }
    }
}

/// Two independent standard normal numbers from two random words.
#[inline]
fn box_muller(w_radius: u32, w_angle: u32) -> [f32; 2] {
    // The half keeps the argument of the logarithm away from 0 and from 1.
    let radius = (-2.0 * libm::log((f64::from(w_radius) + 0.5) * ULP_32)).sqrt();
    let (sin, cos) = libm::sincos(std::f64::consts::TAU * (f64::from(w_angle) * ULP_32));
    [(radius * cos) as f32, (radius * sin) as f32]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_layout_is_the_documented_one() {
        let draw = Draw::new(
            0x0123_4567_89ab_cdef,
            Purpose::Flip,
            0x00aa_bbcc_1122_3344,
            9,
        );
        assert_eq!(
            draw.block(5),
            philox4x32_10([5, 9, 0x1122_3344, 0x06aa_bbcc], [0x89ab_cdef, 0x0123_4567])
        );
        let long = Draw::new(3, Purpose::Flip, 1 << 60, 2 << 32);
        let key = philox4x32_10([2, 16, 4, 255 << 24], [3, 0]);
        assert_eq!(
            long.block(4 << 32),
            philox4x32_10([0, 0, 0, 6 << 24], [key[0], key[1]])
        );
    }
}
