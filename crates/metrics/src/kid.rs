//! The kernel distance between two sets of features.

use crate::draw::{SubsetDraw, draw_subsets};
use crate::features::{Features, enough, same_dim};
use crate::linalg::{add_lower, columns, products};
use crate::{MetricsError, Result};
use faer::{Mat, MatRef};
use rayon::prelude::*;

/// Number of rows whose kernel values are computed at once.
const BLOCK: usize = 1024;

/// The polynomial kernel `(gamma x.y + coef0)^degree`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KidOptions {
    /// The exponent.
    pub degree: i32,
    /// The constant term.
    pub coef0: f64,
    /// The factor of the dot product; `None` is one over the number of features.
    pub gamma: Option<f64>,
}

impl Default for KidOptions {
    fn default() -> Self {
        Self {
            degree: 3,
            coef0: 1.0,
            gamma: None,
        }
    }
}

/// The kernel distance over subsets. Papers usually print it times 1000; these values are not scaled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Kid {
    /// Mean over the subsets. The estimate is unbiased, so it may be negative for similar sets.
    pub mean: f64,
    /// Standard deviation over the subsets (divided by their number, not by one less).
    pub std: f64,
    /// Number of samples in each subset.
    pub size: usize,
    /// Number of subsets.
    pub subsets: usize,
}

#[derive(Clone, Copy)]
struct Kernel {
    gamma: f64,
    coef0: f64,
    degree: i32,
}

impl Kernel {
    fn of(options: &KidOptions, dim: usize) -> Self {
        Self {
            gamma: options.gamma.unwrap_or(1.0 / dim as f64),
            coef0: options.coef0,
            degree: options.degree,
        }
    }

    /// Sums the kernel of dot products; `below` sums only the entries below the diagonal.
    fn sum(self, dots: &Mat<f64>, below: bool) -> f64 {
        // Columns are summed separately and then in order, so the result does not depend on the number of threads.
        let columns: Vec<f64> = (0..dots.ncols())
            .into_par_iter()
            .map(|j| {
                let values = dots.col(j).iter().skip(if below { j + 1 } else { 0 });
                values.map(|&dot| self.of_dot(dot)).sum()
            })
            .collect();
        columns.iter().sum()
    }

    fn of_dot(self, dot: f64) -> f64 {
        (self.gamma * dot + self.coef0).powi(self.degree)
    }

    /// For each column of `y` the sum over the columns of `x`.
    fn column_sums(self, x: MatRef<'_, f64>, y: MatRef<'_, f64>) -> Vec<f64> {
        let mut sums = vec![0.0; y.ncols()];
        for first in (0..x.ncols()).step_by(BLOCK) {
            let x = x.subcols(first, BLOCK.min(x.ncols() - first));
            for first in (0..y.ncols()).step_by(BLOCK) {
                let block = y.subcols(first, BLOCK.min(y.ncols() - first));
                let dots = products(x, block);
                for (j, sum) in sums[first..].iter_mut().take(block.ncols()).enumerate() {
                    *sum += dots.col(j).iter().map(|&dot| self.of_dot(dot)).sum::<f64>();
                }
            }
        }
        sums
    }

    /// Sums over all pairs of different columns, each pair twice.
    fn within(self, x: MatRef<'_, f64>) -> f64 {
        let mut sum = 0.0;
        for first in (0..x.ncols()).step_by(BLOCK) {
            let block = x.subcols(first, BLOCK.min(x.ncols() - first));
            let mut dots = Mat::zeros(block.ncols(), block.ncols());
            add_lower(dots.as_mut(), block.transpose(), block, 1.0);
            sum += self.sum(&dots, true);
            let after = first + block.ncols();
            sum += self.across(block, x.subcols(after, x.ncols() - after));
        }
        2.0 * sum
    }

    /// Sums over all pairs of a column of `x` and a column of `y`.
    fn across(self, x: MatRef<'_, f64>, y: MatRef<'_, f64>) -> f64 {
        let mut sum = 0.0;
        for first in (0..x.ncols()).step_by(BLOCK) {
            let x = x.subcols(first, BLOCK.min(x.ncols() - first));
            for first in (0..y.ncols()).step_by(BLOCK) {
                let y = y.subcols(first, BLOCK.min(y.ncols() - first));
                sum += self.sum(&products(x, y), false);
            }
        }
        sum
    }

    fn mmd2(self, x: MatRef<'_, f64>, y: MatRef<'_, f64>) -> f64 {
        let (m, n) = (x.ncols() as f64, y.ncols() as f64);
        self.within(x) / (m * (m - 1.0)) + self.within(y) / (n * (n - 1.0))
            - 2.0 * self.across(x, y) / (m * n)
    }
}

