//! Comparisons of two images, and resizing.

use crate::arrays::{self, ImageArray};
use crate::error;
use pyo3::prelude::*;
use sdft_imaging::{Depth, Filter, Image, Samples};
use sdft_metrics::{MetricsError, Picture, PictureSamples, SsimWindow};

/// The most samples of a resized image and of what is between its two passes.
const MOST_SAMPLES: usize = 1 << 30;

const FILTERS: [(&str, Filter); 4] = [
    ("box", Filter::Box),
    ("bilinear", Filter::Bilinear),
    ("bicubic", Filter::Bicubic),
    ("lanczos", Filter::Lanczos),
];

const WINDOWS: [(&str, SsimWindow); 2] = [
    ("gaussian", SsimWindow::Gaussian11),
    ("uniform", SsimWindow::Uniform7),
];

/// Peak signal-to-noise ratio of two images in dB.
///
/// Parameters
/// ----------
/// a, b : array_like of uint8, uint16 or float, shape (height, width) or (height, width, channels)
///     Images of the same shape and type. Other float types are read as float32.
/// data_range : float, optional
///     The highest possible value minus the lowest, as in scikit-image. 255 for uint8 and 65535 for uint16 if not given; floats need it.
///
/// Returns
/// -------
/// float
///     ``10 log10(data_range^2 / mse)``, infinite for equal images.
///
/// Raises
/// ------
/// ValueError
///     Other shapes or types, different images, floats without a range, values that are not finite.
#[pyfunction]
#[pyo3(signature = (a, b, *, data_range=None))]
pub(crate) fn psnr(
    py: Python<'_>,
    a: &Bound<'_, PyAny>,
    b: &Bound<'_, PyAny>,
    data_range: Option<f64>,
) -> PyResult<f64> {
    compare(py, a, b, data_range, sdft_metrics::psnr)
}

/// Structural similarity of two images.
///
/// Parameters
/// ----------
/// a, b : array_like of uint8, uint16 or float, shape (height, width) or (height, width, channels)
///     Images of the same shape and type, no smaller than the window. Other float types are read as float32.
/// data_range : float, optional
///     The highest possible value minus the lowest, as in scikit-image. 255 for uint8 and 65535 for uint16 if not given; floats need it.
/// window : {"gaussian", "uniform"}, default "gaussian"
///     ``"gaussian"``: 11 taps with standard deviation 1.5 and population moments, as in the original paper. ``"uniform"``: the mean over
///     7 x 7 with sample moments, the default of scikit-image.
///
/// Returns
/// -------
/// float
///     The mean over channels and all windows inside the image, 1 for equal images.
///
/// Raises
/// ------
/// ValueError
///     Other shapes or types, different images, floats without a range, images smaller than the window, values that are not finite.
#[pyfunction]
#[pyo3(signature = (a, b, *, data_range=None, window="gaussian"))]
pub(crate) fn ssim(
    py: Python<'_>,
    a: &Bound<'_, PyAny>,
    b: &Bound<'_, PyAny>,
    data_range: Option<f64>,
    window: &str,
) -> PyResult<f64> {
    let window = named("window", window, &WINDOWS)?;
    compare(py, a, b, data_range, |a, b| {
        sdft_metrics::ssim(a, b, window)
    })
}

