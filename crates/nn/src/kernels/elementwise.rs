//! Sums of two tensors.

use super::Real;
use super::choice::Choice;
use super::shared_mut::{SharedMut, filled};
use rayon::prelude::*;

/// Elements of one job.
const CHUNK: usize = 1 << 15;

/// `a + b`.
pub(crate) fn add<T: Real>(a: &[T], b: &[T]) -> Vec<T> {
    assert_eq!(a.len(), b.len(), "add: sizes do not fit");
    let simd = Choice::get().simd;
    // SAFETY: the jobs cover all elements, and each writes all of its own.
    unsafe {
        filled(a.len(), |sum: SharedMut<'_, T>| {
            a.par_chunks(CHUNK)
                .zip(b.par_chunks(CHUNK))
                .enumerate()
                .for_each(|(i, (a, b))| {
                    let sum = sum.as_mut_ptr().wrapping_add(i * CHUNK);
                    simd.vectorise(
                        #[inline(always)]
                        || {
                            for (j, (&a, &b)) in a.iter().zip(b).enumerate() {
                                sum.add(j).write(a + b);
                            }
                        },
                    );
                });
        })
    }
}
