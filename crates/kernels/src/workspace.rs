//! Buffers that are reused between calls: fresh pages for every block would cost more than the arithmetic.

use crate::simd::Lanes;
use half::bf16;
use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};

/// Sixteen floats, aligned to a cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Line(pub(crate) [f32; 16]);

thread_local! {
    /// The buffers of this thread that are not in use; they only grow.
    static FREE: RefCell<Vec<Vec<Line>>> = const { RefCell::new(Vec::new()) };
}

/// Calls `f` with `N` buffers of the calling thread, of these lengths in lines and with arbitrary content.
///
/// Calls may nest, also through a job that the thread runs while it waits for others.
pub(crate) fn with_lines<const N: usize, R>(
    lengths: [usize; N],
    f: impl FnOnce([&mut [Line]; N]) -> R,
) -> R {
    let mut buffer = FREE.with_borrow_mut(Vec::pop).unwrap_or_default();
    let total = lengths.iter().sum();
    if buffer.len() < total {
        // The old content is not needed, so it is not moved.
        buffer = vec![Line([0.0; 16]); total];
    }
    let mut rest = &mut buffer[..];
    let parts = lengths.map(|length| rest.split_off_mut(..length).unwrap_or_default());
    let result = f(parts);
    FREE.with_borrow_mut(|free| free.push(buffer));
    result
}

thread_local! {
    /// What [`once_per_thread`] keeps, and for which call.
    static KEPT: RefCell<(u64, Vec<Line>)> = const { RefCell::new((0, Vec::new())) };
}

/// A number that no other call has, for [`once_per_thread`].
pub(crate) fn new_call() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, Ordering::Relaxed) + 1
}

/// Calls `f` with `length` lines that `fill` has written on this thread, earlier in the same call if nothing else came between.
pub(crate) fn once_per_thread<R>(
    call: u64,
    length: usize,
    fill: impl FnOnce(&mut [Line]),
    f: impl FnOnce(&[Line]) -> R,
) -> R {
    let (of, mut lines) = KEPT.take();
    if of != call {
        if lines.len() < length {
            lines = vec![Line([0.0; 16]); length];
        }
        fill(&mut lines[..length]);
    }
    let result = f(&lines[..length]);
    KEPT.set((call, lines));
    result
}

/// The floats of the lines.
pub(crate) fn floats(lines: &[Line]) -> &[f32] {
    // SAFETY: a line is sixteen floats without padding.
    unsafe { std::slice::from_raw_parts(lines.as_ptr().cast(), 16 * lines.len()) }
}

/// The floats of the lines, to write.
pub(crate) fn floats_mut(lines: &mut [Line]) -> &mut [f32] {
    // SAFETY: a line is sixteen floats without padding.
    unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), 16 * lines.len()) }
}

/// The bf16 numbers of the lines, to write.
pub(crate) fn halves_mut(lines: &mut [Line]) -> &mut [bf16] {
    // SAFETY: a line is 64 bytes without padding, and every bit pattern is a bf16.
    unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), 32 * lines.len()) }
}

/// The pairs of bf16 numbers of the lines, to write.
pub(crate) fn pairs_mut(lines: &mut [Line]) -> &mut [[bf16; 2]] {
    halves_mut(lines).as_chunks_mut::<2>().0
}

#[inline(always)]
pub(crate) fn get<V: Lanes>(line: &Line) -> V {
    // SAFETY: a line is sixteen floats.
    unsafe { V::load(line.0.as_ptr()) }
}

#[inline(always)]
pub(crate) fn put<V: Lanes>(line: &mut Line, value: V) {
    // SAFETY: a line is sixteen floats.
    unsafe { value.store(line.0.as_mut_ptr()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_fills_its_lines_once_for_each_call_and_again_after_another() {
        let first = |call, value| {
            let fill = |lines: &mut [Line]| lines.fill(Line([value; 16]));
            once_per_thread(call, 3, fill, |lines| (lines.len(), lines[2].0[15]))
        };
        let (one, two) = (new_call(), new_call());
        assert_eq!(first(one, 1.0), (3, 1.0));
        assert_eq!(first(one, 2.0), (3, 1.0));
        assert_eq!(first(two, 3.0), (3, 3.0));
        assert_eq!(first(one, 4.0), (3, 4.0));
    }

    #[test]
    fn nested_buffers_do_not_overlap_and_are_reused() {
        with_lines([2, 3], |[a, b]| {
            assert_eq!((a.len(), b.len()), (2, 3));
            a[1].0 = [1.0; 16];
            with_lines([4], |[c]| c[0].0 = [2.0; 16]);
            assert_eq!(a[1].0[15], 1.0);
        });
        let address = |_: ()| with_lines([1], |[a]| a.as_ptr() as usize);
        assert_eq!(address(()), address(()));
    }
}
