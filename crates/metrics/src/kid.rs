use crate::draw::{SubsetDraw, draw_subsets};
use crate::features::{Features, enough, same_dim};
use crate::linalg::{add_lower, columns, products};
use crate::{MetricsError, Result};
use faer::{Mat, MatRef};
use rayon::prelude::*;

/// Rows whose kernel values are computed at once.
const BLOCK: usize = 1024;

/// The polynomial kernel `(gamma x.y + coef0)^degree`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KidOptions {
    /// The exponent.
    pub degree: i32,
    /// The constant.
    pub coef0: f64,
    /// The factor; one over the number of features if not given.
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

/// Kernel distance over subsets. Papers print it times 1000; here it is not.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Kid {
    /// Mean over the subsets. Unbiased, so it may be negative where sets are alike.
    pub mean: f64,
    /// Standard deviation over the subsets, divided by their number.
    pub std: f64,
    /// Samples of each subset.
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

    /// Sum of the kernel of dot products; `below` leaves out what is not below the diagonal.
    fn sum(self, dots: &Mat<f64>, below: bool) -> f64 {
        // Columns are summed apart and then in order, so the number of threads does not matter.
        let columns: Vec<f64> = (0..dots.ncols())
            .into_par_iter()
            .map(|j| {
                let values = dots.col(j).iter().skip(if below { j + 1 } else { 0 });
                values
                    .map(|v| (self.gamma * v + self.coef0).powi(self.degree))
                    .sum()
            })
            .collect();
        columns.iter().sum()
    }

    /// Sum over all pairs of different columns, each counted twice.
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

    /// Sum over all pairs of a column of `x` and one of `y`.
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

/// The unbiased squared maximum mean discrepancy of two whole sets, which may differ in size.
///
/// ```text
/// sum_{i != j} k(x_i, x_j) / m(m-1) + sum_{i != j} k(y_i, y_j) / n(n-1) - 2 sum k(x_i, y_j) / mn
/// ```
/// # Errors
/// Vectors of different length; fewer than two in a set.
pub fn mmd2_unbiased(x: &Features, y: &Features, options: &KidOptions) -> Result<f64> {
    check(x, y)?;
    let kernel = Kernel::of(options, x.dim());
    let (x, y) = (columns(x.rows(), x.dim()), columns(y.rows(), y.dim()));
    Ok(kernel.mmd2(x.as_ref(), y.as_ref()))
}

fn check(x: &Features, y: &Features) -> Result<()> {
    same_dim("KID", x.dim(), y.dim())?;
    enough("KID", x.n(), 2)?;
    enough("KID", y.n(), 2)
}

/// KID on given subsets: the value of each, and their summary.
///
/// # Errors
/// Vectors of different length; lists of different length; fewer than two places in a subset, or one beyond its set.
pub fn kid_of_subsets(
    x: &Features,
    y: &Features,
    places: &[(Vec<usize>, Vec<usize>)],
    options: &KidOptions,
) -> Result<(Vec<f64>, Kid)> {
    check(x, y)?;
    enough("KID over subsets", places.len(), 1)?;
    let kernel = Kernel::of(options, x.dim());
    let chosen = |features: &Features, places: &[usize]| -> Result<Mat<f64>> {
        enough("a subset", places.len(), 2)?;
        let rows = places.iter().map(|&index| {
            let n = features.n();
            let beyond = MetricsError::Index { index, n };
            features.row(index).ok_or(beyond)
        });
        let rows = rows.collect::<Result<Vec<&[f32]>>>()?;
        Ok(columns(rows.into_iter(), features.dim()))
    };
    let mut values = Vec::with_capacity(places.len());
    for (a, b) in places {
        let (a, b) = (chosen(x, a)?, chosen(y, b)?);
        values.push(kernel.mmd2(a.as_ref(), b.as_ref()));
    }
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / n;
    let kid = Kid {
        mean,
        std: variance.sqrt(),
        size: places[0].0.len(),
        subsets: values.len(),
    };
    Ok((values, kid))
}

/// KID over `subsets` subsets of `size` samples of each set.
///
/// Source: torch-fidelity `kid_features_to_metric`, clean-fid `kernel_distance`.
///
/// # Errors
/// As [`kid_of_subsets`] and [`draw_subsets`].
pub fn kid(
    x: &Features,
    y: &Features,
    subsets: usize,
    size: usize,
    draw: SubsetDraw,
    options: &KidOptions,
) -> Result<Kid> {
    let places = draw_subsets([x.n(), y.n()], subsets, size, draw)?;
    Ok(kid_of_subsets(x, y, &places, options)?.1)
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
    fn the_golden_value() {
        let (a, b) = (wave(64, 0.7, 1.1), wave(64, 0.9, 0.6));
        let whole = mmd2_unbiased(&a, &b, &KidOptions::default()).unwrap();
        assert!((whole + 0.003_903_163_8).abs() < 1e-7, "{whole}");
        // One subset of everything is the whole, in whatever order it is drawn.
        let kid = kid(&a, &b, 1, 64, SubsetDraw::Seeded(3), &KidOptions::default()).unwrap();
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
        let error = kid(
            &two,
            &wave(9, 0.1, 0.2),
            3,
            1000,
            SubsetDraw::TorchFidelity,
            &options,
        );
        let error = error.unwrap_err().to_string();
        assert!(
            error.contains("1000") && error.contains("largest possible size is 2"),
            "{error}"
        );
        let places = [(vec![0, 5], vec![0, 1])];
        assert!(kid_of_subsets(&two, &two, &places, &options).is_err());
    }
}
