//! Measurements of this machine.

use crate::choice::Choice;
use crate::micro::Product;
use crate::simd::{Lanes, Task};
use crate::threads::{each_chunk_mut, each_job};
use std::time::Instant;

/// Rows, columns and length of the sums of the product that is measured: its factors stay in the first cache.
const ROWS: usize = 64;
const COLUMNS: usize = 32;
const DEPTH: usize = 128;

/// Floating-point operations per second of matrix products in f32 on all threads of the current pool, by the instructions in use. Takes
/// about a tenth of a second.
pub fn measure_flops() -> f64 {
    const TIMES: usize = 1000;
    let simd = Choice::get().simd;
    let threads = rayon::current_num_threads();
    let mut best = 0.0f64;
    // The first round wakes the threads and fills the caches.
    for _ in 0..6 {
        let started = Instant::now();
        each_job(2 * threads, |_| {
            let mut sums = [0.0f32; ROWS * COLUMNS];
            let (a, b) = (vec![0.5f32; ROWS * DEPTH], vec![0.5f32; DEPTH * COLUMNS]);
            for _ in 0..TIMES {
                simd.run(Multiply {
                    a: &a,
                    b: &b,
                    sums: &mut sums,
                });
                std::hint::black_box(&mut sums);
            }
        });
        let flops = 2 * threads * TIMES * 2 * ROWS * COLUMNS * DEPTH;
        best = best.max(flops as f64 / started.elapsed().as_secs_f64());
    }
    best
}

/// The measured product.
struct Multiply<'a> {
    a: &'a [f32],
    b: &'a [f32],
    sums: &'a mut [f32],
}

impl Task for Multiply<'_> {
    type Output = ();
    #[inline(always)]
    fn run<V: Lanes>(self) {
        let Self { a, b, sums } = self;
        assert!(
            a.len() == ROWS * DEPTH && b.len() == DEPTH * COLUMNS && sums.len() == ROWS * COLUMNS,
            "sizes do not fit"
        );
        let product = Product {
            rows: ROWS,
            columns: COLUMNS,
            depth: DEPTH,
            a: a.as_ptr(),
            a_row: DEPTH,
            a_depth: 1,
            b: b.as_ptr(),
            b_depth: COLUMNS,
            b_panel: 32,
            c: sums.as_mut_ptr(),
            c_row: COLUMNS,
            add: false,
            bias: std::ptr::null(),
        };
        // SAFETY: the sizes above.
        unsafe { product.run::<V>() };
    }
}

/// Bytes per second that are read from and written to memory by all threads of the current pool. Takes about a fifth of a second.
pub fn measure_bandwidth() -> f64 {
    const N: usize = 1 << 25;
    let mut data = vec![1.0f32; N];
    let mut best = 0.0f64;
    for _ in 0..4 {
        let started = Instant::now();
        each_chunk_mut(&mut data, 1 << 16, |_, chunk| {
            chunk.iter_mut().for_each(|x| *x += 1.0);
        });
        let bytes = 2 * N * size_of::<f32>();
        best = best.max(bytes as f64 / started.elapsed().as_secs_f64());
    }
    std::hint::black_box(data);
    best
}
