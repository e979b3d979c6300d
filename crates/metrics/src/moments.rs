//! Mean and covariance of features.

use crate::features::{Features, enough, finite, same_dim};
use crate::linalg::add_lower;
use crate::{MetricsError, Result};
use faer::Mat;

/// Number of rows that are added at once.
const BLOCK: usize = 1024;
/// Largest difference between mirrored entries of a covariance, relative to the largest entry.
const ASYMMETRY: f64 = 1e-4;

/// Accumulates the mean and covariance of feature vectors in f64.
///
/// Each block is centred on its own mean before it is squared, so large means lose no digits. Accumulators of parts can be merged (Chan,
/// Golub and LeVeque).
#[derive(Clone, Debug)]
pub struct Moments {
    n: u64,
    mean: Vec<f64>,
    /// Sum of centred products, lower triangle.
    m2: Mat<f64>,
}

impl Moments {
    /// An empty accumulator for vectors of length `dim`.
    pub fn new(dim: usize) -> Self {
        Self {
            n: 0,
            mean: vec![0.0; dim],
            m2: Mat::zeros(dim, dim),
        }
    }

    /// The moments of a whole set.
    ///
    /// # Errors
    /// Never fails, because features are checked when they are made.
    pub fn of(features: &Features) -> Result<Self> {
        let mut moments = Self::new(features.dim());
        moments.push(features.as_slice())?;
        Ok(moments)
    }

    /// Number of rows added so far.
    pub fn n(&self) -> u64 {
        self.n
    }

    /// Adds any number of rows.
    ///
    /// # Errors
    /// Fails if the number of values is not a multiple of the row length or a value is not finite; then no row is added.
    pub fn push(&mut self, rows: &[f32]) -> Result<()> {
        let dim = self.mean.len();
        if dim == 0 || !rows.len().is_multiple_of(dim) {
            return Err(MetricsError::Rows {
                dim,
                found: rows.len(),
            });
        }
        finite("a feature", rows.iter().map(|&v| f64::from(v)), dim)?;
        for block in rows.chunks(BLOCK * dim) {
            let n = block.len() / dim;
            let mut mean = vec![0.0; dim];
            for row in block.chunks_exact(dim) {
                for (sum, &v) in mean.iter_mut().zip(row) {
                    *sum += f64::from(v);
                }
            }
            mean.iter_mut().for_each(|sum| *sum /= n as f64);
            let mut centred = Mat::zeros(dim, n);
            for (j, row) in block.chunks_exact(dim).enumerate() {
                for ((to, &v), m) in centred.col_mut(j).iter_mut().zip(row).zip(&mean) {
                    *to = f64::from(v) - m;
                }
            }
            self.shift(n as u64, &mean);
            add_lower(
                self.m2.as_mut(),
                centred.as_ref(),
                centred.as_ref().transpose(),
                1.0,
            );
        }
        Ok(())
    }

    /// Adds the rows of another accumulator.
    ///
    /// # Errors
    /// Fails if the vectors have another length.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        same_dim("moments", self.mean.len(), other.mean.len())?;
        if other.n > 0 {
            self.shift(other.n, &other.mean);
            self.m2 += &other.m2;
        }
        Ok(())
    }

    /// Updates count, mean and products for `n` more rows with another mean; the caller adds those rows' own products.
    fn shift(&mut self, n: u64, mean: &[f64]) {
        let (before, added) = (self.n as f64, n as f64);
        let all = before + added;
        let delta: Vec<f64> = mean.iter().zip(&self.mean).map(|(b, a)| b - a).collect();
        let share = before * added / all;
        if self.n > 0 {
            for (j, dj) in delta.iter().enumerate() {
                for (to, di) in self.m2.col_mut(j).iter_mut().zip(&delta).skip(j) {
                    *to += share * di * dj;
                }
            }
        }
        for (mean, d) in self.mean.iter_mut().zip(&delta) {
            *mean += d * added / all;
        }
        self.n += n;
    }

    /// Mean and unbiased covariance (divided by n - 1).
    ///
    /// # Errors
    /// Fails if there are fewer than two rows.
    pub fn statistics(&self) -> Result<Statistics> {
        let n = usize::try_from(self.n).unwrap_or(usize::MAX);
        enough("a covariance", n, 2)?;
        let dim = self.mean.len();
        let mut covariance = vec![0.0; dim * dim];
        for j in 0..dim {
            for i in j..dim {
                let value = self.m2[(i, j)] / (n - 1) as f64;
                covariance[j * dim + i] = value;
                covariance[i * dim + j] = value;
            }
        }
        Ok(Statistics {
            n: Some(self.n),
            mean: self.mean.clone(),
            covariance,
        })
    }
}

/// Mean and covariance of a set of feature vectors, which is all that FID needs.
#[derive(Clone, Debug, PartialEq)]
pub struct Statistics {
    n: Option<u64>,
    mean: Vec<f64>,
    covariance: Vec<f64>,
}

