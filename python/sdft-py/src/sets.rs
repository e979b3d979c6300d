//! Distances between two sets of features.

use crate::{arrays, error, tuples};
use pyo3::prelude::*;
use sdft_metrics::{KidOptions, KidSubsets, Moments, SubsetDraw};

/// The most subsets of KID.
const MOST_SUBSETS: usize = 10_000;

/// Fréchet distance between two sets of features, such as FID with the features of Inception.
///
/// Parameters
/// ----------
/// real, fake : array_like of float, shape (n, d)
///     One row for each image, at least two rows. Other float types are read as float32.
///
/// Returns
/// -------
/// float
///     ``|mu_a - mu_b|^2 + tr S_a + tr S_b - 2 tr sqrt(S_a S_b)``, computed in float64 with covariances divided by n - 1. Equal sets have
///     distance 0 up to rounding, also with fewer rows than columns.
///
/// Raises
/// ------
/// ValueError
///     Other shapes or types, sets of different lengths of features, fewer than two rows, values that are not finite.
#[pyfunction]
pub(crate) fn fid(
    py: Python<'_>,
    real: &Bound<'_, PyAny>,
    fake: &Bound<'_, PyAny>,
) -> PyResult<f64> {
    let (real, fake) = pair(real, fake)?;
    py.detach(|| {
        let statistics = |features| Moments::of(features)?.statistics();
        Ok(sdft_metrics::fid(&statistics(&real)?, &statistics(&fake)?)?.value)
    })
    .map_err(error::metric)
}

/// Kernel distance between two sets of features, such as KID with the features of Inception.
///
/// The kernel is ``(x.y / d + 1)^3``, the estimate is unbiased.
///
/// Parameters
/// ----------
/// real, fake : array_like of float, shape (n, d)
///     One row for each image. Other float types are read as float32.
/// subsets : int or None, default 100
///     Number of random subsets. None compares the whole sets once.
/// subset_size : int, default 1000
///     Number of rows of each subset, at most those of the smaller set.
/// seed : int, default 2020
///     Seed of the subsets. 2020 draws those of torch-fidelity.
///
/// Returns
/// -------
/// Kid
///     Named tuple ``(mean, std)`` over the subsets, not multiplied by 1000. ``mean`` may be negative for similar sets; ``std`` is 0 without
///     subsets.
///
/// Raises
/// ------
/// ValueError
///     Other shapes or types, sets of different lengths of features, subsets larger than a set, values that are not finite.
#[pyfunction]
#[pyo3(
    signature = (real, fake, *, subsets=Some(100), subset_size=1000, seed=2020),
    text_signature = "(real, fake, *, subsets=100, subset_size=1000, seed=2020)"
)]
pub(crate) fn kid<'py>(
    py: Python<'py>,
    real: &Bound<'py, PyAny>,
    fake: &Bound<'py, PyAny>,
    subsets: Option<usize>,
    subset_size: usize,
    seed: u32,
) -> PyResult<Bound<'py, PyAny>> {
    let (real, fake) = pair(real, fake)?;
    if let Some(n) = subsets.filter(|n| !(1..=MOST_SUBSETS).contains(n)) {
        return Err(error::value(format!(
            "subsets {n}: expected 1 to {MOST_SUBSETS}, or None for the whole sets"
        )));
    }
    let options = KidOptions::default();
    let found = py.detach(|| match subsets {
        None => Ok([sdft_metrics::mmd2_unbiased(&real, &fake, &options)?, 0.0]),
        Some(count) => {
            let subsets = KidSubsets {
                count,
                size: subset_size,
                draw: SubsetDraw::Seeded(seed),
            };
            let kid = sdft_metrics::kid(&real, &fake, &subsets, &options)?;
            Ok([kid.mean, kid.std])
        }
    });
    tuples::make(py, tuples::KID, found.map_err(error::metric)?)
}

/// Precision and recall, density and coverage of a set of features.
///
/// Parameters
/// ----------
/// real, fake : array_like of float, shape (n, d)
///     One row for each image, more than `k` rows. Other float types are read as float32.
/// k : int, default 3
///     The ball around a row reaches to its `k`-th nearest other row.
///
/// Returns
/// -------
/// PrecisionRecall
///     Named tuple. ``precision``: share of fakes in the ball of a real. ``recall``: share of reals in the ball of a fake (Kynkäänniemi et
///     al. 2019). ``density``: mean number of reals' balls around a fake, divided by `k`. ``coverage``: share of reals whose ball has a fake
///     (Naeem et al. 2020).
///
/// Raises
/// ------
/// ValueError
///     Other shapes or types, sets of different lengths of features, `k` of 0, no more than `k` rows, values that are not finite.
#[pyfunction]
#[pyo3(signature = (real, fake, *, k=3))]
pub(crate) fn precision_recall<'py>(
    py: Python<'py>,
    real: &Bound<'py, PyAny>,
    fake: &Bound<'py, PyAny>,
    k: usize,
) -> PyResult<Bound<'py, PyAny>> {
    let (real, fake) = pair(real, fake)?;
    let found = py.detach(|| sdft_metrics::manifold(&real, &fake, k));
    let found = found.map_err(error::metric)?;
    let values = [found.precision, found.recall, found.density, found.coverage];
    tuples::make(py, tuples::PRECISION_RECALL, values)
}

fn pair(
    real: &Bound<'_, PyAny>,
    fake: &Bound<'_, PyAny>,
) -> PyResult<(sdft_metrics::Features, sdft_metrics::Features)> {
    Ok((
        arrays::features("real", real)?,
        arrays::features("fake", fake)?,
    ))
}
