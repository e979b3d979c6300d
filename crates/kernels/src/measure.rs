//! Measurements of this machine.

use crate::gemm::{View, gemm};
use rayon::prelude::*;
use std::time::Instant;

/// Floating-point operations per second of matrix products on all threads of the current pool. Takes about a tenth of a second.
pub fn measure_flops() -> f64 {
    const N: usize = 256;
    let data = vec![0.5f32; N * N];
    let product = || {
        let mut out = vec![0.0f32; N * N];
        gemm(
            N,
            N,
            N,
            &mut out,
            N,
            false,
            View::new(&data, N),
            View::new(&data, N),
        );
        out[0]
    };
    let threads = rayon::current_num_threads();
    let mut best = 0.0f64;
    // The first round wakes the threads and fills the caches.
    for _ in 0..4 {
        let jobs = 32 * threads;
        let started = Instant::now();
        let sum: f32 = (0..jobs).into_par_iter().map(|_| product()).sum();
        std::hint::black_box(sum);
        best = best.max((jobs * 2 * N * N * N) as f64 / started.elapsed().as_secs_f64());
    }
    best
}

/// Bytes per second that are read from and written to memory by all threads of the current pool. Takes about a fifth of a second.
pub fn measure_bandwidth() -> f64 {
    const N: usize = 1 << 25;
    let mut data = vec![1.0f32; N];
    let mut best = 0.0f64;
    for _ in 0..4 {
        let started = Instant::now();
        data.par_chunks_mut(1 << 16)
            .for_each(|chunk| chunk.iter_mut().for_each(|x| *x += 1.0));
        let bytes = 2 * N * size_of::<f32>();
        best = best.max(bytes as f64 / started.elapsed().as_secs_f64());
    }
    std::hint::black_box(data);
    best
}