impl Statistics {
    /// Statistics computed elsewhere, with the number of samples if it is known.
    ///
    /// # Shapes
    /// - `mean`: `[D]`, `covariance`: `[D, D]`
    ///
    /// # Errors
    /// Fails if the sizes do not match, a value is not finite, or the covariance is not symmetric or has a negative diagonal.
    pub fn new(mean: Vec<f64>, covariance: Vec<f64>, n: Option<u64>) -> Result<Self> {
        let dim = mean.len();
        if dim == 0 || covariance.len() != dim * dim {
            return Err(MetricsError::Covariance {
                problem: format!(
                    "a mean of {dim} entries needs a covariance of {dim}x{dim}, found {} entries",
                    covariance.len()
                ),
            });
        }
        finite("the mean", mean.iter().copied(), dim)?;
        finite("the covariance", covariance.iter().copied(), dim)?;
        let largest = covariance.iter().fold(0.0f64, |m, v| m.max(v.abs()));
        let problem = |problem: String| Err(MetricsError::Covariance { problem });
        for i in 0..dim {
            if covariance[i * dim + i] < 0.0 {
                return problem(format!(
                    "the variance of feature {i} is {}",
                    covariance[i * dim + i]
                ));
            }
            for j in 0..i {
                let (a, b) = (covariance[i * dim + j], covariance[j * dim + i]);
                if (a - b).abs() > ASYMMETRY * largest {
                    return problem(format!(
                        "not symmetric: entry ({i}, {j}) is {a}, ({j}, {i}) is {b}"
                    ));
                }
            }
        }
        Ok(Self {
            n,
            mean,
            covariance,
        })
    }

    /// Number of samples, if known.
    pub fn n(&self) -> Option<u64> {
        self.n
    }

    /// The mean, `[D]`.
    pub fn mean(&self) -> &[f64] {
        &self.mean
    }

    /// The covariance, `[D, D]`.
    pub fn covariance(&self) -> &[f64] {
        &self.covariance
    }

    /// Length of a feature vector.
    pub fn dim(&self) -> usize {
        self.mean.len()
    }

    /// The covariance as a matrix.
    pub(crate) fn matrix(&self) -> Mat<f64> {
        let dim = self.dim();
        // Averages both triangles, so that the order of the axes does not matter.
        Mat::from_fn(dim, dim, |i, j| {
            0.5 * (self.covariance[i * dim + j] + self.covariance[j * dim + i])
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(n: usize, dim: usize) -> Vec<f32> {
        (0..n * dim)
            .map(|i| 1000.0 + ((i * i) as f32 * 0.37 + i as f32).sin())
            .collect()
    }

    fn close(a: &Statistics, b: &Statistics) {
        for (a, b) in a.mean.iter().zip(&b.mean) {
            assert!((a - b).abs() < 1e-11 * b.abs());
        }
        for (a, b) in a.covariance.iter().zip(&b.covariance) {
            assert!((a - b).abs() < 1e-11);
        }
    }

    #[test]
    fn parts_and_streams_make_the_whole() {
        let dim = 5;
        let rows = rows(2500, dim);
        let whole = Moments::of(&Features::new(rows.clone(), dim).unwrap()).unwrap();
        let whole = whole.statistics().unwrap();
        // The definition, in two passes.
        let n = 2500.0;
        let column = |j: usize| rows.iter().skip(j).step_by(dim).map(|&v| f64::from(v));
        for i in 0..dim {
            let mean_i = column(i).sum::<f64>() / n;
            for j in 0..dim {
                let mean_j = column(j).sum::<f64>() / n;
                let pairs = column(i).zip(column(j));
                let sum: f64 = pairs.map(|(a, b)| (a - mean_i) * (b - mean_j)).sum();
                let got = whole.covariance[i * dim + j];
                assert!((got - sum / (n - 1.0)).abs() < 1e-11, "{i} {j}");
            }
        }
        for split in [1, 7, 1024, 2499] {
            let mut streamed = Moments::new(dim);
            let (mut left, mut right) = (Moments::new(dim), Moments::new(dim));
            for chunk in rows.chunks(split * dim) {
                streamed.push(chunk).unwrap();
            }
            left.push(&rows[..split * dim]).unwrap();
            right.push(&rows[split * dim..]).unwrap();
            left.merge(&right).unwrap();
            left.merge(&Moments::new(dim)).unwrap();
            assert_eq!((streamed.n(), left.n()), (2500, 2500));
            close(&streamed.statistics().unwrap(), &whole);
            close(&left.statistics().unwrap(), &whole);
        }
    }

    #[test]
    fn too_little_or_bad_input_is_refused() {
        let mut one = Moments::new(3);
        one.push(&[1.0, 2.0, 3.0]).unwrap();
        assert!(matches!(
            one.statistics(),
            Err(MetricsError::TooFew { found: 1, .. })
        ));
        assert!(one.push(&[1.0, 2.0]).is_err());
        assert!(one.push(&[1.0, f32::INFINITY, 2.0]).is_err());
        assert_eq!(one.n(), 1);
        assert!(one.merge(&Moments::new(4)).is_err());
        let constant = Features::new([1.0, 2.0].repeat(50), 2).unwrap();
        let statistics = Moments::of(&constant).unwrap().statistics().unwrap();
        assert_eq!(statistics.covariance(), [0.0; 4]);
    }

    #[test]
    fn statistics_from_elsewhere_are_checked() {
        let good = Statistics::new(vec![0.0; 2], vec![1.0, 0.5, 0.5, 1.0], None);
        assert!(good.is_ok());
        for (mean, covariance, word) in [
            (vec![0.0; 2], vec![1.0; 3], "2x2"),
            (vec![0.0; 2], vec![1.0, 0.5, 0.1, 1.0], "not symmetric"),
            (
                vec![0.0; 2],
                vec![-1.0, 0.5, 0.5, 1.0],
                "variance of feature 0",
            ),
            (vec![f64::NAN; 2], vec![1.0; 4], "mean"),
            (vec![0.0; 2], vec![f64::INFINITY; 4], "covariance"),
            (vec![], vec![], "0"),
        ] {
            let error = Statistics::new(mean, covariance, None).unwrap_err();
            assert!(error.to_string().contains(word), "{error}");
        }
    }
}
