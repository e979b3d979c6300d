//! Loops over plain slices: one pass over memory, in chunks whose size does not depend on the number of threads.

use crate::ema::Average;
use rayon::prelude::*;

/// Elements per job. Below one chunk a loop runs on the calling thread.
pub(crate) const CHUNK: usize = 1 << 14;
/// Independent sums of one chunk, so that additions do not wait for each other.
const LANES: usize = 8;

/// The numbers of one AdamW update, each computed in f64 and rounded once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AdamWScalars {
    /// Factor of the gradient (clipping).
    pub(crate) scale: f32,
    /// `1 - lr wd`.
    pub(crate) decay: f32,
    /// `1 - b1`.
    pub(crate) one_minus_beta1: f32,
    pub(crate) beta2: f32,
    /// `1 - b2`.
    pub(crate) one_minus_beta2: f32,
    /// `lr / (1 - b1^k)`.
    pub(crate) step_size: f32,
    /// `sqrt(1 - b2^k)`.
    pub(crate) sqrt_correction2: f32,
    pub(crate) eps: f32,
}

/// The numbers of one SGD update.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SgdScalars {
    pub(crate) scale: f32,
    pub(crate) weight_decay: f32,
    pub(crate) momentum: f32,
    pub(crate) lr: f32,
}

/// One AdamW update of `p` with gradient `g` and moments `m`, `v`, all of one length; the average follows chunk by chunk, while `p` is
/// in the cache.
///
/// Code reference: torch `_single_tensor_adamw` (the order of its roundings is kept).
pub(crate) fn adamw(
    p: &mut [f32],
    g: &[f32],
    m: &mut [f32],
    v: &mut [f32],
    s: AdamWScalars,
    average: Option<Average<'_>>,
) {
    let (shadow, keep) = match average {
        Some(Average { shadow, keep }) => (shadow, keep),
        None => (<&mut [f32]>::default(), 0.0),
    };
    let chunk = |p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32], shadow: &mut [f32]| {
        adamw_chunk(p, g, m, v, s);
        if !shadow.is_empty() {
            Average { shadow, keep }.follow(p);
        }
    };
    if p.len() <= CHUNK {
        return chunk(p, g, m, v, shadow);
    }
    let n_chunks = p.len().div_ceil(CHUNK);
    let mut shadows: Vec<&mut [f32]> = shadow.chunks_mut(CHUNK).collect();
    shadows.resize_with(n_chunks, Default::default);
    p.par_chunks_mut(CHUNK)
        .zip(g.par_chunks(CHUNK))
        .zip(m.par_chunks_mut(CHUNK))
        .zip(v.par_chunks_mut(CHUNK))
        .zip(shadows)
        .for_each(|((((p, g), m), v), shadow)| chunk(p, g, m, v, shadow));
}

fn adamw_chunk(p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32], s: AdamWScalars) {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: the CPU has both features.
            return unsafe { adamw_fma(p, g, m, v, s) };
        }
        adamw_loop::<false>(p, g, m, v, s);
    }
    #[cfg(not(target_arch = "x86_64"))]
    adamw_loop::<{ cfg!(target_arch = "aarch64") }>(p, g, m, v, s);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn adamw_fma(p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32], s: AdamWScalars) {
    adamw_loop::<true>(p, g, m, v, s);
}

/// With `FUSED` the moments are rounded once per update, as torch's vector code does; without the instruction for it that
/// would be a call per element.
#[inline(always)]
fn adamw_loop<const FUSED: bool>(
    p: &mut [f32],
    g: &[f32],
    m: &mut [f32],
    v: &mut [f32],
    s: AdamWScalars,
) {
    for (((p, g), m), v) in p.iter_mut().zip(g).zip(m).zip(v) {
        let g = g * s.scale;
        if FUSED {
            *m = (g - *m).mul_add(s.one_minus_beta1, *m);
            *v = (s.one_minus_beta2 * g).mul_add(g, s.beta2 * *v);
        } else {
            *m += (g - *m) * s.one_minus_beta1;
            *v = *v * s.beta2 + s.one_minus_beta2 * g * g;
        }
        let denominator = v.sqrt() / s.sqrt_correction2 + s.eps;
        *p = *p * s.decay - s.step_size * *m / denominator;
    }
}

/// One SGD update of `p` with gradient `g`.
pub(crate) fn sgd(p: &mut [f32], g: &[f32], s: SgdScalars) {
    let update = |(p, g): (&mut [f32], &[f32])| {
        for (p, g) in p.iter_mut().zip(g) {
            let g = g * s.scale + s.weight_decay * *p;
            *p -= s.lr * g;
        }
    };
    if p.len() <= CHUNK {
        update((p, g));
    } else {
        p.par_chunks_mut(CHUNK)
            .zip(g.par_chunks(CHUNK))
            .for_each(update);
    }
}

