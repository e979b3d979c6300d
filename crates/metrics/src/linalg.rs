//! The matrix products and factorisations of the metrics, on all threads of the current pool.

use faer::linalg::matmul::{matmul, triangular};
use faer::{Accum, Mat, MatMut, MatRef, Par};
use triangular::BlockStructure::{Rectangular, TriangularLower};

/// Number of columns that are factored one by one before the rest is updated at once.
const BLOCK: usize = 64;

pub(crate) fn all_threads() -> Par {
    Par::rayon(0)
}

/// Copies rows of f32 to the columns of a matrix.
pub(crate) fn columns<'a>(rows: impl ExactSizeIterator<Item = &'a [f32]>, dim: usize) -> Mat<f64> {
    let mut out = Mat::zeros(dim, rows.len());
    for (j, row) in rows.enumerate() {
        for (to, &from) in out.col_mut(j).iter_mut().zip(row) {
            *to = f64::from(from);
        }
    }
    out
}

/// The products of all pairs of columns, `x^T y`.
pub(crate) fn products(x: MatRef<'_, f64>, y: MatRef<'_, f64>) -> Mat<f64> {
    let mut out = Mat::zeros(x.ncols(), y.ncols());
    matmul(
        out.as_mut(),
        Accum::Replace,
        x.transpose(),
        y,
        1.0,
        all_threads(),
    );
    out
}

/// Adds `alpha a b` to the lower triangle of a symmetric matrix.
pub(crate) fn add_lower(dst: MatMut<'_, f64>, a: MatRef<'_, f64>, b: MatRef<'_, f64>, alpha: f64) {
    triangular::matmul(
        dst,
        TriangularLower,
        Accum::Add,
        a,
        Rectangular,
        b,
        Rectangular,
        alpha,
        all_threads(),
    );
}

/// A factor of a positive semi-definite matrix, and its residual.
pub(crate) struct Factor {
    /// `[n, rank]` with `s = l l^T`.
    pub(crate) l: Mat<f64>,
    /// `|s - l l^T| / |s|` in the Frobenius norm.
    pub(crate) residual: f64,
}

/// Pivoted Cholesky decomposition of the symmetric matrix whose lower triangle is given; stops at the numerical rank.
///
/// Rows are not permuted: the entries of a row after its own pivot are zero.
pub(crate) fn factor(s: &Mat<f64>) -> Factor {
    let n = s.nrows();
    let mut rest = s.clone();
    let largest = (0..n).fold(0.0f64, |m, i| m.max(s[(i, i)]));
    let tolerance = n as f64 * f64::EPSILON * largest;
    let mut l = Mat::<f64>::zeros(n, n);
    let mut used = vec![false; n];
    let mut rank = 0;
    let mut open = largest > 0.0;
    while open && rank < n {
        let first = rank;
        let end = (first + BLOCK).min(n);
        let mut diagonal: Vec<f64> = (0..n).map(|i| rest[(i, i)]).collect();
        while rank < end {
            let pivot = (0..n)
                .filter(|&i| !used[i])
                .max_by(|&a, &b| diagonal[a].total_cmp(&diagonal[b]).then(b.cmp(&a)));
            let Some(pivot) = pivot.filter(|&p| diagonal[p] > tolerance) else {
                open = false;
                break;
            };
            used[pivot] = true;
            let root = diagonal[pivot].sqrt();
            let mut column: Vec<f64> = (0..n).map(|i| rest[(i.max(pivot), i.min(pivot))]).collect();
            for k in first..rank {
                let share = l[(pivot, k)];
                for (value, &known) in column.iter_mut().zip(l.col(k).iter()) {
                    *value -= share * known;
                }
            }
            for i in 0..n {
                if i == pivot {
                    l[(i, rank)] = root;
                } else if !used[i] {
                    let value = column[i] / root;
                    l[(i, rank)] = value;
                    diagonal[i] -= value * value;
                }
            }
            rank += 1;
        }
        let block = l.as_ref().subcols(first, rank - first);
        add_lower(rest.as_mut(), block, block.transpose(), -1.0);
    }
    let norm = lower_norm(s);
    Factor {
        residual: if norm > 0.0 {
            lower_norm(&rest) / norm
        } else {
            0.0
        },
        l: l.as_ref().subcols(0, rank).to_owned(),
    }
}

/// Frobenius norm of the symmetric matrix whose lower triangle is given.
fn lower_norm(s: &Mat<f64>) -> f64 {
    let mut sum = 0.0;
    for j in 0..s.ncols() {
        sum += s[(j, j)] * s[(j, j)];
        for i in j + 1..s.nrows() {
            sum += 2.0 * s[(i, j)] * s[(i, j)];
        }
    }
    sum.sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_factor_has_the_rank_of_its_matrix_and_reproduces_it() {
        for (n, r) in [(7, 7), (150, 150), (150, 3), (90, 70), (5, 0)] {
            let a = Mat::from_fn(n, r, |i, j| ((i * 7 + j * 13 + i * j) as f64).sin());
            let s = &a * a.transpose();
            let factor = factor(&s);
            assert_eq!(factor.l.ncols(), r, "{n}");
            assert!(factor.residual < 1e-13, "{n} {r}: {}", factor.residual);
            let error = (&factor.l * factor.l.transpose() - &s).norm_max();
            assert!(error < 1e-12 * (1.0 + s.norm_max()), "{n} {r}: {error}");
        }
    }

    #[test]
    fn an_indefinite_matrix_leaves_a_residual() {
        let s = Mat::from_fn(3, 3, |i, j| if i == j { [1.0, -2.0, 0.5][i] } else { 0.0 });
        assert!(factor(&s).residual > 0.1);
    }
}
