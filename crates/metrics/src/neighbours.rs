//! Nearest neighbours, and precision and recall based on them.

use crate::features::{Features, enough, same_dim};
use crate::linalg::{columns, products};
use crate::{MetricsError, Result};
use faer::{Mat, MatRef};
use rayon::prelude::*;

/// Number of rows whose distances are computed at once.
const BLOCK: usize = 512;

/// The nearest vector of a set.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Neighbour {
    /// Its index in the set.
    pub index: usize,
    /// Euclidean distance; 0 for an equal vector.
    pub distance: f64,
}

/// For every query, the nearest reference.
///
/// # Errors
/// Fails if the vectors have different lengths or there is no reference.
pub fn nearest(queries: &Features, references: &Features) -> Result<Vec<Neighbour>> {
    same_dim("nearest neighbours", queries.dim(), references.dim())?;
    enough("a nearest neighbour", references.n(), 1)?;
    Ok(closest(queries, references, false))
}

/// For every vector of a set, the nearest other vector.
///
/// # Errors
/// Fails if there are fewer than two vectors.
pub fn nearest_others(x: &Features) -> Result<Vec<Neighbour>> {
    enough("a nearest other", x.n(), 2)?;
    Ok(closest(x, x, true))
}

/// For every query, the nearest reference; `others` excludes the reference with the query's own index.
fn closest(queries: &Features, references: &Features, others: bool) -> Vec<Neighbour> {
    let mut out = Vec::with_capacity(queries.n());
    each_block(queries, references, |first, distances| {
        out.par_extend((0..distances.ncols()).into_par_iter().map(|j| {
            let column = distances.col(j);
            let index = (0..column.nrows())
                .filter(|&i| !others || i != first + j)
                .min_by(|&a, &b| column[a].total_cmp(&column[b]))
                .unwrap_or(0);
            Neighbour {
                index,
                distance: exact(queries, first + j, references, index),
            }
        }));
    });
    out
}

/// The distance, computed without the cancellation of the expanded form.
fn exact(a: &Features, i: usize, b: &Features, j: usize) -> f64 {
    let (Some(a), Some(b)) = (a.row(i), b.row(j)) else {
        return f64::NAN;
    };
    let squares = a.iter().zip(b).map(|(a, b)| {
        let d = f64::from(*a) - f64::from(*b);
        d * d
    });
    squares.sum::<f64>().sqrt()
}

/// Calls `f(first query, squared distances [references, queries])` for each block of queries.
pub(crate) fn each_block(
    queries: &Features,
    references: &Features,
    mut f: impl FnMut(usize, Mat<f64>),
) {
    let y = columns(references.rows(), references.dim());
    let y_norms = norms(y.as_ref());
    let mut first = 0;
    while first < queries.n() {
        let places = first..(first + BLOCK).min(queries.n());
        let rows: Vec<&[f32]> = queries.rows().skip(first).take(places.len()).collect();
        let x = columns(rows.into_iter(), queries.dim());
        let x_norms = norms(x.as_ref());
        let mut distances = products(y.as_ref(), x.as_ref());
        for (j, x_norm) in x_norms.iter().enumerate() {
            for (d, y_norm) in distances.col_mut(j).iter_mut().zip(&y_norms) {
                *d = (x_norm + y_norm - 2.0 * *d).max(0.0);
            }
        }
        f(first, distances);
        first = places.end;
    }
}

fn norms(x: MatRef<'_, f64>) -> Vec<f64> {
    (0..x.ncols())
        .map(|j| x.col(j).iter().map(|v| v * v).sum())
        .collect()
}

/// For every vector, the squared distance to its `k`-th nearest other.
fn radii(x: &Features, k: usize) -> Vec<f64> {
    let mut out = Vec::with_capacity(x.n());
    each_block(x, x, |first, distances| {
        out.par_extend((0..distances.ncols()).into_par_iter().map(|j| {
            let mut others: Vec<f64> = distances.col(j).iter().copied().collect();
            others.swap_remove(first + j);
            *others.select_nth_unstable_by(k - 1, f64::total_cmp).1
        }));
    });
    out
}

/// How two sets cover each other, measured with balls around their members that reach to the `k`-th neighbour.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Manifold {
    /// Precision: the share of fakes inside a ball of a real (fidelity).
    pub precision: f64,
    /// Recall: the share of reals inside a ball of a fake (diversity).
    pub recall: f64,
    /// Density: the mean number of reals' balls that contain a fake, divided by `k`; may exceed 1.
    pub density: f64,
    /// Coverage: the share of reals whose own ball contains a fake (diversity, robust against outliers among the fakes).
    pub coverage: f64,
}