/// The unbiased squared maximum mean discrepancy between two sets, whose sizes may differ.
///
/// ```text
/// sum_{i != j} k(x_i, x_j) / m(m-1) + sum_{i != j} k(y_i, y_j) / n(n-1) - 2 sum k(x_i, y_j) / mn
/// ```
/// # Errors
/// Fails if the vectors have different lengths or a set has fewer than two.
pub fn mmd2_unbiased(x: &Features, y: &Features, options: &KidOptions) -> Result<f64> {
    check(x, y)?;
    let kernel = Kernel::of(options, x.dim());
    let (x, y) = (columns(x.rows(), x.dim()), columns(y.rows(), y.dim()));
    Ok(kernel.mmd2(x.as_ref(), y.as_ref()))
}

/// The standard error of [`mmd2_unbiased`] that comes from the choice of the samples `y`, by the jackknife.
///
/// ```text
/// sqrt( (n-1)/n  sum_i (d_i - mean d)^2 )        d_i = mmd2_unbiased(x, y without y_i)
/// ```
/// # Errors
/// Fails if the vectors have different lengths, `x` has fewer than two or `y` fewer than three.
pub fn mmd2_error(x: &Features, y: &Features, options: &KidOptions) -> Result<f64> {
    check(x, y)?;
    enough("the error of KID", y.n(), 3)?;
    let kernel = Kernel::of(options, x.dim());
    let (x, y) = (columns(x.rows(), x.dim()), columns(y.rows(), y.dim()));
    let (m, n) = (x.ncols() as f64, y.ncols() as f64);
    let within = kernel.column_sums(y.as_ref(), y.as_ref());
    let across = kernel.column_sums(x.as_ref(), y.as_ref());
    let own = (0..y.ncols()).map(|i| kernel.of_dot(y.col(i).transpose() * y.col(i)));
    let within: Vec<f64> = within.iter().zip(own).map(|(sum, own)| sum - own).collect();
    let (all_within, all_across) = (within.iter().sum::<f64>(), across.iter().sum::<f64>());
    // What is the same for every i is left out: the sum over pairs of `x`.
    let without: Vec<f64> = within
        .iter()
        .zip(&across)
        .map(|(within, across)| {
            (all_within - 2.0 * within) / ((n - 1.0) * (n - 2.0))
                - 2.0 * (all_across - across) / (m * (n - 1.0))
        })
        .collect();
    let mean = without.iter().sum::<f64>() / n;
    let squares = without.iter().map(|d| (d - mean) * (d - mean));
    Ok(((n - 1.0) / n * squares.sum::<f64>()).sqrt())
}

fn check(x: &Features, y: &Features) -> Result<()> {
    same_dim("KID", x.dim(), y.dim())?;
    enough("KID", x.n(), 2)?;
    enough("KID", y.n(), 2)
}

/// KID over the given subsets, each a list of indices for either set.
///
/// # Errors
/// Fails if the vectors have different lengths, there is no subset, a subset has fewer than two indices or lists of different lengths, or
/// an index is out of range.
pub fn kid_of_subsets(
    x: &Features,
    y: &Features,
    indices: &[(Vec<usize>, Vec<usize>)],
    options: &KidOptions,
) -> Result<(Vec<f64>, Kid)> {
    check(x, y)?;
    enough("KID over subsets", indices.len(), 1)?;
    let kernel = Kernel::of(options, x.dim());
    let chosen = |features: &Features, indices: &[usize]| -> Result<Mat<f64>> {
        enough("a subset", indices.len(), 2)?;
        let rows = indices.iter().map(|&index| {
            let n = features.n();
            let beyond = MetricsError::Index { index, n };
            features.row(index).ok_or(beyond)
        });
        let rows = rows.collect::<Result<Vec<&[f32]>>>()?;
        Ok(columns(rows.into_iter(), features.dim()))
    };
    let mut values = Vec::with_capacity(indices.len());
    for (a, b) in indices {
        let (a, b) = (chosen(x, a)?, chosen(y, b)?);
        values.push(kernel.mmd2(a.as_ref(), b.as_ref()));
    }
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / n;
    let kid = Kid {
        mean,
        std: variance.sqrt(),
        size: indices[0].0.len(),
        subsets: values.len(),
    };
    Ok((values, kid))
}

/// The random subsets of [`kid`]. The default is torch-fidelity's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KidSubsets {
    /// Number of subsets.
    pub count: usize,
    /// Number of samples in each subset.
    pub size: usize,
    /// How the samples are drawn.
    pub draw: SubsetDraw,
}

impl Default for KidSubsets {
    fn default() -> Self {
        Self {
            count: 100,
            size: 1000,
            draw: SubsetDraw::TorchFidelity,
        }
    }
}

