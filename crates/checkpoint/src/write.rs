//! Writing `.safetensors`.

use crate::error::{Error, Result};
use candle_core::{DType, Device, Tensor};
use half::{bf16, f16};
use sdft_files::{Flush, write_atomic_with};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    move |source| Error::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

/// Why a file was not written: the file system, or its content.
enum Failed {
    System(std::io::Error),
    Content(Error),
}

impl From<std::io::Error> for Failed {
    fn from(error: std::io::Error) -> Self {
        Self::System(error)
    }
}

impl From<candle_core::Error> for Failed {
    fn from(error: candle_core::Error) -> Self {
        Self::Content(error.into())
    }
}

/// Writes a `.safetensors` file atomically, one tensor at a time. The same input gives the same bytes.
///
/// If `dtype` is none, each tensor keeps its type; otherwise floating-point tensors are written as f32, f16 or bf16.
///
/// # Errors
/// A name occurs twice, the format does not have a type, or the file system fails. Then the old file stays.
pub fn write_safetensors<'a>(
    path: &Path,
    tensors: impl IntoIterator<Item = (&'a str, &'a Tensor)>,
    metadata: &BTreeMap<String, String>,
    dtype: Option<DType>,
) -> Result<()> {
    let bad = |problem: String| Error::Format {
        path: path.to_owned(),
        problem,
    };
    let mut header = Map::new();
    if !metadata.is_empty() {
        header.insert("__metadata__".into(), json!(metadata));
    }
    let mut entries: Vec<(&Tensor, DType)> = Vec::new();
    let mut offset = 0u64;
    for (name, tensor) in tensors {
        let to = match dtype {
            Some(to) if tensor.dtype().is_float() => to,
            _ => tensor.dtype(),
        };
        let type_name = match to {
            DType::F64 => "F64",
            DType::F32 => "F32",
            DType::F16 => "F16",
            DType::BF16 => "BF16",
            DType::I64 => "I64",
            DType::U32 => "U32",
            DType::U8 => "U8",
            other => {
                return Err(bad(format!(
                    "{name}: numbers of type {other:?} cannot be written"
                )));
            }
        };
        let end = offset + (tensor.elem_count() * to.size_in_bytes()) as u64;
        let entry =
            json!({ "dtype": type_name, "shape": tensor.dims(), "data_offsets": [offset, end] });
        if name == "__metadata__" || header.insert(name.to_owned(), entry).is_some() {
            return Err(bad(format!("{name} occurs twice")));
        }
        entries.push((tensor, to));
        offset = end;
    }
    let mut header = Value::Object(header).to_string();
    // The numbers begin at a multiple of eight.
    while !header.len().is_multiple_of(8) {
        header.push(' ');
    }
    let written = write_atomic_with(path, Flush::ToDisk, |out| {
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(header.as_bytes())?;
        for (tensor, to) in entries {
            write_tensor(out, tensor, to)?;
        }
        Ok(())
    });
    written.map_err(|failed| match failed {
        Failed::System(source) => io("cannot be written", path)(source),
        Failed::Content(error) => error,
    })
}

fn write_tensor(
    out: &mut impl Write,
    tensor: &Tensor,
    to: DType,
) -> std::result::Result<(), Failed> {
    let flat = tensor
        .to_device(&Device::Cpu)?
        .to_dtype(to)?
        .flatten_all()?;
    match to {
        DType::F64 => numbers(out, &flat.to_vec1::<f64>()?, |v| v.to_le_bytes())?,
        DType::F32 => numbers(out, &flat.to_vec1::<f32>()?, |v| v.to_le_bytes())?,
        DType::F16 => numbers(out, &flat.to_vec1::<f16>()?, |v| v.to_le_bytes())?,
        DType::BF16 => numbers(out, &flat.to_vec1::<bf16>()?, |v| v.to_le_bytes())?,
        DType::I64 => numbers(out, &flat.to_vec1::<i64>()?, |v| v.to_le_bytes())?,
        DType::U32 => numbers(out, &flat.to_vec1::<u32>()?, |v| v.to_le_bytes())?,
        _ => numbers(out, &flat.to_vec1::<u8>()?, |v| [v])?,
    }
    Ok(())
}

fn numbers<T: Copy, const N: usize>(
    out: &mut impl Write,
    values: &[T],
    bytes: impl Fn(T) -> [u8; N],
) -> std::io::Result<()> {
    values
        .iter()
        .try_for_each(|value| out.write_all(&bytes(*value)))
}

/// SHA-256 of a file, in hexadecimal.
///
/// # Errors
/// The file cannot be read.
pub(crate) fn sha256_file(path: &Path) -> Result<String> {
    sdft_files::sha256_file(path).map_err(io("cannot be read", path))
}