/// Precision and recall (Kynkäänniemi et al. 2019), density and coverage (Naeem et al. 2020).
///
/// # Errors
/// Fails if the vectors have different lengths, `k` is 0, or a set has no more than `k` vectors.
pub fn manifold(real: &Features, fake: &Features, k: usize) -> Result<Manifold> {
    same_dim("precision and recall", real.dim(), fake.dim())?;
    if k == 0 {
        return Err(MetricsError::TooFew {
            what: "precision and recall over neighbours",
            needed: 1,
            found: 0,
        });
    }
    enough("precision and recall", real.n(), k + 1)?;
    enough("precision and recall", fake.n(), k + 1)?;
    let (real_radii, fake_radii) = (radii(real, k), radii(fake, k));
    let (mut precise, mut balls) = (0usize, 0usize);
    let mut recalled = vec![false; real.n()];
    let mut covered = vec![false; real.n()];
    each_block(fake, real, |first, distances| {
        for (j, fake_radius) in fake_radii
            .iter()
            .skip(first)
            .take(distances.ncols())
            .enumerate()
        {
            let mut inside = 0;
            for (i, &d) in distances.col(j).iter().enumerate() {
                if d < real_radii[i] {
                    inside += 1;
                    covered[i] = true;
                }
                recalled[i] |= d < *fake_radius;
            }
            precise += usize::from(inside > 0);
            balls += inside;
        }
    });
    let share = |hits: &[bool]| hits.iter().filter(|&&hit| hit).count() as f64 / real.n() as f64;
    let n = fake.n() as f64;
    Ok(Manifold {
        precision: precise as f64 / n,
        recall: share(&recalled),
        density: balls as f64 / (k as f64 * n),
        coverage: share(&covered),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(values: &[f32]) -> Features {
        Features::new(values.to_vec(), 1).unwrap()
    }

    #[test]
    fn a_copy_has_distance_zero_and_the_nearest_is_found() {
        let references = Features::new((0..3000).map(|i| (i as f32).sin() * 100.0).collect(), 3);
        let references = references.unwrap();
        let queries = references.select(&[999, 3, 511, 512]).unwrap();
        let found = nearest(&queries, &references).unwrap();
        let got: Vec<usize> = found.iter().map(|n| n.index).collect();
        assert_eq!(got, [999, 3, 511, 512]);
        assert!(found.iter().all(|n| n.distance == 0.0));
        let found = nearest(&points(&[2.2, 9.0]), &points(&[1.0, 2.0, 4.0])).unwrap();
        assert_eq!((found[0].index, found[1].index), (1, 2));
        assert!((found[1].distance - 5.0).abs() < 1e-12);
        let others = nearest_others(&points(&[1.0, 2.0, 4.0])).unwrap();
        assert_eq!(
            others.iter().map(|n| n.index).collect::<Vec<_>>(),
            [1, 0, 1]
        );
        assert!(nearest(&queries, &Features::new(vec![], 3).unwrap()).is_err());
        assert!(nearest_others(&points(&[1.0])).is_err());
    }

    #[test]
    fn balls_count_as_by_hand() {
        // Radii to the nearest: reals 1, 1, 7 (at 0, 1, 8); fakes 0.5, 0.5, 10 (at 0.25, 0.75, 20).
        let (real, fake) = (points(&[0.0, 1.0, 8.0]), points(&[0.25, 0.75, 20.0]));
        let got = manifold(&real, &fake, 1).unwrap();
        // 0.25 and 0.75 are in the balls of 0 and 1; 0.75 is 7.25 from 8; 20 is in none.
        assert_eq!(got.precision, 2.0 / 3.0);
        assert_eq!(got.density, 4.0 / 3.0);
        // 0 is in the ball of 0.25, and 1 in that of 0.75; 8 is 12 from 20, outside 19.25.
        assert_eq!((got.recall, got.coverage), (1.0, 2.0 / 3.0));
        let same = manifold(&real, &real, 2).unwrap();
        assert_eq!(
            (same.precision, same.recall, same.coverage),
            (1.0, 1.0, 1.0)
        );
        assert!(manifold(&real, &fake, 3).is_err());
        assert!(manifold(&real, &fake, 0).is_err());
    }
}