/// KID over random subsets of both sets.
///
/// Source: torch-fidelity `kid_features_to_metric`, clean-fid `kernel_distance`.
///
/// # Errors
/// Fails for the same reasons as [`kid_of_subsets`], or if a set has fewer samples than a subset.
pub fn kid(x: &Features, y: &Features, subsets: &KidSubsets, options: &KidOptions) -> Result<Kid> {
    let KidSubsets { count, size, draw } = *subsets;
    let indices = draw_subsets([x.n(), y.n()], count, size, draw)?;
    Ok(kid_of_subsets(x, y, &indices, options)?.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wave(n: usize, a: f64, b: f64) -> Features {
        let value = |i: usize, j: usize| {
            let (i, j) = (i as f64, j as f64);
            (a * i + b * j + 0.01 * i * j).sin().abs() as f32
        };
        Features::new((0..n * 8).map(|k| value(k / 8, k % 8)).collect(), 8).unwrap()
    }

    #[test]
    fn the_error_is_that_of_leaving_each_sample_out() {
        let (x, y) = (wave(9, 0.7, 1.1), wave(7, 0.9, 0.6));
        let options = KidOptions::default();
        let without: Vec<f64> = (0..7)
            .map(|left_out| {
                let rows = (0..7).filter(|&i| i != left_out);
                let rows = rows.flat_map(|i| y.row(i).unwrap().to_vec()).collect();
                let rest = Features::new(rows, 8).unwrap();
                mmd2_unbiased(&x, &rest, &options).unwrap()
            })
            .collect();
        let mean = without.iter().sum::<f64>() / 7.0;
        let squares: f64 = without.iter().map(|d| (d - mean).powi(2)).sum();
        let want = (6.0 / 7.0 * squares).sqrt();
        let got = mmd2_error(&x, &y, &options).unwrap();
        assert!((got / want - 1.0).abs() < 1e-9, "{got} {want}");
        assert!(mmd2_error(&x, &wave(2, 0.9, 0.6), &options).is_err());
    }

    #[test]
    fn the_golden_value() {
        let (a, b) = (wave(64, 0.7, 1.1), wave(64, 0.9, 0.6));
        let whole = mmd2_unbiased(&a, &b, &KidOptions::default()).unwrap();
        assert!((whole + 0.003_903_163_8).abs() < 1e-7, "{whole}");
        // A subset of all samples is the whole set, in any order.
        let subsets = KidSubsets {
            count: 1,
            size: 64,
            draw: SubsetDraw::Seeded(3),
        };
        let kid = kid(&a, &b, &subsets, &KidOptions::default()).unwrap();
        assert!((kid.mean - whole).abs() < 1e-12 && kid.std == 0.0);
    }

    #[test]
    fn blocks_do_not_change_the_sum() {
        let (a, b) = (wave(1500, 0.7, 1.1), wave(1100, 0.9, 0.6));
        let got = mmd2_unbiased(&a, &b, &KidOptions::default()).unwrap();
        let k = |x: &[f32], y: &[f32]| {
            let dot: f64 = x
                .iter()
                .zip(y)
                .map(|(a, b)| f64::from(*a) * f64::from(*b))
                .sum();
            (dot / 8.0 + 1.0).powi(3)
        };
        let within = |x: &Features| {
            let all: f64 = x.rows().flat_map(|p| x.rows().map(move |q| k(p, q))).sum();
            let n = x.n() as f64;
            (all - x.rows().map(|p| k(p, p)).sum::<f64>()) / (n * (n - 1.0))
        };
        let across: f64 = a.rows().flat_map(|p| b.rows().map(move |q| k(p, q))).sum();
        let want = within(&a) + within(&b) - 2.0 * across / (1500.0 * 1100.0);
        assert!((got - want).abs() < 1e-11, "{got} {want}");
    }

    #[test]
    fn sets_that_are_too_small_are_refused() {
        let (one, two) = (wave(1, 0.7, 1.1), wave(2, 0.9, 0.6));
        let options = KidOptions::default();
        let error = mmd2_unbiased(&one, &two, &options).unwrap_err().to_string();
        assert!(error.contains("at least 2 samples, found 1"), "{error}");
        assert!(mmd2_unbiased(&two, &two, &options).unwrap().is_finite());
        let error = kid(&two, &wave(9, 0.1, 0.2), &KidSubsets::default(), &options);
        let error = error.unwrap_err().to_string();
        assert!(
            error.contains("1000") && error.contains("largest possible size is 2"),
            "{error}"
        );
        let indices = [(vec![0, 5], vec![0, 1])];
        assert!(kid_of_subsets(&two, &two, &indices, &options).is_err());
    }
}
