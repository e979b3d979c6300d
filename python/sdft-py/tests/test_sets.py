"""Distances between sets of features: exact values, and NumPy, SciPy and PyTorch where installed."""

import numpy as np
import pytest
import sdft_py


def features(n, d, seed):
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


def test_fid_of_known_sets():
    # Two points each: means 1 and 4, variances 2 and 8.
    real, fake = [[0.0], [2.0]], [[2.0], [6.0]]
    expected = 3.0**2 + (np.sqrt(8.0) - np.sqrt(2.0)) ** 2
    assert sdft_py.fid(real, fake) == pytest.approx(expected, abs=1e-12)


def test_fid_of_equal_sets_is_zero_with_fewer_rows_than_columns():
    x = features(5, 40, 0)
    assert abs(sdft_py.fid(x, x)) < 1e-10


def test_fid_is_the_formula_with_scipys_root():
    linalg = pytest.importorskip("scipy.linalg")
    a, b = features(300, 12, 1), 0.5 * features(200, 12, 2) + 0.3
    sa, sb = (np.cov(x.astype(np.float64), rowvar=False) for x in (a, b))
    root = linalg.sqrtm(sa @ sb).real
    gap = a.astype(np.float64).mean(0) - b.astype(np.float64).mean(0)
    expected = gap @ gap + np.trace(sa + sb - 2 * root)
    assert sdft_py.fid(a, b) == pytest.approx(expected, rel=1e-9)


def mmd2(x, y):
    x, y = x.astype(np.float64), y.astype(np.float64)
    k = lambda p, q: (p @ q.T / x.shape[1] + 1) ** 3
    m, n = len(x), len(y)
    xx, yy = k(x, x), k(y, y)
    return (
        (xx.sum() - np.trace(xx)) / (m * (m - 1))
        + (yy.sum() - np.trace(yy)) / (n * (n - 1))
        - 2 * k(x, y).mean()
    )


def test_kid_of_whole_sets_is_the_definition():
    a, b = features(40, 6, 3), features(30, 6, 4) + 0.5
    kid = sdft_py.kid(a, b, subsets=None)
    assert isinstance(kid, sdft_py.Kid)
    assert kid.mean == pytest.approx(mmd2(a, b), rel=1e-12)
    assert kid.std == 0


def test_kid_draws_the_subsets_of_torch_fidelity():
    a, b = features(60, 5, 5), features(50, 5, 6) + 0.2
    generator = np.random.RandomState(2020)
    values = []
    for _ in range(7):
        i = generator.choice(60, 20, replace=False)
        j = generator.choice(50, 20, replace=False)
        values.append(mmd2(a[i], b[j]))
    mean, std = sdft_py.kid(a, b, subsets=7, subset_size=20)
    assert mean == pytest.approx(np.mean(values), rel=1e-10)
    assert std == pytest.approx(np.std(values), rel=1e-10)
    assert sdft_py.kid(a, b, subsets=7, subset_size=20, seed=1).mean != mean


def test_precision_and_recall_count_balls():
    # The radii to the nearest other are 1, 1, 7 and 0.5, 0.5, 19.25.
    got = sdft_py.precision_recall([[0.0], [1.0], [8.0]], [[0.25], [0.75], [20.0]], k=1)
    assert got == (2 / 3, 1.0, 4 / 3, 2 / 3)
    assert got.recall == 1.0


def test_other_float_types_and_strides_are_read():
    x, y = features(20, 8, 7), features(20, 8, 8)
    expected = sdft_py.fid(x, y)
    assert sdft_py.fid(x.astype(np.float64), np.asfortranarray(y)) == expected
    assert sdft_py.fid(np.repeat(x, 2, axis=0)[::2], y.tolist()) == expected
    assert sdft_py.fid(x.astype(np.float16), y) == pytest.approx(expected, rel=1e-2)


def test_tensors_of_pytorch_are_read():
    torch = pytest.importorskip("torch")
    x, y = features(20, 4, 9), features(20, 4, 10)
    assert sdft_py.fid(torch.from_numpy(x), torch.from_numpy(y)) == sdft_py.fid(x, y)


@pytest.mark.parametrize(
    "call, text",
    [
        (lambda x: sdft_py.fid(x, x[:, :3]), "same length, found 4 and 3"),
        (lambda x: sdft_py.fid(x[:1], x), "at least 2 samples, found 1"),
        (lambda x: sdft_py.fid(x[0], x), r"real: expected an array of shape \(n, d\), found \(4,\)"),
        (lambda x: sdft_py.fid(x, x.astype(int)), "fake: expected floats, found int64"),
        (lambda x: sdft_py.fid(x, x.astype(">f4")), "fake: expected floats, found >f4"),
        (lambda x: sdft_py.fid(x, x / 0.0), "fake: a feature is"),
        (lambda x: sdft_py.fid(x, x.astype(np.float64) * 1e300), "finite"),
        (lambda x: sdft_py.kid(x, x), "largest possible size is 6"),
        (lambda x: sdft_py.kid(x, x, subsets=0), "subsets 0: expected 1 to 10000"),
        (lambda x: sdft_py.kid(x, x, subset_size=1), "at least 2 samples, found 1"),
        (lambda x: sdft_py.precision_recall(x, x, k=6), "at least 7 samples, found 6"),
        (lambda x: sdft_py.precision_recall(x, x, k=0), "at least 1 samples, found 0"),
        (lambda x: sdft_py.fid(np.zeros((3, 0)), np.zeros((3, 0))), "rows of 0"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
def test_bad_sets_are_value_errors(call, text):
    with pytest.raises(ValueError, match=text):
        call(features(6, 4, 0))
