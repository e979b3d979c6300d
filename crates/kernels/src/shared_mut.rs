//! A slice that several jobs write at the same time.

use std::marker::PhantomData;

/// A slice that several jobs write at the same time, each its own elements.
#[derive(Debug)]
pub(crate) struct SharedMut<'a, T> {
    data: *mut T,
    len: usize,
    lifetime: PhantomData<&'a mut [T]>,
}

impl<T> Clone for SharedMut<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for SharedMut<'_, T> {}

// SAFETY: the only access is through `slice` and the pointer, whose users promise disjoint ranges.
unsafe impl<T: Send> Send for SharedMut<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for SharedMut<'_, T> {}

impl<'a, T> SharedMut<'a, T> {
    pub(crate) fn new(slice: &'a mut [T]) -> Self {
        Self {
            data: slice.as_mut_ptr(),
            len: slice.len(),
            lifetime: PhantomData,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// For kernels that work on raw memory. No two jobs may access the same elements, as with [`Self::slice`].
    #[inline(always)]
    pub(crate) fn as_mut_ptr(&self) -> *mut T {
        self.data
    }

    /// The first `len` elements, to read.
    ///
    /// # Safety
    /// They have been written, and are not written while the result lives.
    #[inline(always)]
    pub(crate) unsafe fn read(&self, len: usize) -> &'a [T] {
        assert!(len <= self.len, "range outside the slice");
        // SAFETY: in bounds by the assertion, not written by the caller's promise.
        unsafe { std::slice::from_raw_parts(self.data, len) }
    }

    /// The `len` elements from `start`.
    ///
    /// # Safety
    /// No two live results of this method overlap, and the elements have been written before.
    #[expect(
        clippy::mut_from_ref,
        reason = "disjointness is the caller's promise, stated above"
    )]
    #[inline(always)]
    pub(crate) unsafe fn slice(&self, start: usize, len: usize) -> &mut [T] {
        assert!(
            start <= self.len && len <= self.len - start,
            "range outside the slice"
        );
        // SAFETY: in bounds by the assertion, disjoint by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(start), len) }
    }
}

/// A vector of `len` elements that `f` writes, without clearing the memory first.
///
/// # Safety
/// `f` writes every element, through the pointer.
pub(crate) unsafe fn filled<T: Copy>(len: usize, f: impl FnOnce(SharedMut<'_, T>)) -> Vec<T> {
    let mut memory = Box::<[T]>::new_uninit_slice(len);
    f(SharedMut {
        data: memory.as_mut_ptr().cast(),
        len,
        lifetime: PhantomData,
    });
    // SAFETY: the caller's promise.
    unsafe { memory.assume_init() }.into_vec()
}
