//! The Fréchet distance between two sets of features.

use crate::features::same_dim;
use crate::linalg::{Factor, factor, products};
use crate::moments::Statistics;
use crate::{MetricsError, Result};

/// Largest share of a covariance that its factor may miss. Rounding and single precision explain less; beyond it the matrix is indefinite.
const RESIDUAL: f64 = 1e-4;

/// The Fréchet distance and its parts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fid {
    /// The distance: at least 0, except for rounding.
    pub value: f64,
    /// The squared distance of the means.
    pub mean_term: f64,
    /// The contribution of the covariances.
    pub trace_term: f64,
    /// Numerical rank of both covariances: below the dimension if there are fewer samples than features.
    pub rank: [usize; 2],
    /// The larger of both covariances' residuals: the share that the factor does not reproduce.
    pub residual: f64,
}

/// The Fréchet distance between two Gaussians.
///
/// ```text
/// |mu_a - mu_b|^2 + tr S_a + tr S_b - 2 tr sqrt(S_a S_b)          S = L L^T,   tr sqrt(S_a S_b) = sum of singular values of L_b^T L_a
/// ```
/// It takes no square root of a non-symmetric matrix, so no value becomes complex or infinite when there are fewer samples than features:
/// each factor has the rank of its covariance.
///
/// # Errors
/// Fails if the statistics have different lengths or a covariance is not positive semi-definite.
pub fn fid(a: &Statistics, b: &Statistics) -> Result<Fid> {
    same_dim("FID", a.dim(), b.dim())?;
    let differences = a.mean().iter().zip(b.mean());
    let mean_term: f64 = differences.map(|(a, b)| (a - b) * (a - b)).sum();
    let trace = |s: &Statistics| -> f64 { s.covariance().iter().step_by(s.dim() + 1).sum() };
    let factors = [a, b].map(|s| factor(&s.matrix()));
    for Factor { residual, .. } in &factors {
        if *residual > RESIDUAL {
            return Err(MetricsError::Covariance {
                problem: format!(
                    "not positive semi-definite, {residual:.1e} of it cannot be factored"
                ),
            });
        }
    }
    let [fa, fb] = factors;
    let singular = if fa.l.ncols().min(fb.l.ncols()) == 0 {
        Vec::new()
    } else {
        products(fb.l.as_ref(), fa.l.as_ref())
            .singular_values()
            .map_err(|_| MetricsError::NoConvergence)?
    };
    let trace_term = trace(a) + trace(b) - 2.0 * singular.iter().sum::<f64>();
    Ok(Fid {
        value: mean_term + trace_term,
        mean_term,
        trace_term,
        rank: [fa.l.ncols(), fb.l.ncols()],
        residual: fa.residual.max(fb.residual),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Features, Moments};

    fn wave(n: usize, dim: usize, a: f64, b: f64) -> Features {
        let value = |i: usize, j: usize| {
            let (i, j) = (i as f64, j as f64);
            (a * i + b * j + 0.01 * i * j).sin().abs() as f32
        };
        let data = (0..n * dim).map(|k| value(k / dim, k % dim)).collect();
        Features::new(data, dim).unwrap()
    }

    fn statistics(features: &Features) -> Statistics {
        Moments::of(features).unwrap().statistics().unwrap()
    }

    #[test]
    fn the_golden_value() {
        let (a, b) = (wave(64, 8, 0.7, 1.1), wave(64, 8, 0.9, 0.6));
        let fid = fid(&statistics(&a), &statistics(&b)).unwrap();
        assert!((fid.value - 0.545_652_254_3).abs() < 1e-6, "{fid:?}");
        assert!((fid.mean_term + fid.trace_term - fid.value).abs() < 1e-15);
    }

    #[test]
    fn equal_sets_have_distance_zero_at_any_number_of_samples() {
        for n in [2, 5, 40, 300] {
            let s = statistics(&wave(n, 40, 0.7, 1.1));
            let fid = fid(&s, &s).unwrap();
            assert!(fid.value.abs() < 1e-12, "{n}: {fid:?}");
            assert!(fid.rank[0] <= (n - 1).min(40));
        }
    }

    #[test]
    fn known_gaussians_have_their_known_distance() {
        // Diagonal covariances commute, so the trace term is the squared distance of the standard deviations.
        let (a, b) = (
            Statistics::new(vec![1.0, 0.0], vec![4.0, 0.0, 0.0, 9.0], None).unwrap(),
            Statistics::new(vec![0.0, 2.0], vec![1.0, 0.0, 0.0, 0.0], None).unwrap(),
        );
        let fid = fid(&a, &b).unwrap();
        assert!((fid.value - (5.0 + 1.0 + 9.0)).abs() < 1e-12, "{fid:?}");
        assert_eq!(fid.rank, [2, 1]);
        // Constant images have no variance, so only the means differ.
        let points = [[1.0f32, 2.0], [4.0, 6.0]]
            .map(|p| statistics(&Features::new(p.repeat(9), 2).unwrap()));
        assert_eq!(super::fid(&points[0], &points[1]).unwrap().value, 25.0);
    }

    #[test]
    fn a_matrix_that_is_not_a_covariance_is_refused() {
        let good = Statistics::new(vec![0.0; 2], vec![1.0, 0.0, 0.0, 1.0], None).unwrap();
        let bad = Statistics::new(vec![0.0; 2], vec![1.0, 3.0, 3.0, 1.0], None).unwrap();
        let error = fid(&good, &bad).unwrap_err().to_string();
        assert!(error.contains("semi-definite"), "{error}");
        let other = Statistics::new(vec![0.0], vec![1.0], None).unwrap();
        assert!(fid(&good, &other).is_err());
    }
}
