//! NumPy's arrays into the library's types and back.

use crate::error;
use numpy::{
    Element, PyArray1, PyArrayDyn, PyArrayMethods as _, PyUntypedArray, PyUntypedArrayMethods as _,
};
use pyo3::prelude::*;
use pyo3::types::IntoPyDict as _;
use sdft_imaging::Samples;
use sdft_metrics::Features;

/// An image as an array of two or three dimensions.
pub(crate) struct ImageArray {
    pub(crate) samples: Samples,
    /// `[height, width, channels]`; 1 channel if the array has none.
    pub(crate) shape: [usize; 3],
    /// Whether the array has a dimension for channels.
    pub(crate) has_channels: bool,
}

/// Reads features of argument `name`.
pub(crate) fn features(name: &str, object: &Bound<'_, PyAny>) -> PyResult<Features> {
    let array = array_of(object)?;
    let &[_, dim] = array.shape() else {
        return Err(error::value(format!(
            "{name}: expected an array of shape (n, d), found {}",
            shape_of(&array)
        )));
    };
    let Some(values) = floats(&array)? else {
        return Err(error::value(format!(
            "{name}: expected floats, found {}; convert it with .astype(numpy.float32)",
            array.dtype()
        )));
    };
    Features::new(values, dim).map_err(|problem| error::value(format!("{name}: {problem}")))
}

/// Reads the image of argument `name`.
pub(crate) fn image(name: &str, object: &Bound<'_, PyAny>) -> PyResult<ImageArray> {
    let array = array_of(object)?;
    let (shape, has_channels) = match *array.shape() {
        [height, width] => ([height, width, 1], false),
        [height, width, channels] => ([height, width, channels], true),
        _ => {
            return Err(error::value(format!(
                "{name}: expected an array of shape (height, width) or (height, width, channels), found {}",
                shape_of(&array)
            )));
        }
    };
    if shape.contains(&0) {
        return Err(error::value(format!(
            "{name}: expected at least one pixel and channel, found {}",
            shape_of(&array)
        )));
    }
    let samples = if let Some(values) = copied::<u8>(&array)? {
        Samples::U8(values)
    } else if let Some(values) = copied::<u16>(&array)? {
        Samples::U16(values)
    } else if let Some(values) = floats(&array)? {
        Samples::F32(values)
    } else {
        return Err(error::value(format!(
            "{name}: expected uint8, uint16 or floats, found {}; convert it with .astype(..)",
            array.dtype()
        )));
    };
    Ok(ImageArray {
        samples,
        shape,
        has_channels,
    })
}

/// A new array of this shape.
pub(crate) fn array<'py, T: Element>(
    py: Python<'py>,
    values: Vec<T>,
    shape: &[usize],
) -> PyResult<Bound<'py, PyAny>> {
    let array = PyArray1::from_vec(py, values).reshape(shape.to_vec())?;
    Ok(array.into_any())
}

/// A new array of samples.
pub(crate) fn sample_array<'py>(
    py: Python<'py>,
    samples: Samples,
    shape: &[usize],
) -> PyResult<Bound<'py, PyAny>> {
    match samples {
        Samples::U8(values) => array(py, values, shape),
        Samples::U16(values) => array(py, values, shape),
        Samples::F32(values) => array(py, values, shape),
    }
}

/// `numpy.asarray(object, order="C")`: the object itself if it is such an array.
fn array_of<'py>(object: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyUntypedArray>> {
    let numpy = object.py().import("numpy")?;
    let order = [("order", "C")].into_py_dict(object.py())?;
    let array = numpy.call_method("asarray", (object,), Some(&order))?;
    Ok(array.cast_into::<PyUntypedArray>()?)
}

/// The values of an array of floats, rounded to f32.
fn floats(array: &Bound<'_, PyUntypedArray>) -> PyResult<Option<Vec<f32>>> {
    if let Some(values) = copied::<f32>(array)? {
        return Ok(Some(values));
    }
    if let Some(values) = copied::<f64>(array)? {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "features and samples are f32"
        )]
        let values = values.into_iter().map(|v| v as f32).collect();
        return Ok(Some(values));
    }
    let halves = copied::<half::f16>(array)?;
    Ok(halves.map(|values| values.into_iter().map(half::f16::to_f32).collect()))
}

/// A copy of the values of an array, row by row; `None` if they have another type.
fn copied<T: Element + Copy>(array: &Bound<'_, PyUntypedArray>) -> PyResult<Option<Vec<T>>> {
    let Ok(array) = array.cast::<PyArrayDyn<T>>() else {
        return Ok(None);
    };
    let values = array.try_readonly().map_err(error::runtime)?;
    Ok(Some(values.as_slice().map_err(error::runtime)?.to_vec()))
}

/// A shape as Python writes it.
fn shape_of(array: &Bound<'_, PyUntypedArray>) -> String {
    let sides: Vec<String> = array.shape().iter().map(usize::to_string).collect();
    match sides.as_slice() {
        [side] => format!("({side},)"),
        sides => format!("({})", sides.join(", ")),
    }
}