/// One SGD update of `p` with gradient `g` and momentum buffer `m`.
pub(crate) fn sgd_momentum(p: &mut [f32], g: &[f32], m: &mut [f32], s: SgdScalars) {
    let update = |((p, g), m): ((&mut [f32], &[f32]), &mut [f32])| {
        for ((p, g), m) in p.iter_mut().zip(g).zip(m) {
            let g = g * s.scale + s.weight_decay * *p;
            *m = *m * s.momentum + g;
            *p -= s.lr * *m;
        }
    };
    if p.len() <= CHUNK {
        update(((p, g), m));
    } else {
        p.par_chunks_mut(CHUNK)
            .zip(g.par_chunks(CHUNK))
            .zip(m.par_chunks_mut(CHUNK))
            .for_each(update);
    }
}

/// `dst = a dst + b src`.
pub(crate) fn blend(dst: &mut [f32], src: &[f32], a: f32, b: f32) {
    let update = |(dst, src): (&mut [f32], &[f32])| {
        for (dst, src) in dst.iter_mut().zip(src) {
            *dst = *dst * a + src * b;
        }
    };
    if dst.len() <= CHUNK {
        update((dst, src));
    } else {
        dst.par_chunks_mut(CHUNK)
            .zip(src.par_chunks(CHUNK))
            .for_each(update);
    }
}

/// The sum of squares in f64: chunks are summed by any thread, their sums are added in order.
pub(crate) fn sum_of_squares(values: &[f32]) -> f64 {
    if values.len() <= CHUNK {
        return chunk_sum_of_squares(values);
    }
    let sums: Vec<f64> = values.par_chunks(CHUNK).map(chunk_sum_of_squares).collect();
    sums.iter().sum()
}

fn chunk_sum_of_squares(values: &[f32]) -> f64 {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the CPU has the feature.
            return unsafe { squares_avx512(values) };
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: as above.
            return unsafe { squares_avx2(values) };
        }
    }
    squares_loop(values)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn squares_avx512(values: &[f32]) -> f64 {
    squares_loop(values)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn squares_avx2(values: &[f32]) -> f64 {
    squares_loop(values)
}

/// The square of an f32 is exact in f64, so the bits are the same with any instructions.
#[inline(always)]
fn squares_loop(values: &[f32]) -> f64 {
    let mut lanes = [0.0_f64; LANES];
    let (rows, rest) = values.as_chunks::<LANES>();
    for row in rows {
        for (lane, &v) in lanes.iter_mut().zip(row) {
            *lane += f64::from(v) * f64::from(v);
        }
    }
    let rest: f64 = rest.iter().map(|&v| f64::from(v) * f64::from(v)).sum();
    lanes.iter().sum::<f64>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(n: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..n).map(|_| next()).collect()
    }

    /// Runs `job` on a pool of its own.
    fn with_threads<T: Send>(n: usize, job: impl FnOnce() -> T + Send) -> T {
        rayon::ThreadPoolBuilder::new()
            .num_threads(n)
            .build()
            .unwrap()
            .install(job)
    }

    #[test]
    fn bits_do_not_depend_on_the_number_of_threads() {
        let n = 5 * CHUNK + 123;
        let job = || {
            let (mut p, g) = (values(n, 1), values(n, 2));
            let (mut m, mut v) = (values(n, 3), values(n, 4));
            v.iter_mut().for_each(|v| *v = v.abs());
            let s = AdamWScalars {
                scale: 0.7,
                decay: 0.999,
                one_minus_beta1: 0.1,
                beta2: 0.999,
                one_minus_beta2: 0.001,
                step_size: 1e-3,
                sqrt_correction2: 0.3,
                eps: 1e-8,
            };
            let mut e = values(n, 5);
            let average = Average {
                shadow: &mut e,
                keep: 0.9,
            };
            adamw(&mut p, &g, &mut m, &mut v, s, Some(average));
            blend(&mut p, &g, 0.9, 0.1);
            let s = SgdScalars {
                scale: 0.7,
                weight_decay: 0.1,
                momentum: 0.9,
                lr: 0.1,
            };
            sgd_momentum(&mut p, &g, &mut m, s);
            sgd(&mut p, &g, s);
            (sum_of_squares(&p), p, m, v, e)
        };
        let one = with_threads(1, job);
        for n_threads in [2, 3] {
            assert!(with_threads(n_threads, job) == one, "{n_threads} threads");
        }
    }

    #[test]
    fn a_sum_of_squares_has_the_same_bits_with_any_instructions() {
        for n in [0, 5, 8, 1000, CHUNK] {
            let values = values(n, 6);
            let (fast, plain) = (chunk_sum_of_squares(&values), squares_loop(&values));
            assert_eq!(fast.to_bits(), plain.to_bits(), "{n}");
        }
    }

    #[test]
    fn chunks_and_lanes_miss_no_element() {
        for n in [0, 1, 7, 8, 9, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 5] {
            assert_eq!(sum_of_squares(&vec![2.0; n]), 4.0 * n as f64, "{n}");
            let mut dst = vec![1.0; n];
            blend(&mut dst, &vec![4.0; n], 0.5, 0.25);
            assert!(dst.iter().all(|&v| v == 1.5), "{n}");
        }
    }
}