/// Resizes an image as Pillow does, to the bit.
///
/// Integers equal Pillow's modes L, RGB, RGBA and I;16, floats its mode F. The fourth of four channels of integers is alpha: colours are
/// multiplied by it before resizing and divided by it after. Floats may overshoot with "bicubic" and "lanczos"; integers are clamped.
///
/// Parameters
/// ----------
/// image : array_like of uint8, uint16 or float, shape (height, width) or (height, width, channels)
///     Any number of channels. Other float types are read as float32.
/// width, height : int
///     The new size in pixels.
/// filter : {"box", "bilinear", "bicubic", "lanczos"}, default "bicubic"
///     All filters widen when the image shrinks.
///
/// Returns
/// -------
/// numpy.ndarray
///     The resized image, with the type and the number of dimensions of `image`; float32 for all floats.
///
/// Raises
/// ------
/// ValueError
///     Other shapes or types, a size of 0 or more than 2^30 samples, an unknown filter.
#[pyfunction]
#[pyo3(signature = (image, width, height, filter="bicubic"))]
pub(crate) fn resize<'py>(
    py: Python<'py>,
    image: &Bound<'py, PyAny>,
    width: usize,
    height: usize,
    filter: &str,
) -> PyResult<Bound<'py, PyAny>> {
    let filter = named("filter", filter, &FILTERS)?;
    let ImageArray {
        samples,
        shape: [from_height, from_width, channels],
        has_channels,
    } = arrays::image("image", image)?;
    check_size([width, height], [from_width, from_height], channels)?;
    let image = Image::new(from_width, from_height, channels, samples).map_err(error::value)?;
    let resized = py.detach(|| sdft_imaging::resize(&image, width, height, filter));
    let shape = [height, width, channels];
    let shape = if has_channels {
        &shape[..]
    } else {
        &shape[..2]
    };
    arrays::sample_array(py, resized.samples, shape)
}

fn check_size(to: [usize; 2], from: [usize; 2], channels: usize) -> PyResult<()> {
    let [width, height] = to;
    // One pass has the new width and the old height, or the other way round.
    let sides = [width.max(from[0]), height.max(from[1])];
    let samples = sides
        .iter()
        .try_fold(channels, |n, side| n.checked_mul(*side));
    match samples {
        Some(n) if n <= MOST_SAMPLES && width.min(height) > 0 => Ok(()),
        _ => Err(error::value(format!(
            "size {width}x{height} (width x height): expected sides of 1 or more, and at most {MOST_SAMPLES} samples \
             in {channels} channels of the larger of the old and new sides"
        ))),
    }
}

/// Compares two images of the same type without holding Python's lock.
fn compare(
    py: Python<'_>,
    a: &Bound<'_, PyAny>,
    b: &Bound<'_, PyAny>,
    data_range: Option<f64>,
    metric: impl Fn(&Picture<'_>, &Picture<'_>) -> sdft_metrics::Result<f64> + Sync,
) -> PyResult<f64> {
    let (a, b) = (arrays::image("a", a)?, arrays::image("b", b)?);
    let depths = [&a, &b].map(|image| image.samples.depth());
    if depths[0] != depths[1] {
        let [a, b] = depths.map(type_name);
        return Err(error::value(format!(
            "a is of type {a} and b of type {b}; expected the same type"
        )));
    }
    let usual = match depths[0] {
        Depth::U8 => Some(255.0),
        Depth::U16 => Some(65_535.0),
        Depth::F32 => None,
    };
    let Some(range) = data_range.or(usual) else {
        return Err(error::value(
            "data_range: floats need the highest possible value minus the lowest, as in data_range=1.0",
        ));
    };
    py.detach(|| metric(&picture(&a, range)?, &picture(&b, range)?))
        .map_err(|problem: MetricsError| error::metric(problem))
}

fn picture(image: &ImageArray, range: f64) -> sdft_metrics::Result<Picture<'_>> {
    let samples = match &image.samples {
        Samples::U8(values) => PictureSamples::U8(values),
        Samples::U16(values) => PictureSamples::U16(values),
        Samples::F32(values) => PictureSamples::F32(values),
    };
    Picture::new(samples, image.shape, [0.0, range])
}

fn type_name(depth: Depth) -> &'static str {
    match depth {
        Depth::U8 => "uint8",
        Depth::U16 => "uint16",
        Depth::F32 => "float32",
    }
}

/// The choice of this name.
fn named<T: Copy>(argument: &str, name: &str, choices: &[(&str, T)]) -> PyResult<T> {
    let found = choices.iter().find(|(known, _)| *known == name);
    found.map(|(_, choice)| *choice).ok_or_else(|| {
        let names: Vec<&str> = choices.iter().map(|(known, _)| *known).collect();
        error::value(format!(
            "{argument} {name:?}: expected one of {}",
            names.join(", ")
        ))
    })
}
