//! Weights of a file as NumPy's arrays.

use crate::{arrays, error, log};
use candle_core::{DType, Tensor};
use half::f16;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use sdft_checkpoint::{Prefer, ReadOptions, read};
use std::path::PathBuf;

/// Reads the weights of a checkpoint without executing anything in it.
///
/// The content determines the kind of file: PyTorch's zip and legacy containers (``.pt``, ``.pth``, ``.ckpt``, ``.bin``), NVIDIA's pickled
/// networks (``.pkl``), safetensors, or the index of several files. A pickle is interpreted: containers and tensors are rebuilt, other
/// objects are only named. Reading takes at most 16 times the size of the file and 64 MB.
///
/// Parameters
/// ----------
/// path : str or os.PathLike
///     The file.
/// key : str, optional
///     The part of the file to take, with dots, as in ``"model.ema"``. If not given, the weights are found in the file.
/// prefer : {"ema", "raw"}, default "ema"
///     The moving average or the weights as trained, if the file has both.
/// allow_non_finite : bool, default False
///     Accept NaN and infinite values, which are an error otherwise.
///
/// Returns
/// -------
/// dict of str to numpy.ndarray
///     The tensors in the order of the file; wrappers' prefixes such as ``module.`` are removed. float32, float64, float16, uint8 and uint32
///     keep their type. bfloat16 and 8-bit floats become float32 with the same values, other integers int64, and bool uint8.
///
/// Raises
/// ------
/// FileNotFoundError
///     The file is missing.
/// OSError
///     The file cannot be read.
/// ValueError
///     The file has no weights, or none under `key`; it is damaged or hostile; a value is NaN or infinite.
#[pyfunction]
#[pyo3(signature = (path, *, key=None, prefer="ema", allow_non_finite=false))]
pub(crate) fn read_checkpoint<'py>(
    py: Python<'py>,
    path: PathBuf,
    key: Option<String>,
    prefer: &str,
    allow_non_finite: bool,
) -> PyResult<Bound<'py, PyDict>> {
    let options = ReadOptions {
        key,
        prefer: match prefer {
            "ema" => Prefer::Ema,
            "raw" => Prefer::Raw,
            _ => {
                return Err(error::value(format!(
                    "prefer {prefer:?}: expected ema or raw"
                )));
            }
        },
        keep_dtype: true,
        allow_non_finite,
        ..ReadOptions::default()
    };
    let (tensors, found) = py.detach(|| {
        let state = read(&path, &options).map_err(|problem| error::checkpoint(&problem))?;
        let found = state.notes();
        let names: Vec<String> = state.iter().map(|(name, _)| name.to_owned()).collect();
        let mut tensors = state.into_map();
        // Each tensor is freed once its numbers are copied.
        let all = names.into_iter().filter_map(|name| {
            let tensor = tensors.remove(&name)?;
            Some(numbers(&tensor).map(|numbers| (name, tensor.dims().to_vec(), numbers)))
        });
        let all = all.collect::<candle_core::Result<Vec<_>>>();
        Ok::<_, PyErr>((all.map_err(error::runtime)?, found))
    })?;
    log::notes(py, &found)?;
    let weights = PyDict::new(py);
    for (name, shape, numbers) in tensors {
        let array = match numbers {
            Numbers::U8(values) => arrays::array(py, values, &shape),
            Numbers::U32(values) => arrays::array(py, values, &shape),
            Numbers::I64(values) => arrays::array(py, values, &shape),
            Numbers::F16(values) => arrays::array(py, values, &shape),
            Numbers::F32(values) => arrays::array(py, values, &shape),
            Numbers::F64(values) => arrays::array(py, values, &shape),
        };
        weights.set_item(name, array?)?;
    }
    Ok(weights)
}

/// The numbers of a tensor, in a type that NumPy has.
enum Numbers {
    U8(Vec<u8>),
    U32(Vec<u32>),
    I64(Vec<i64>),
    F16(Vec<f16>),
    F32(Vec<f32>),
    F64(Vec<f64>),
}

fn numbers(tensor: &Tensor) -> candle_core::Result<Numbers> {
    let flat = tensor.flatten_all()?;
    Ok(match tensor.dtype() {
        DType::U8 => Numbers::U8(flat.to_vec1()?),
        DType::U32 => Numbers::U32(flat.to_vec1()?),
        DType::I64 => Numbers::I64(flat.to_vec1()?),
        DType::F16 => Numbers::F16(flat.to_vec1()?),
        DType::F64 => Numbers::F64(flat.to_vec1()?),
        _ => Numbers::F32(flat.to_dtype(DType::F32)?.to_vec1()?),
    })
}
