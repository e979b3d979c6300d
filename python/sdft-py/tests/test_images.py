"""PSNR, SSIM and resizing: exact values, and scikit-image and Pillow where installed."""

import numpy as np
import pytest
import sdft_py

RANGES = {"uint8": 255.0, "uint16": 65535.0, "float32": 1.0}


def image(dtype, shape, seed):
    values = np.random.default_rng(seed).random(shape)
    if dtype == "float32":
        return values.astype(np.float32)
    return (values * RANGES[dtype]).astype(dtype)


def pair(dtype, shape=(21, 34, 3)):
    a = image(dtype, shape, 0)
    b = (0.7 * a + 0.3 * image(dtype, shape, 1)).astype(dtype)
    return a, b, {"data_range": 1.0} if dtype == "float32" else {}


def test_psnr_of_known_images():
    black, grey = np.zeros((4, 5), np.uint8), np.full((4, 5), 51, np.uint8)
    assert sdft_py.psnr(black, grey) == pytest.approx(20 * np.log10(5), abs=1e-12)
    assert sdft_py.psnr(grey, grey) == np.inf
    assert sdft_py.psnr(black, grey, data_range=51) == pytest.approx(0.0, abs=1e-12)


def test_equal_images_have_similarity_1_and_other_images_less():
    a, b, options = pair("uint8")
    for window in ("gaussian", "uniform"):
        assert sdft_py.ssim(a, a, window=window) == pytest.approx(1.0, abs=1e-12)
        assert 0.5 < sdft_py.ssim(a, b, window=window) < 0.99


@pytest.mark.parametrize("dtype", RANGES)
@pytest.mark.parametrize("shape", [(21, 34), (21, 34, 1), (16, 23, 3), (16, 23, 5)])
def test_comparisons_are_scikit_images(dtype, shape):
    metrics = pytest.importorskip("skimage.metrics")
    a, b, options = pair(dtype, shape)
    # scikit-image computes float32 images in float32.
    x, y = (v.astype(np.float64) for v in (a, b))
    axis = {"channel_axis": 2} if len(shape) == 3 else {}
    expected = {"data_range": RANGES[dtype]}
    assert sdft_py.psnr(a, b, **options) == pytest.approx(
        metrics.peak_signal_noise_ratio(x, y, **expected), rel=1e-10
    )
    assert sdft_py.ssim(a, b, window="uniform", **options) == pytest.approx(
        metrics.structural_similarity(x, y, **axis, **expected), rel=1e-10
    )
    gaussian = {"gaussian_weights": True, "use_sample_covariance": False, "sigma": 1.5}
    assert sdft_py.ssim(a, b, **options) == pytest.approx(
        metrics.structural_similarity(x, y, **gaussian, **axis, **expected), rel=1e-10
    )


def test_box_halving_is_a_rounded_mean():
    got = sdft_py.resize(np.array([[1, 2], [4, 6]], np.uint8), 1, 1, filter="box")
    # The rows become 1.5 -> 2 and 5, and their mean 3.5 -> 4, because each pass rounds.
    assert got.tolist() == [[4]]
    assert got.dtype == np.uint8


@pytest.mark.parametrize("dtype", RANGES)
def test_type_and_dimensions_stay(dtype):
    for shape, expected in [((9, 7), (5, 12)), ((9, 7, 2), (5, 12, 2))]:
        got = sdft_py.resize(image(dtype, shape, 2), 12, 5)
        assert (got.shape, got.dtype) == (expected, np.dtype(dtype))
    same = image(dtype, (9, 7, 3), 3)
    assert np.array_equal(sdft_py.resize(same, 7, 9), same)


@pytest.mark.parametrize("filter", ["box", "bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "I;16", "F"])
@pytest.mark.parametrize("size", [(11, 13), (90, 64), (40, 7), (1, 1)])
def test_resizing_is_pillows(mode, filter, size):
    Image = pytest.importorskip("PIL.Image")
    if int(Image.__version__.split(".")[0]) < 13:
        pytest.skip("the order of the passes is that of Pillow 13")
    channels = {"RGB": (3,), "RGBA": (4,)}.get(mode, ())
    dtype = {"I;16": "uint16", "F": "float32"}.get(mode, "uint8")
    pixels = image(dtype, (37, 53, *channels), 4)
    resample = getattr(Image.Resampling, filter.upper())
    expected = np.asarray(Image.fromarray(pixels).resize(size, resample))
    got = sdft_py.resize(pixels, *size, filter=filter)
    assert got.dtype == expected.dtype
    assert np.array_equal(got, expected)


@pytest.mark.parametrize(
    "call, text",
    [
        (lambda x: sdft_py.psnr(x, x[:5]), "different sizes"),
        (lambda x: sdft_py.psnr(x, x[:, :, :2]), "different numbers of channels: 3 and 2"),
        (lambda x: sdft_py.psnr(x, x.astype(np.uint16)), "a is of type uint8 and b of type uint16"),
        (lambda x: sdft_py.psnr(x / 255, x / 255), "data_range: floats need"),
        (lambda x: sdft_py.psnr(x, x, data_range=-1), "range from 0 to -1"),
        (lambda x: sdft_py.psnr(x, x, data_range=float("nan")), "range from 0 to NaN"),
        (lambda x: sdft_py.psnr(x * np.nan, x / 255, data_range=1), "NaN"),
        (lambda x: sdft_py.psnr(x, x.astype(bool)), "b: expected uint8, uint16 or floats, found bool"),
        (lambda x: sdft_py.ssim(x[:5], x[:5]), "smaller than the window of 11x11"),
        (lambda x: sdft_py.ssim(x, x, window="box"), 'window "box": expected one of gaussian, uniform'),
        (lambda x: sdft_py.resize(x[0, 0], 4, 4), r"found \(3,\)"),
        (lambda x: sdft_py.resize(x[:0], 4, 4), r"at least one pixel and channel, found \(0, 20, 3\)"),
        (lambda x: sdft_py.resize(x, 0, 4), "size 0x4"),
        (lambda x: sdft_py.resize(x, 2**40, 2**40), "at most 1073741824 samples"),
        (lambda x: sdft_py.resize(x, 4, 4, filter="nearest"), 'filter "nearest": expected one of box'),
    ],
)
def test_bad_images_are_value_errors(call, text):
    with pytest.raises(ValueError, match=text):
        call(image("uint8", (20, 20, 3), 0))
