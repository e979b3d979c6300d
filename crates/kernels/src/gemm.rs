//! Matrix products on one thread, by the crate `gemm`.

use crate::Real;

/// A matrix with strides: element (i, j) is `data[i * rows + j * columns]`.
#[derive(Clone, Copy)]
pub(crate) struct View<'a, T> {
    pub(crate) data: &'a [T],
    /// Distance between consecutive rows.
    pub(crate) rows: usize,
    /// Distance between consecutive columns.
    pub(crate) columns: usize,
}

impl<'a, T> View<'a, T> {
    /// Row-major with rows of `width` elements.
    pub(crate) fn new(data: &'a [T], width: usize) -> Self {
        Self {
            data,
            rows: width,
            columns: 1,
        }
    }

    /// The same elements with rows and columns exchanged.
    pub(crate) fn t(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            ..self
        }
    }
}

fn extent(m: usize, n: usize, rows: usize, columns: usize) -> usize {
    if m == 0 || n == 0 {
        0
    } else {
        (m - 1) * rows + (n - 1) * columns + 1
    }
}

/// `out = a b + keep out` for `a` `[m, k]`, `b` `[k, n]` and row-major `out` whose rows are
/// `out_rows` apart. Runs on the calling thread, so the result depends on the shapes only.
#[expect(
    clippy::too_many_arguments,
    reason = "the usual arguments of a matrix product"
)]
pub(crate) fn gemm<T: Real>(
    m: usize,
    n: usize,
    k: usize,
    out: &mut [T],
    out_rows: usize,
    keep: bool,
    a: View<'_, T>,
    b: View<'_, T>,
) {
    assert!(
        out.len() >= extent(m, n, out_rows, 1),
        "gemm: output too short"
    );
    assert!(
        a.data.len() >= extent(m, k, a.rows, a.columns),
        "gemm: left side too short"
    );
    assert!(
        b.data.len() >= extent(k, n, b.rows, b.columns),
        "gemm: right side too short"
    );
    if m == 0 || n == 0 {
        return;
    }
    // SAFETY: all three matrices lie inside their slices by the assertions above.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            out_rows as isize,
            keep,
            a.data.as_ptr(),
            a.columns as isize,
            a.rows as isize,
            b.data.as_ptr(),
            b.columns as isize,
            b.rows as isize,
            T::from_f64(1.0),
            T::from_f64(1.0),
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn multiplies_with_transposed_sides_and_adds_to_the_output() {
        // a = [[1,2],[3,4],[5,6]], stored transposed; b = [[1,0,2],[0,1,3]].
        let a = [1.0, 3.0, 5.0, 2.0, 4.0, 6.0];
        let b = [1.0, 0.0, 2.0, 0.0, 1.0, 3.0];
        let mut out = vec![10.0f32; 9];
        gemm(
            3,
            3,
            2,
            &mut out,
            3,
            true,
            View::new(&a, 3).t(),
            View::new(&b, 3),
        );
        assert_eq!(out, [11.0, 12.0, 18.0, 13.0, 14.0, 28.0, 15.0, 16.0, 38.0]);
        gemm(
            3,
            3,
            2,
            &mut out,
            3,
            false,
            View::new(&a, 3).t(),
            View::new(&b, 3),
        );
        assert_eq!(out, [1.0, 2.0, 8.0, 3.0, 4.0, 18.0, 5.0, 6.0, 28.0]);
    }
}
